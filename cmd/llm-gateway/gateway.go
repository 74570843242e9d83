package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	log       *zap.Logger
	config    atomic.Pointer[Config] // in force
	book      *billing.Book
	gate      *grpc.Server
	exchanges *extproc.Server // what the gate serves
	health    *health.Server
	info      *http.Server
	probe     *grpc.ClientConn // the gate, asked the way Envoy asks it

	limiter     *ratelimit.Limiter
	stopLimiter context.CancelFunc // nil before serve
	limiterDone chan struct{}
	metrics     *http.Server         // nil when none is configured
	registry    *prometheus.Registry // nil when nobody can read it
	tracing     *tracing             // nil when none is configured
	admin       *adminServer         // nil when it is off
	draining    atomic.Bool          // it is about to stop
	notice      time.Duration        // before it takes no more requests

	gateListener, infoListener, metricsListener net.Listener
}

// gatewayOptions are what a gateway needs beside its configuration.
type gatewayOptions struct {
	GRPC, HTTP envoy.Endpoint
	Components []api.Component // further parts that GET /health asks
	Env        []string        // NAME=value, of which OpenTelemetry's are read
	Notice     time.Duration   // a stop begins so long after it was announced to Envoy
}

// newGateway opens everything and takes its sockets, but serves nothing yet:
// what cannot work is an error here, not a log line later.
func newGateway(ctx context.Context, c Config, o gatewayOptions, log *zap.Logger) (_ *gateway, err error) {
	g := &gateway{log: log, notice: o.Notice}
	g.config.Store(&c)
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
	if err := g.openLimiter(ctx, c, log); err != nil {
		return nil, err
	}
	if err := g.observe(ctx, c, o.Env, log); err != nil {
		return nil, err
	}
	options := extproc.Options{
		Books: g.book, Limits: g.limiter, Settings: c.gateSettings(),
		MaxRequestBytes: c.Request.MaxBytes, Log: log,
	}
	g.observed(&options, c)
	gate, err := extproc.New(options)
	if err != nil {
		return nil, err
	}
	g.exchanges = gate
	g.gate = grpc.NewServer(extproc.ServerOptions(c.Request.MaxBytes)...)
	gate.Register(g.gate)
	g.health = health.NewServer()
	g.health.SetServingStatus(extproc.ServiceName, healthpb.HealthCheckResponse_SERVING)
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
	components := append(g.components(), o.Components...)
	g.info = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: api.Handler(api.Options{
		Version:      buildVersion(),
		Components:   components,
		Draining:     g.draining.Load,
		Book:         g.book,
		Defaults:     g.defaultLimits,
		Authenticate: authenticator(gate),
		Limits:       g.limiter,
		LimitsOf:     func(k billing.Key) ratelimit.Limits { return extproc.LimitsOf(k, g.defaultLimits()) },
		Docs:         func() bool { return g.config.Load().Docs.Enabled },
		Log:          log,
	})}
	if c.Metrics.Listen != "" {
		g.registry.MustRegister(newComponentMetrics(components))
		if g.metricsListener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.Metrics.Listen); err != nil {
			return nil, fmt.Errorf("listen for metrics on %s: %w", c.Metrics.Listen, err)
		}
		g.metrics = &http.Server{Handler: metricsHandler(g.registry), ReadHeaderTimeout: 5 * time.Second}
	}
	if g.admin, err = openAdmin(ctx, c, g.keyDefaults, g.book.Refresh, log); err != nil {
		return nil, err
	}
	return g, nil
}

// components are the gateway's own parts that GET /health tells about.
func (g *gateway) components() []api.Component {
	return []api.Component{
		{Name: "database", Check: g.book.Healthy, Facts: func() map[string]string {
			return map[string]string{"storage": g.book.Storage()}
		}},
		{Name: "gate", Check: g.gateHealthy},
		{Name: "rate_limit", Check: g.limiterHealthy, Optional: true, Facts: func() map[string]string {
			return map[string]string{"storage": g.limiter.Status().Storage}
		}},
		{Name: "redis", Check: g.limiterHealthy, Optional: true, Facts: g.redisFacts},
		{Name: "llm", Check: g.upstreamHealthy, Optional: true, Facts: func() map[string]string {
			return map[string]string{"seen": string(g.exchanges.Upstream())}
		}},
	}
}

