package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// newServeCommand is the sidecar alone, for an Envoy that runs elsewhere.
func newServeCommand(app *app) *cobra.Command {
	s := &serveRun{app: app}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar alone, for an Envoy that runs elsewhere",
		Long: "Run the sidecar alone: the ext_proc service that Envoy asks, and the HTTP\n" +
			"listener of the info routes that Envoy forwards to. Without a configured\n" +
			"path both are Unix sockets in DATA/run. The Envoy side is made by\n" +
			"`llm-gateway envoy` (it runs Envoy) or `llm-gateway envoy-config`.",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&s.grpcAt, "grpc", "", "where Envoy finds the ext_proc service: unix:///PATH or host:port (default unix://DATA/run/extproc.sock)")
	flags.StringVar(&s.httpAt, "http", "", "where Envoy finds the info routes: unix:///PATH or host:port (default unix://DATA/run/api.sock)")
	flags.StringVar(&s.demoAt, "demo", "", "where the built-in demo model listens while no upstream is configured: unix:///PATH or host:port (default nowhere)")
	flags.StringVar(&s.publicURL, "public-url", "", "`URL` by which clients reach Envoy; with it the start is announced on stdout, and the first one makes a demo key")
	flags.BoolVar(&s.replica, "replica", false, "be one of several gateways behind one Envoy: refuse to start without PostgreSQL books, which they share, and go on for 3 s when told to stop, until Envoy has noticed")
	flags.String("upstream", "", "URL of the model server (LLM_SERVER_URL); only checked here, Envoy routes to it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s.src = app.sources(cmd)
		s.files = lookAtFiles(s.src)
		c, from, err := loadOrigins(s.src)
		if err != nil {
			return err
		}
		return s.run(cmd.Context(), c, from)
	}
	return cmd
}

// serveRun is one run of `serve`.
type serveRun struct {
	app                               *app
	grpcAt, httpAt, demoAt, publicURL string
	replica                           bool

	src   sources
	files fileStates // before the configuration was read
}

func (s *serveRun) run(ctx context.Context, c Config, from origins) error {
	if s.replica && !sharedBooks(c) {
		return errors.New("a replica keeps no books of its own: set DATABASE_URL=postgres://user:password@host:5432/name, the same for all gateways behind this Envoy (with docker-compose.yaml: in .env)")
	}
	if err := checkPublicURL(s.publicURL); err != nil {
		return err
	}
	if err := c.preflight(from, false).asError(); err != nil {
		return err
	}
	folder, err := runFolderOf(c.Data)
	if err != nil {
		return err
	}
	o := gatewayOptions{Env: s.app.env}
	if s.replica {
		o.Notice = envoy.NoticeTime
	}
	if o.GRPC, err = endpointOr(s.grpcAt, folder.socket("extproc.sock")); err != nil {
		return usageError(err)
	}
	if o.HTTP, err = endpointOr(s.httpAt, folder.socket("api.sock")); err != nil {
		return usageError(err)
	}
	if _, err := newRunFolder(c.Data); err != nil {
		return err
	}
	log, control, err := s.app.controlledLogger(c)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r := newReloader(s.src, s.files, c, log, control, stop)
	w := welcome{app: s.app, c: c, base: strings.TrimRight(s.publicURL, "/"), log: log}
	if s.demoAt != "" && c.Upstream.URL == "" {
		demo, err := startDemo(ctx, s.demoAt, log)
		if errors.Is(err, envoy.ErrOptions) {
			return usageError(fmt.Errorf("--demo: %w", err))
		}
		if err != nil {
			return err
		}
		defer demo.Close()
		w.demo = true
	}
	if err := waitForDatabase(ctx, c, log); err != nil {
		return err
	}
	return serve(ctx, c, o, log, func(ctx context.Context, g *gateway) {
		if s.publicURL != "" && answers(ctx, clientOf(o.HTTP), "http://localhost/health") {
			w.show(ctx, g)
		}
	}, func(ctx context.Context, g *gateway) { r.run(ctx, g.reconfigure) })
}

// checkPublicURL wants what clients put before /v1.
func checkPublicURL(text string) error {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		return usagef("--public-url: write a URL such as http://localhost:12000, without user, query or fragment")
	}
	return nil
}

// clientOf asks a listener of ours, whatever the host in the URL says.
func clientOf(e envoy.Endpoint) *http.Client {
	return &http.Client{Timeout: probeWait, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer(e)}}
}

// dialer reaches an endpoint, whatever it is asked for.
func dialer(e envoy.Endpoint) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		if path, ok := e.Socket(); ok {
			return d.DialContext(ctx, "unix", path)
		}
		return d.DialContext(ctx, "tcp", e.Address())
	}
}

func endpointOr(given, fallback string) (envoy.Endpoint, error) {
	if given == "" {
		given = fallback
	}
	return envoy.ParseEndpoint(given)
}

// heapFloor is memory that is never touched, so it costs no RAM. It keeps the
// collector from running every few megabytes of garbage, which is what a heap
// as small as this one's would otherwise cause: a tenth of the CPU of a
// request. Unlike a higher GOGC it adds nothing when the heap is large.
const heapFloor = 16 << 20

// serve runs a gateway until ctx ends, then drains it. Beside it run the
// companions, whose context ends with the gateway.
func serve(ctx context.Context, c Config, o gatewayOptions, log *zap.Logger, companions ...func(context.Context, *gateway)) error {
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	g, err := newGateway(ctx, c, o, log)
	if err != nil {
		return err
	}
	log.Info("gateway serves", zap.Stringer("grpc", o.GRPC), zap.Stringer("http", o.HTTP))
	beside, end := context.WithCancel(ctx)
	defer end()
	var running sync.WaitGroup
	for _, companion := range companions {
		running.Go(func() { companion(beside, g) })
	}
	failed := g.serve(ctx)
	log.Info("gateway stops")
	end()
	running.Wait() // they may be at the books, which are about to be closed
	stopped := g.stop(ctx, max(c.Envoy.Drain, time.Second))
	if failed != nil {
		return failed
	}
	return stopped
}
