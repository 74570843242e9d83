package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

// listenerWait bounds each request of `check --listener`. Envoy itself gives a
// sidecar that hangs up to ten seconds.
const listenerWait = 15 * time.Second

// listenerFlags are the options of `check` about a listener somewhere.
type listenerFlags struct{ url, keyFile string }

func (f *listenerFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.url, "listener", "", "only prove that the listener at this `URL` is closed, from outside")
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "`file` with a valid key, which the listener must let through (with --listener)")
}

// fit says whether a listener is to be checked, and not the configuration.
func (f *listenerFlags) fit(cmd *cobra.Command) (bool, error) {
	flags := cmd.Flags()
	if !flags.Changed("listener") {
		if flags.Changed("key-file") {
			return false, usagef("--key-file is for --listener: name the URL of the listener too")
		}
		return false, nil
	}
	for _, name := range []string{"listen", "upstream"} {
		if flags.Changed(name) {
			return false, usagef("--%s does nothing beside --listener, which looks at that listener only: leave it out", name)
		}
	}
	return true, nil
}

// listenerView is the result of `check --listener`.
type listenerView struct {
	OK       bool      `json:"ok"`
	Listener string    `json:"listener"`
	Checks   []finding `json:"checks"`
}

// checkClosed tries the doors of a listener. It needs no configuration: it can
// run wherever clients are.
func (a *app) checkClosed(ctx context.Context, f listenerFlags) error {
	base, err := listenerBase(f.url)
	if err != nil {
		return err
	}
	key, err := f.key()
	if err != nil {
		return err
	}
	unknown, err := billing.NewSecret()
	if err != nil {
		return err
	}
	list := knocks(unknown)
	if key != "" {
		list = append(list, validKnock(key))
	}
	return a.printListener(listenerView{Listener: base, Checks: knockAll(ctx, base, list)})
}

// listenerBase is what stands before /v1 in the URL that clients use.
func listenerBase(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1") != "" {
		return "", usagef("--listener: write the URL by which clients reach Envoy, such as http://127.0.0.1:12000 or https://llm.example.com, without user, path or query")
	}
	return u.Scheme + "://" + u.Host, nil
}

// key reads the file of --key-file; "" without one. What is in it is not
// repeated.
func (f *listenerFlags) key() (string, error) {
	if f.keyFile == "" {
		return "", nil
	}
	text, err := readSmall(f.keyFile)
	if err != nil {
		return "", fmt.Errorf("--key-file cannot be read: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("--key-file: %s must hold one key and nothing else", f.keyFile)
	}
	return key, nil
}

// knockAll sends the first request alone: when nobody answers it there is no
// more to say. The others are sent at once.
func knockAll(ctx context.Context, base string, list []knock) []finding {
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, // and no proxy: it would be its answers
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	findings := make([]finding, len(list))
	one := func(i int) error {
		a, err := list[i].send(ctx, transport, base)
		findings[i] = finding{Name: list[i].name}
		if err != nil {
			findings[i].Detail = "no answer: " + noAnswer(err)
			return err
		}
		findings[i].Detail, findings[i].OK = list[i].judge(a)
		return nil
	}
	if err := one(0); err != nil {
		return []finding{{Name: "listener", Detail: "nothing answers at " + base + ": " + noAnswer(err) +
			": start Envoy, or name the URL of its listener"}}
	}
	var running sync.WaitGroup
	for i := 1; i < len(list); i++ {
		running.Go(func() { _ = one(i) }) // it is in the findings
	}
	running.Wait()
	return findings
}

// send does not follow redirects: another listener's answer says nothing about
// this one.
func (k knock) send(ctx context.Context, transport http.RoundTripper, base string) (a answered, err error) {
	ctx, cancel := context.WithTimeout(ctx, listenerWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, k.method, base, strings.NewReader(k.body))
	if err != nil {
		return a, err
	}
	// The path goes out as it is written here; Path is its meaning.
	request.URL.RawPath = k.path
	if request.URL.Path, err = url.PathUnescape(k.path); err != nil {
		return a, err
	}
	for name, values := range k.header {
		request.Header[name] = values
	}
	if k.body != "" {
		request.Header.Set("Content-Type", "application/json")
	} else {
		request.Body, request.ContentLength = http.NoBody, 0
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return a, err
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	_ = response.Body.Close()
	if response.StatusCode >= 400 && err != nil {
		return a, fmt.Errorf("an error answer that breaks off: %w", err)
	}
	return answered{response.StatusCode, response.Header, body}, nil
}

// noAnswer says in plain words why there was none.
func noAnswer(err error) string {
	var unknown *net.DNSError
	var authority x509.UnknownAuthorityError
	var plain tls.RecordHeaderError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "not within " + shortDuration(listenerWait)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection is refused"
	case errors.As(err, &unknown):
		return "the name " + unknown.Name + " cannot be looked up"
	case errors.As(err, &authority):
		return "its certificate is of an authority that this machine does not trust (SSL_CERT_FILE names a file of others)"
	case errors.As(err, &plain):
		return "it does not speak TLS (is it http?)"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "the connection ends without one (is it https?)"
	}
	return err.Error()
}

func (a *app) printListener(v listenerView) error {
	var open []string
	width := 0
	for _, f := range v.Checks {
		width = max(width, len(f.Name))
		if !f.OK {
			open = append(open, f.Name)
		}
	}
	v.OK = len(open) == 0
	if a.json {
		if err := a.printJSON(v); err != nil {
			return err
		}
	} else {
		for _, f := range v.Checks {
			word := "ok"
			if !f.OK {
				word = "fail"
			}
			if err := a.printf("%-4s  %-*s  %s\n", word, width, f.Name, printable(f.Detail)); err != nil {
				return err
			}
		}
	}
	switch {
	case v.OK:
		return nil
	case len(v.Checks) == 1:
		return errors.New("the listener could not be checked")
	}
	return fmt.Errorf("%d of %d did not go as they must: %s (docs/existing-envoy.md tells what closes a listener)",
		len(open), len(v.Checks), strings.Join(open, "; "))
}
