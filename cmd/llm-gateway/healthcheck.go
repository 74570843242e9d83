package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// newHealthcheckCommand is the probe of a container whose image has neither a
// shell nor curl.
func newHealthcheckCommand(a *app) *cobra.Command {
	var text, socket string
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a running gateway whether it is healthy",
		Long: `Ask a running gateway whether it is healthy: exit code 0 when it answers 200
within 3 seconds, 1 otherwise. Without --url it is the gateway that the
configuration describes, asked on this machine
(http://127.0.0.1:12000/health when nothing is configured).

With --unix-socket it is what serve offers on a Unix socket; the host in --url then
says nothing, its path is /health, /healthz/live or /healthz/ready.`,
		Example: `  llm-gateway healthcheck
  llm-gateway healthcheck --unix-socket /run/llm-gateway/api.sock --url http://localhost/healthz/live`,
	}
	cmd.Flags().StringVar(&text, "url", "", "`URL` to ask (default /health of the configured listener)")
	cmd.Flags().StringVar(&socket, "unix-socket", "", "`path` of the socket that serve --http offers, to ask instead of a TCP port")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		transport := &http.Transport{DisableKeepAlives: true}
		if cmd.Flags().Changed("unix-socket") {
			at, err := envoy.ParseEndpoint("unix://" + socket)
			if err != nil || !filepath.IsAbs(socket) {
				return usagef("--unix-socket: write the absolute path of a socket, such as /run/llm-gateway/api.sock")
			}
			transport.DialContext = dialer(at)
			if !cmd.Flags().Changed("url") {
				return a.printHealth(askHealth(cmd.Context(), transport, "http://localhost/health"))
			}
		}
		target, err := a.healthURL(cmd, text)
		if err != nil {
			return err
		}
		return a.printHealth(askHealth(cmd.Context(), transport, target))
	}
	return cmd
}

// healthURL is what --url says, or else where the configured listener answers.
// What is wrong is not repeated: a URL may carry a password.
func (a *app) healthURL(cmd *cobra.Command, text string) (string, error) {
	if !cmd.Flags().Changed("url") {
		c, err := a.config(cmd)
		if err != nil {
			return "", err
		}
		return listenerHealth(c.Listen)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", usagef("--url: write a URL such as http://127.0.0.1:12000/health, without user, query or fragment")
	}
	return u.String(), nil
}

// listenerHealth is the health route of a listener, by address and not by name:
// a minimal image may have nothing that resolves "localhost".
func listenerHealth(listen string) (string, error) {
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return "", fmt.Errorf("read the listener's address: %w", err)
	}
	ip := at.Addr()
	switch {
	case ip == netip.IPv6Unspecified():
		ip = netip.IPv6Loopback()
	case ip.IsUnspecified():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "http://" + netip.AddrPortFrom(ip, at.Port()).String() + "/health", nil
}

// healthView is the answer to a health check. Status is the HTTP status, 0 when
// nobody answered.
type healthView struct {
	Healthy bool   `json:"healthy"`
	URL     string `json:"url"`
	Status  int    `json:"status"`

	failure error // why there was no answer
}

// askHealth asks once, for at most [probeWait]. Redirects are not followed: the
// answer of another server says nothing about this one. There is no proxy in
// between for the same reason.
func askHealth(ctx context.Context, transport http.RoundTripper, target string) healthView {
	view := healthView{URL: target}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		view.failure = err
		return view
	}
	answer, err := transport.RoundTrip(request)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		view.failure = fmt.Errorf("does not answer within %s", shortDuration(probeWait))
		return view
	case err != nil:
		view.failure = fmt.Errorf("does not answer: %w", err)
		return view
	}
	_ = answer.Body.Close() // the status is the answer
	view.Status = answer.StatusCode
	view.Healthy = answer.StatusCode == http.StatusOK
	return view
}

// printHealth writes the result; anything but healthy is an error.
func (a *app) printHealth(view healthView) error {
	var err error
	switch {
	case a.json:
		err = a.printJSON(view)
	case view.Healthy:
		err = a.printf("healthy\n")
	}
	switch {
	case err != nil || view.Healthy:
		return err
	case view.failure != nil:
		return fmt.Errorf("%s %w", view.URL, view.failure)
	}
	return fmt.Errorf("%s answers %d, not 200", view.URL, view.Status)
}
