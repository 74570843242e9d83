package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/cmd/llm-gateway/demo"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// newUpCommand is everything in one: sidecar, Envoy and, without an upstream,
// a demo model, as one foreground process group.
func newUpCommand(app *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run the sidecar and Envoy together",
		Long: "Run the sidecar and Envoy together in the foreground. Without an upstream\n" +
			"(LLM_SERVER_URL or --upstream) a built-in demo model answers. Without any key\n" +
			"one demo key is made and printed once. Ctrl-C drains and stops both.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("listen", "", "address of the listener (default 0.0.0.0:12000)")
	cmd.Flags().String("upstream", "", "URL of the model server: host, base path or full endpoint URL (LLM_SERVER_URL)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := app.config(cmd)
		if err != nil {
			return err
		}
		log, err := newLogger(app.stderr, c.Log.Level)
		if err != nil {
			return err
		}
		return (&upRun{app: app, c: c, log: log}).run(cmd.Context())
	}
	return cmd
}

// upRun is one run of `up`.
type upRun struct {
	app *app
	c   Config
	log *zap.Logger

	folder runFolder
	binary envoy.Binary
	demo   *http.Server // nil when there is an upstream
}

func (u *upRun) run(ctx context.Context) (err error) {
	if u.binary, err = findEnvoy(u.app, u.c); err != nil {
		return err
	}
	if u.folder, err = newRunFolder(u.c.Data); err != nil {
		return err
	}
	// An Envoy that outlived its sidecar would hold the port.
	if err := envoy.EndStale(u.folder.path, u.log); err != nil {
		return err
	}
	upstream, err := u.upstream(ctx)
	if err != nil {
		return err
	}
	if u.demo != nil {
		defer u.demo.Close()
	}
	o, err := u.endpoints()
	if err != nil {
		return err
	}
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	g, err := newGateway(ctx, u.c, o, u.log)
	if err != nil {
		return err
	}
	configPath, err := u.render(ctx, o, upstream)
	if err != nil {
		return errors.Join(err, g.close(ctx))
	}
	return u.serve(ctx, g, configPath)
}

// serve runs gateway and Envoy until one fails or ctx ends. Envoy goes first:
// it stops taking requests and waits for the running answers, which still need
// the gateway.
func (u *upRun) serve(ctx context.Context, g *gateway, configPath string) error {
	gatewayCtx, stopGateway := context.WithCancel(context.WithoutCancel(ctx))
	defer stopGateway()
	envoyCtx, stopEnvoy := context.WithCancel(ctx)
	defer stopEnvoy()

	gatewayDone := make(chan error, 1)
	go func() {
		gatewayDone <- g.serve(gatewayCtx)
		stopEnvoy() // without its gateway Envoy can only refuse
	}()
	go u.welcome(envoyCtx, g)

	envoyErr := envoy.Supervise(envoyCtx, envoy.RunOptions{
		Binary: u.binary.Path, ConfigPath: configPath, RunDir: u.folder.path,
		Stdout: u.app.stderr, Stderr: u.app.stderr, // stdout is for people
		AdminSocket: u.folder.file("envoy-admin.sock"), DrainTime: u.c.Envoy.Drain, Log: u.log,
	})
	stopGateway()
	gatewayErr := <-gatewayDone
	return errors.Join(envoyErr, gatewayErr, g.stop(ctx, time.Second))
}

// upstream is the configured model server, or the demo model on a socket of
// its own.
func (u *upRun) upstream(ctx context.Context) (envoy.Upstream, error) {
	if u.c.Upstream.URL != "" {
		up, err := envoy.ParseUpstream(u.c.Upstream.URL)
		if err != nil {
			return up, err
		}
		up.CAFile = u.c.Upstream.CAFile
		return up, nil
	}
	at := u.folder.socket("demo.sock")
	endpoint, err := envoy.ParseEndpoint(at)
	if err != nil {
		return envoy.Upstream{}, err
	}
	l, err := listen(ctx, endpoint)
	if err != nil {
		return envoy.Upstream{}, err
	}
	u.demo = &http.Server{Handler: demo.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := u.demo.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			u.log.Error("demo model stopped", zap.Error(err))
		}
	}()
	return envoy.Upstream{Host: "demo", BasePath: "/v1", SocketPath: u.folder.file("demo.sock")}, nil
}

func (u *upRun) endpoints() (gatewayOptions, error) {
	var o gatewayOptions
	var err error
	if o.GRPC, err = envoy.ParseEndpoint(u.folder.socket("extproc.sock")); err != nil {
		return o, err
	}
	if o.HTTP, err = envoy.ParseEndpoint(u.folder.socket("api.sock")); err != nil {
		return o, err
	}
	admin := envoy.Admin{Socket: u.folder.file("envoy-admin.sock")}
	o.Components = []api.Component{{Name: "envoy", Check: admin.Ready}}
	return o, nil
}

