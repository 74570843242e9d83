package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// sidecarFlags say where the sidecars of an Envoy are.
type sidecarFlags struct{ grpcAt, httpAt, demoAt string }

func (f *sidecarFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.grpcAt, "grpc", "", "where `serve` offers the ext_proc service: unix:///PATH or host:port, several separated by commas (default unix://DATA/run/extproc.sock)")
	flags.StringVar(&f.httpAt, "http", "", "where `serve` offers the info routes, in the same form (default unix://DATA/run/api.sock)")
	flags.StringVar(&f.demoAt, "demo", "", "where `serve` offers the demo model, which is used while no upstream is configured")
	flags.String("listen", "", "address of the listener (default 0.0.0.0:12000)")
	flags.String("upstream", "", "URL of the model server: host, base path or full endpoint URL (LLM_SERVER_URL)")
}

// options is what flags and configuration say about Envoy; its admin interface
// has to be added.
func (f *sidecarFlags) options(c Config) (o envoy.Options, err error) {
	folder, err := runFolderOf(c.Data)
	if err != nil {
		return o, err
	}
	upstream, err := f.upstream(c, folder)
	if err != nil {
		return o, err
	}
	return f.around(c, upstream)
}

// around is options for a model server that has been found.
func (f *sidecarFlags) around(c Config, upstream envoy.Upstream) (o envoy.Options, err error) {
	folder, err := runFolderOf(c.Data)
	if err != nil {
		return o, err
	}
	o = c.envoyOptions(upstream)
	if o.ExtProc, err = endpointsOr(f.grpcAt, folder.socket("extproc.sock")); err != nil {
		return o, usageError(fmt.Errorf("--grpc: %w", err))
	}
	if o.API, err = endpointsOr(f.httpAt, folder.socket("api.sock")); err != nil {
		return o, usageError(fmt.Errorf("--http: %w", err))
	}
	return o, nil
}

func (f *sidecarFlags) upstream(c Config, folder runFolder) (envoy.Upstream, error) {
	switch {
	case c.Upstream.URL != "":
		return c.envoyUpstream(folder)
	case f.demoAt == "":
		return envoy.Upstream{}, usagef("there is no model server: name one with --upstream or LLM_SERVER_URL, or with --demo the address that serve --demo has")
	}
	upstream, err := demoUpstream(f.demoAt)
	if err != nil {
		return upstream, usageError(fmt.Errorf("--demo: %w", err))
	}
	return upstream, nil
}

func endpointsOr(given, fallback string) ([]envoy.Endpoint, error) {
	if given == "" {
		given = fallback
	}
	return envoy.ParseEndpoints(given)
}

// newEnvoyCommand is Envoy alone, for sidecars that run elsewhere.
func newEnvoyCommand(app *app) *cobra.Command {
	var sidecars sidecarFlags
	cmd := &cobra.Command{
		Use:   "envoy",
		Short: "Run Envoy alone, for sidecars that run elsewhere",
		Long: "Run Envoy alone in the foreground, with a configuration of this version, for\n" +
			"sidecars that `llm-gateway serve` runs elsewhere. Several addresses, and a name\n" +
			"that has several, are replicas: requests are spread over the healthy ones.\n" +
			"An Envoy that dies is started again. Ctrl-C or SIGTERM drains and stops it.\n\n" +
			"SIGHUP replaces Envoy while it serves, and so does a change of the YAML file,\n" +
			"of .env or of Envoy's program: the configuration is read and checked, and a new\n" +
			"Envoy takes over the listening sockets by Envoy's hot restart. No connection is\n" +
			"refused; running answers end in the former Envoy, within LLMGW_ENVOY__DRAIN.\n" +
			"What is wrong is logged and changes nothing.",
	}
	sidecars.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		hangups := newHangups()
		src := app.sources(cmd)
		files := lookAtFiles(src)
		c, from, err := loadOrigins(src)
		if err != nil {
			return err
		}
		if err := c.certificates(from, true).asError(); err != nil {
			return err
		}
		o, err := sidecars.options(c)
		if err != nil {
			return err
		}
		log, control, err := app.controlledLogger(c)
		if err != nil {
			return err
		}
		run, err := prepareEnvoy(app, c, log, control.out)
		if err != nil {
			return err
		}
		path, config, err := run.render(cmd.Context(), o)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(cmd.Context())
		defer stop()
		revisions := make(chan envoy.Revision)
		go newEnvoyReloader(app, src, files, hangups, &sidecars, run, config, stop).watch(ctx, revisions)
		return run.supervise(ctx, path, revisions)
	}
	return cmd
}
