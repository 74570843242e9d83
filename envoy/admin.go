package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ErrNotReady says that Envoy answers but does not serve (yet, or any more).
var ErrNotReady = errors.New("envoy does not serve")

// adminTimeout bounds one question to the admin interface; its answers come
// from memory.
const adminTimeout = 3 * time.Second

// Admin talks to an Envoy's admin interface. It keeps no connection: Envoy may
// be another process at the next question.
type Admin struct {
	Socket  string // path of the Unix socket, or
	Address string // host:port
}

// Ready returns nil when Envoy serves (state LIVE), and an error that wraps
// [ErrNotReady] with the state when it is starting or draining.
func (a Admin) Ready(ctx context.Context) error { return a.once().ready(ctx) }

// Stat returns the counter or gauge with exactly this name. Envoy knows a name
// from its first use on; an unknown one is an error.
func (a Admin) Stat(ctx context.Context, name string) (int64, error) { return a.once().stat(ctx, name) }

func (a Admin) once() adminClient {
	return adminClient{http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx) },
	}}}
}

func (a Admin) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if a.Socket != "" {
		return d.DialContext(ctx, "unix", a.Socket)
	}
	return d.DialContext(ctx, "tcp", a.Address)
}

// adminClient asks an admin interface over connections of its own.
type adminClient struct {
	http *http.Client
	// patient is for connections that must last: a question that is given up
	// takes its connection with it.
	patient bool
}

func (c adminClient) ready(ctx context.Context) error {
	status, body, err := c.ask(ctx, http.MethodGet, "/ready")
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%w: state %s", ErrNotReady, strings.TrimSpace(body))
	}
	return nil
}

func (c adminClient) stat(ctx context.Context, name string) (int64, error) {
	query := url.Values{"filter": {"^" + regexp.QuoteMeta(name) + "$"}}
	status, body, err := c.ask(ctx, http.MethodGet, "/stats?"+query.Encode())
	if err != nil {
		return 0, err
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(body), name+": ")
	if status != http.StatusOK || !ok {
		return 0, fmt.Errorf("envoy statistic %s: not there (status %d)", name, status)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("envoy statistic %s: %w", name, err)
	}
	return n, nil
}

// drain lets Envoy take no new connection, and close those it has after the
// answers they wait for.
func (c adminClient) drain(ctx context.Context) error {
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners"} {
		status, _, err := c.ask(ctx, http.MethodPost, path)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("envoy admin %s: status %d", path, status)
		}
	}
	return nil
}

func (c adminClient) ask(ctx context.Context, method, path string) (int, string, error) {
	if c.patient {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return 0, "", fmt.Errorf("ask Envoy's admin: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return 0, "", fmt.Errorf("ask Envoy's admin: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return 0, "", fmt.Errorf("read Envoy's admin: %w", err)
	}
	return answer.StatusCode, string(body), nil
}