// limiterHealthy is an error while a configured Redis is away: the limits are
// kept, but by each gateway for itself.
func (g *gateway) limiterHealthy(context.Context) error {
	if s := g.limiter.Status(); s.Configured && s.Storage == ratelimit.StorageMemory {
		return fmt.Errorf("redis is away (%s): rate limits are kept in memory", s.LastError)
	}
	return nil
}

// openLimiter makes the rate limits and fills them from the admissions in the
// books, so that a restart grants no second quota.
func (g *gateway) openLimiter(ctx context.Context, c Config, log *zap.Logger) error {
	o, err := c.limiterOptions(log)
	if err != nil {
		return err
	}
	o.History = func(ctx context.Context, since time.Time) ([]ratelimit.Past, error) {
		return history(ctx, g.book, since, g.defaultLimits())
	}
	if g.limiter, err = ratelimit.New(o); err != nil {
		return fmt.Errorf("rate limits: %w", err)
	}
	past, err := o.History(ctx, time.Now().Add(-o.LongestWindow))
	if err != nil {
		return fmt.Errorf("restore rate limits: %w", err)
	}
	g.limiter.Restore(past)
	return nil
}

// history is what the books know of admissions, with the limits that apply to
// each key now.
func history(ctx context.Context, book *billing.Book, since time.Time, defaults ratelimit.Limits) ([]ratelimit.Past, error) {
	admissions, err := book.Admissions(ctx, since)
	if err != nil {
		return nil, err
	}
	past := make([]ratelimit.Past, len(admissions))
	for i, a := range admissions {
		key, _ := book.Key(a.KeyID) // a key that is gone has the defaults
		past[i] = ratelimit.Past{ID: a.ID, Subject: a.KeyID, At: a.At, Tokens: a.Tokens, Limits: extproc.LimitsOf(key, defaults)}
	}
	return past, nil
}

// authenticator lets the info routes ask who a caller is in the gate's way.
func authenticator(gate *extproc.Server) api.Authenticate {
	return func(authorization []string) (billing.Key, *api.Denied) {
		key, denied := gate.Authenticate(authorization)
		if denied == nil {
			return key, nil
		}
		return key, &api.Denied{Status: denied.Status, Headers: denied.Headers, Body: denied.Body}
	}
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
	failed := make(chan error, 5)
	limiterCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // running answers end their places
	g.stopLimiter, g.limiterDone = cancel, make(chan struct{})
	go func() {
		defer close(g.limiterDone)
		if err := g.limiter.Run(limiterCtx); err != nil {
			failed <- fmt.Errorf("rate limits: %w", err)
		}
	}()
	if g.metrics != nil {
		go func() {
			if err := g.metrics.Serve(g.metricsListener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("metrics: %w", err)
			}
		}()
	}
	if g.admin != nil {
		go func() {
			if err := g.admin.serve(); err != nil {
				failed <- err
			}
		}()
	}
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

// stop ends in an order that loses nothing: Envoy is told to send its requests
// elsewhere, where there is an elsewhere; then no new exchanges, running ones
// finish (at most drain), their charges are written, then the books close.
func (g *gateway) stop(ctx context.Context, drain time.Duration) error {
	g.draining.Store(true)
	g.health.Shutdown()
	time.Sleep(g.notice)
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
	if g.admin != nil {
		errs = append(errs, g.admin.close(ctx))
	}
	if g.info != nil {
		errs = append(errs, g.info.Shutdown(ctx))
	}
	if g.probe != nil {
		errs = append(errs, g.probe.Close())
	}
	if g.metrics != nil {
		errs = append(errs, g.metrics.Shutdown(ctx))
	}
	if g.tracing != nil {
		errs = append(errs, g.tracing.close(ctx))
	}
	for _, l := range []net.Listener{g.gateListener, g.infoListener, g.metricsListener} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if g.stopLimiter != nil {
		g.stopLimiter()
		<-g.limiterDone
	}
	if g.limiter != nil {
		errs = append(errs, g.limiter.Close())
	}
	if g.book != nil {
		errs = append(errs, g.book.Close(ctx))
	}
	return errors.Join(errs...)
}
