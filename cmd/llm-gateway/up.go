package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/api"
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
		src := app.sources(cmd)
		files := lookAtFiles(src)
		c, from, err := loadOrigins(src)
		if err != nil {
			return err
		}
		if err := c.preflight(from, true).asError(); err != nil {
			return err
		}
		log, control, err := app.controlledLogger(c)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(cmd.Context())
		defer stop()
		reloads := newReloader(src, files, c, log, control, stop)
		return (&upRun{app: app, c: c, log: log, output: control.out, reloads: reloads}).run(ctx)
	}
	return cmd
}

// upRun is one run of `up`.
type upRun struct {
	app     *app
	c       Config
	log     *zap.Logger
	output  io.Writer // of Envoy
	reloads *reloader

	folder runFolder
	envoy  envoyRun
}

func (u *upRun) run(ctx context.Context) (err error) {
	if u.envoy, err = prepareEnvoy(u.app, u.c, u.log, u.output); err != nil {
		return err
	}
	u.folder = u.envoy.folder
	upstream, err := u.c.envoyUpstream(u.folder)
	if err != nil {
		return err
	}
	if u.c.Upstream.URL == "" {
		demo, err := startDemo(ctx, u.folder.socket("demo.sock"), u.log)
		if err != nil {
			return err
		}
		defer demo.Close()
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
	options := u.c.envoyOptions(upstream)
	options.ExtProc, options.API = []envoy.Endpoint{o.GRPC}, []envoy.Endpoint{o.HTTP}
	configPath, _, err := u.envoy.render(ctx, options)
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
	base := "http://" + reachable(u.c.Listen)
	w := welcome{app: u.app, c: u.c, base: base, demo: u.c.Upstream.URL == "", log: u.log}
	go func() {
		if answers(envoyCtx, &http.Client{Timeout: probeWait}, base+"/health") {
			w.show(envoyCtx, g)
		}
	}()

	reloading := make(chan struct{})
	go func() {
		defer close(reloading)
		u.reloads.run(envoyCtx, g.reconfigure)
	}()

	envoyErr := u.envoy.supervise(envoyCtx, configPath, nil)
	stopEnvoy()
	<-reloading // it may be at the books, which are about to be closed
	stopGateway()
	gatewayErr := <-gatewayDone
	return errors.Join(envoyErr, gatewayErr, g.stop(ctx, time.Second))
}

func (u *upRun) endpoints() (gatewayOptions, error) {
	o := gatewayOptions{Env: u.app.env}
	var err error
	if o.GRPC, err = envoy.ParseEndpoint(u.folder.socket("extproc.sock")); err != nil {
		return o, err
	}
	if o.HTTP, err = envoy.ParseEndpoint(u.folder.socket("api.sock")); err != nil {
		return o, err
	}
	admin := envoy.Admin{Socket: u.folder.file(adminSocket)}
	o.Components = []api.Component{{Name: "envoy", Check: admin.Ready}}
	return o, nil
}
