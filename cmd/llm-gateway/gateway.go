package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/envoy"
	"github.com/MaksimVF/llm-gateway/extproc"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// gateway is the sidecar: the books, the windows, the gate that Envoy asks,
// and the info routes.
type gateway struct {
	log    *zap.Logger
	book   *billing.Book
	gate   *grpc.Server
	health *health.Server
	info   *http.Server
	probe  *grpc.ClientConn // the gate, asked the way Envoy asks it

	gateListener, infoListener net.Listener
}

// gatewayOptions are what a gateway needs beside its configuration.
type gatewayOptions struct {
	GRPC, HTTP envoy.Endpoint
	Components []api.Component // further parts that GET /health asks
}

// newGateway opens everything and takes its sockets, but serves nothing yet:
// what cannot work is an error here, not a log line later.
func newGateway(ctx context.Context, c Config, o gatewayOptions, log *zap.Logger) (_ *gateway, err error) {
	g := &gateway{log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close(context.WithoutCancel(ctx)))
		}
	}()
	if g.book, err = billing.Open(ctx, c.billingOptions(log)); err != nil {
		return nil, err
	}
	if err := importKeys(ctx, g.book, c, log); err != nil {
		return nil, err
	}
	window := ratelimit.Limit{Max: c.Limits.Requests, Window: c.Limits.Window}
	limiter := ratelimit.New(ratelimit.Options{})
	if err := restoreWindows(ctx, g.book, limiter, window); err != nil {
		return nil, err
	}
	gate, err := extproc.New(extproc.Options{
		Books: g.book, Limits: limiter, Window: window,
		InvalidKeyStatus:    c.Auth.InvalidKeyStatus,
		MaxRequestBytes:     c.Request.MaxBytes,
		DefaultOutputTokens: c.Request.DefaultOutputTokens,
		BudgetExact:         c.Request.BudgetExact,
		UpstreamKey:         c.Upstream.APIKey.Reveal(),
		Log:                 log,
	})
	if err != nil {
		return nil, err
	}
	g.gate = grpc.NewServer(extproc.ServerOptions(c.Request.MaxBytes)...)
	gate.Register(g.gate)
	g.health = health.NewServer()
	healthpb.RegisterHealthServer(g.gate, g.health)
	if g.gateListener, err = listen(ctx, o.GRPC); err != nil {
		return nil, err
	}
	if g.infoListener, err = listen(ctx, o.HTTP); err != nil {
		return nil, err
	}
	if g.probe, err = grpc.NewClient(dialTarget(o.GRPC), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return nil, fmt.Errorf("prepare the gate's health check: %w", err)
	}
	components := append([]api.Component{
		{Name: "database", Check: g.book.Healthy, Facts: map[string]string{"storage": g.book.Storage()}},
		{Name: "gate", Check: g.gateHealthy},
		{Name: "rate_limit", Check: func(context.Context) error { return nil }, Facts: map[string]string{"storage": "memory"}},
	}, o.Components...)
	g.info = &http.Server{Handler: api.Handler(api.Options{Components: components, Log: log}), ReadHeaderTimeout: 5 * time.Second}
	return g, nil
}

// importKeys makes the keys of ALLOWED_API_KEYS valid; a revocation in the
// books beats the list.
func importKeys(ctx context.Context, book *billing.Book, c Config, log *zap.Logger) error {
	secrets := make([]string, 0, len(c.Auth.AllowedKeys))
	for _, s := range c.Auth.AllowedKeys {
		secrets = append(secrets, s.Reveal())
	}
	added, err := book.Import(ctx, secrets, "env")
	if err != nil {
		return fmt.Errorf("import ALLOWED_API_KEYS: %w", err)
	}
	if added > 0 {
		log.Info("keys imported", zap.Int("added", added))
	}
	return nil
}

// restoreWindows fills the request windows from the admissions in the books,
// so that a restart grants no second quota.
func restoreWindows(ctx context.Context, book *billing.Book, limiter *ratelimit.Limiter, window ratelimit.Limit) error {
	admissions, err := book.Admissions(ctx, time.Now().Add(-max(window.Window, time.Minute)))
	if err != nil {
		return fmt.Errorf("restore request windows: %w", err)
	}
	times := make(map[string][]time.Time)
	for _, a := range admissions {
		times[a.KeyID] = append(times[a.KeyID], a.At)
	}
	for id, at := range times {
		limit := window
		if key, ok := book.Key(id); ok && key.RPM > 0 {
			limit = ratelimit.Limit{Max: key.RPM, Window: time.Minute}
		}
		limiter.Restore(id, limit, at)
	}
	return nil
}

// gateHealthy asks the gate over its own socket: what answers here is what
// answers Envoy.
func (g *gateway) gateHealthy(ctx context.Context) error {
	answer, err := healthpb.NewHealthClient(g.probe).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("gate is %s", answer.GetStatus())
	}
	return nil
}

// serve works until ctx ends or a server fails.
func (g *gateway) serve(ctx context.Context) error {
	failed := make(chan error, 2)
	go func() { failed <- fmt.Errorf("gate: %w", g.gate.Serve(g.gateListener)) }()
	go func() {
		if err := g.info.Serve(g.infoListener); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("info routes: %w", err)
		}
	}()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// stop ends in an order that loses nothing: no new exchanges, running ones
// finish (at most drain), their charges are written, then the books close.
func (g *gateway) stop(ctx context.Context, drain time.Duration) error {
	g.health.Shutdown()
	finished := make(chan struct{})
	go func() {
		g.gate.GracefulStop()
		close(finished)
	}()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-finished:
	case <-timer.C:
		// Streams that are still open end with an error, which Envoy treats
		// as closed; their holds are settled by the handlers on the way out.
		g.log.Warn("answers still running after the drain time are cut", zap.Duration("drain", drain))
		g.gate.Stop()
		<-finished
	}
	return g.close(ctx)
}

func (g *gateway) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var errs []error
	if g.info != nil {
		errs = append(errs, g.info.Shutdown(ctx))
	}
	if g.probe != nil {
		errs = append(errs, g.probe.Close())
	}
	for _, l := range []net.Listener{g.gateListener, g.infoListener} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if g.book != nil {
		errs = append(errs, g.book.Close(ctx))
	}
	return errors.Join(errs...)
}

// listen takes an endpoint. A Unix socket is made under another name and moved
// into place, so that there is no moment without one when a successor takes
// over; its folder and file are ours alone.
func listen(ctx context.Context, e envoy.Endpoint) (net.Listener, error) {
	var config net.ListenConfig
	path, ok := e.Socket()
	if !ok {
		l, err := config.Listen(ctx, "tcp", e.Address())
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", e.Address(), err)
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of a socket: %w", err)
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(fresh) // left by a process with our id that was killed
	l, err := config.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

func dialTarget(e envoy.Endpoint) string {
	if path, ok := e.Socket(); ok {
		return "unix:" + path
	}
	return "passthrough:///" + e.Address()
}
