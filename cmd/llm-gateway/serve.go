package main

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// newServeCommand is the sidecar alone, for an Envoy that somebody else runs.
func newServeCommand(app *app) *cobra.Command {
	var grpcAt, httpAt string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar alone, for an Envoy that somebody else runs",
		Long: "Run the sidecar alone: the ext_proc service that Envoy asks, and the HTTP\n" +
			"listener of the info routes that Envoy forwards to. Without a configured\n" +
			"path both are Unix sockets in DATA/run.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&grpcAt, "grpc", "", "where Envoy finds the ext_proc service: unix:///PATH or host:port (default unix://DATA/run/extproc.sock)")
	cmd.Flags().StringVar(&httpAt, "http", "", "where Envoy finds the info routes: unix:///PATH or host:port (default unix://DATA/run/api.sock)")
	cmd.Flags().String("upstream", "", "URL of the model server (LLM_SERVER_URL); only checked here, Envoy routes to it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := app.config(cmd)
		if err != nil {
			return err
		}
		run, err := newRunFolder(c.Data)
		if err != nil {
			return err
		}
		o := gatewayOptions{}
		if o.GRPC, err = endpointOr(grpcAt, run.socket("extproc.sock")); err != nil {
			return usageError(err)
		}
		if o.HTTP, err = endpointOr(httpAt, run.socket("api.sock")); err != nil {
			return usageError(err)
		}
		log, err := newLogger(app.stderr, c.Log.Level)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), c, o, log)
	}
	return cmd
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

// serve runs a gateway until ctx ends, then drains it.
func serve(ctx context.Context, c Config, o gatewayOptions, log *zap.Logger) error {
	floor := make([]byte, heapFloor)
	defer runtime.KeepAlive(floor)
	g, err := newGateway(ctx, c, o, log)
	if err != nil {
		return err
	}
	log.Info("gateway serves", zap.Stringer("grpc", o.GRPC), zap.Stringer("http", o.HTTP))
	failed := g.serve(ctx)
	log.Info("gateway stops")
	stopped := g.stop(ctx, max(c.Envoy.Drain, time.Second))
	if failed != nil {
		return failed
	}
	return stopped
}