// render writes Envoy's configuration and has Envoy itself check it.
func (u *upRun) render(ctx context.Context, o gatewayOptions, upstream envoy.Upstream) (string, error) {
	yaml, err := renderEnvoy(u.c, o, upstream, u.folder)
	if err != nil {
		return "", err
	}
	path := u.folder.file("envoy.yaml")
	if err := os.WriteFile(path, yaml, 0o600); err != nil {
		return "", fmt.Errorf("write Envoy's configuration: %w", err)
	}
	if err := envoy.Validate(ctx, u.binary.Path, yaml); err != nil {
		return "", err
	}
	return path, nil
}

// renderEnvoy is the Envoy side of a configuration.
func renderEnvoy(c Config, o gatewayOptions, upstream envoy.Upstream, folder runFolder) ([]byte, error) {
	bootstrap, err := envoy.Bootstrap(envoy.Options{
		Listen: c.Listen, ExtProc: []envoy.Endpoint{o.GRPC}, API: []envoy.Endpoint{o.HTTP}, Upstream: upstream,
		AdminSocket:     folder.file("envoy-admin.sock"),
		MaxRequestBytes: uint32(c.Request.MaxBytes), //nolint:gosec // bounded to 256 MiB by the configuration
		UpstreamTimeout: c.Upstream.Timeout,
	})
	if err != nil {
		return nil, err
	}
	return envoy.RenderYAML(bootstrap)
}

func findEnvoy(app *app, c Config) (envoy.Binary, error) {
	cache := app.getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(app.getenv("HOME"), ".cache")
	}
	return envoy.Find(c.Envoy.Path, app.getenv("PATH"), cache)
}

// welcome waits until the listener answers and tells a person what to do next.
// Results for people go to stdout; everything else is a log line.
func (u *upRun) welcome(ctx context.Context, g *gateway) {
	base := "http://" + reachable(u.c.Listen)
	if !u.ready(ctx, base+"/health") {
		return
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, "llm-gateway is ready on %s\n", base)
	if u.demo != nil {
		fmt.Fprintln(out, "Upstream: the built-in demo model. Set LLM_SERVER_URL to use a real one.")
	} else {
		fmt.Fprintf(out, "Upstream: %s\n", u.c.Upstream.URL)
	}
	secret, err := u.demoKey(ctx, g)
	if err != nil {
		u.log.Error("no demo key could be made", zap.Error(err))
	}
	if secret != "" {
		fmt.Fprintf(out, "Demo key (shown only once): %s\n\nTry it:\n\n  %s\n\n", secret, u.curl(base, secret))
	} else {
		fmt.Fprintln(out, "Make a key with: llm-gateway create-key --limit 100000 --data "+u.c.Data)
	}
	fmt.Fprint(u.app.stdout, out.String())
}

// curl is a line that works when pasted: a chat with the demo model, or a list
// of the models a real upstream has.
func (u *upRun) curl(base, secret string) string {
	auth := fmt.Sprintf(`-H "Authorization: Bearer %s"`, secret)
	if u.demo == nil {
		return fmt.Sprintf("curl %s/v1/models %s", base, auth)
	}
	return fmt.Sprintf(`curl %s/v1/chat/completions %s -H "Content-Type: application/json" -d '{"model":"demo","messages":[{"role":"user","content":"Hello"}]}'`, base, auth)
}

// ready polls the listener until it is healthy; the pace is no protocol, only
// politeness.
func (u *upRun) ready(ctx context.Context, url string) bool {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	client := &http.Client{Timeout: 3 * time.Second}
	for {
		if request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil); err == nil {
			if answer, err := client.Do(request); err == nil {
				_ = answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					return true
				}
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// demoKey makes a key when there has never been one, and waits until the
// running gateway knows it.
func (u *upRun) demoKey(ctx context.Context, g *gateway) (secret string, err error) {
	admin, err := billing.OpenAdmin(ctx, u.c.billingOptions(u.log))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	keys, err := admin.Keys(ctx)
	if err != nil || len(keys) > 0 {
		return "", err
	}
	_, secret, err = admin.CreateKey(ctx, billing.NewKey{Name: "Demo", Description: "made by the first start", Origin: "demo"})
	if err != nil {
		return "", err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := g.book.Lookup(secret); err == nil {
			return secret, nil
		}
		select {
		case <-ctx.Done():
			return secret, nil
		case <-ticker.C:
		}
	}
}

// reachable is an address a client on this machine can use for the listener.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
