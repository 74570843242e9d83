package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// adminServer is the operator's routes on a listener of their own. There is
// none while no token is set.
type adminServer struct {
	books    *billing.Admin
	server   *http.Server
	listener net.Listener
}

// openAdmin takes the listener of the admin API, nil when it is off.
func openAdmin(ctx context.Context, c Config, defaults func() api.Defaults, refresh func(context.Context) error, log *zap.Logger) (_ *adminServer, err error) {
	if c.Admin.Token == "" {
		return nil, nil
	}
	s := &adminServer{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	o := c.billingOptions(log)
	o.Actor = "api"
	if s.books, err = billing.OpenAdmin(ctx, o); err != nil {
		return nil, fmt.Errorf("admin API: %w", err)
	}
	if _, err := s.books.Find(ctx, c.Admin.Token.Reveal()); err == nil {
		return nil, errAdminToken
	} else if !errors.Is(err, billing.ErrUnknownKey) {
		return nil, fmt.Errorf("admin API: %w", err)
	}
	at, err := envoy.ParseEndpoint(c.Admin.Listen)
	if err != nil {
		return nil, fmt.Errorf("LLMGW_ADMIN__LISTEN: %w", err)
	}
	if s.listener, err = listen(ctx, at); err != nil {
		return nil, fmt.Errorf("admin API: %w", err)
	}
	s.server = &http.Server{
		Handler: api.AdminHandler(api.AdminOptions{
			Token: c.Admin.Token.Reveal(), Books: s.books, Defaults: defaults,
			Refresh: refresh, Now: time.Now, Version: buildVersion(), Log: log,
		}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: zap.NewStdLog(log),
	}
	if atHome(c.Admin.Listen) {
		log.Info("admin API is on", zap.String("listen", c.Admin.Listen))
	} else {
		log.Warn("admin API can be reached from other machines, without TLS: keep clients away from it", zap.String("listen", c.Admin.Listen))
	}
	return s, nil
}

// serve works until close.
func (s *adminServer) serve() error {
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin API: %w", err)
	}
	return nil
}

func (s *adminServer) close(ctx context.Context) error {
	var errs []error
	if s.server != nil {
		errs = append(errs, s.server.Shutdown(ctx))
	}
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.books != nil {
		errs = append(errs, s.books.Close())
	}
	return errors.Join(errs...)
}

// atHome says whether only this machine reaches an address.
func atHome(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

var errAdminToken = errors.New("LLMGW_ADMIN__TOKEN: it is a client's key: make a token of its own, such as `openssl rand -hex 32` prints")

// adminTokenIsShared says whether somebody else has the token for another purpose.
func (c Config) adminTokenIsShared() bool {
	return slices.Contains(append([]Secret{c.Upstream.APIKey, c.Auth.Pepper}, c.Auth.AllowedKeys...), c.Admin.Token)
}

// minAdminToken is the shortest token that is accepted, in bytes.
const minAdminToken = 32

// adminToken reads the credential of the admin API, which can make and revoke
// keys: what somebody could guess is refused.
func adminToken(text string) (any, string) {
	const advice = ", such as `openssl rand -hex 32` prints"
	if text == "" {
		return Secret(""), ""
	}
	if _, bad := headerSecret(text); bad != "" || len(text) > maxClientKey {
		return nil, "a token of at most 256 printable ASCII characters without spaces" + advice
	}
	if len(text) < minAdminToken {
		return nil, "a token of at least 32 characters" + advice
	}
	seen := map[rune]bool{}
	for _, r := range text {
		seen[r] = true
	}
	if len(seen) < 8 {
		return nil, "a token that is not the same few characters again and again" + advice
	}
	plain := strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(text))
	for _, word := range []string{"changeme", "placeholder", "example", "yourtoken", "yoursecret", "admintoken", "replaceme"} {
		if strings.Contains(plain, word) {
			return nil, "a token of its own in the place of the sample text" + advice
		}
	}
	if strings.HasPrefix(text, "sk-") {
		return nil, "a token that does not look like a key of a client (sk-…)" + advice
	}
	return Secret(text), ""
}

// adminAddress reads where the admin API listens. Every address of the machine
// must be asked for by name: 0.0.0.0.
func adminAddress(text string) (any, string) {
	const wants = "an address and a port such as 127.0.0.1:12090, or unix:///PATH"
	if strings.HasPrefix(text, "unix:") {
		if _, err := envoy.ParseEndpoint(text); err != nil {
			return nil, wants
		}
		return text, ""
	}
	if strings.HasPrefix(text, ":") {
		return nil, wants
	}
	address, bad := listenAddress(text)
	if bad != "" {
		return nil, wants
	}
	return address, ""
}

// checkAdmin says where the admin API would listen.
func checkAdmin(ctx context.Context, c Config) (string, error) {
	if c.Admin.Token == "" {
		return "off (set LLMGW_ADMIN__TOKEN to turn it on)", nil
	}
	note := ""
	if !atHome(c.Admin.Listen) {
		note = ", can be reached from other machines: keep clients away from it"
	}
	if strings.HasPrefix(c.Admin.Listen, "unix:") {
		return c.Admin.Listen, nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Admin.Listen)
	if err == nil {
		return c.Admin.Listen + ", free" + note, l.Close()
	}
	if isAdminAPI(ctx, "http://"+reachable(c.Admin.Listen)+"/admin/openapi.json") {
		return c.Admin.Listen + ", in use by a running gateway" + note, nil
	}
	return "", fmt.Errorf("%s cannot be used: end the program that has it, or choose another address with LLMGW_ADMIN__LISTEN: %w", c.Admin.Listen, err)
}

// isAdminAPI recognises a running admin API by its document.
func isAdminAPI(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close() // only the status counts
	return answer.StatusCode == http.StatusOK
}
