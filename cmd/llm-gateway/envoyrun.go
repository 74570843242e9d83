package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// adminSocket is the name of the admin interface's socket in the run folder.
const adminSocket = "envoy-admin.sock"

// envoyRun is an Envoy that we run: which one, where its files are.
type envoyRun struct {
	c      Config
	log    *zap.Logger
	folder runFolder
	binary envoy.Binary
	output io.Writer // of Envoy itself
}

// prepareEnvoy finds an Envoy and makes its folder ours. An Envoy that outlived
// its supervisor would hold the port, so it is ended.
func prepareEnvoy(app *app, c Config, log *zap.Logger, output io.Writer) (r envoyRun, err error) {
	r = envoyRun{c: c, log: log, output: output}
	if r.binary, err = findEnvoy(app, c); err != nil {
		return r, err
	}
	if r.folder, err = newRunFolder(c.Data); err != nil {
		return r, err
	}
	return r, envoy.EndStale(r.folder.path, log)
}

// render writes Envoy's configuration and has Envoy itself check it.
func (r envoyRun) render(ctx context.Context, o envoy.Options) (path string, config []byte, err error) {
	if config, err = r.bootstrap(o); err != nil {
		return "", nil, err
	}
	path = r.folder.file("envoy.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return "", nil, fmt.Errorf("write Envoy's configuration: %w", err)
	}
	return path, config, envoy.Validate(ctx, r.binary.Path, config)
}

func (r envoyRun) bootstrap(o envoy.Options) ([]byte, error) {
	o.AdminSocket = r.folder.file(adminSocket)
	return renderBootstrap(o)
}

// supervise runs Envoy until ctx ends, and then drains it. It is replaced by
// what comes from revisions, nil for nothing.
func (r envoyRun) supervise(ctx context.Context, configPath string, revisions <-chan envoy.Revision) error {
	return envoy.Supervise(ctx, envoy.RunOptions{
		Binary: r.binary.Path, ConfigPath: configPath, RunDir: r.folder.path,
		Stdout: r.output, Stderr: r.output, // stdout is for people
		AdminSocket: r.folder.file(adminSocket), DrainTime: r.c.Envoy.Drain, Log: r.log,
		Revisions: revisions,
	})
}

// envoyOptions is what the configuration says about Envoy. Where the sidecars
// are and where Envoy's admin interface is has to be added.
func (c Config) envoyOptions(upstream envoy.Upstream) envoy.Options {
	return envoy.Options{
		Listen:          c.Listen,
		Upstream:        upstream,
		MaxRequestBytes: uint32(c.Request.MaxBytes), //nolint:gosec // bounded to 256 MiB by the configuration
		UpstreamTimeout: c.Upstream.Timeout,
		CORS:            c.cors(),
	}
}

// renderEnvoy is the Envoy side of a gateway whose sockets are in folder.
func renderEnvoy(c Config, o gatewayOptions, upstream envoy.Upstream, folder runFolder) ([]byte, error) {
	options := c.envoyOptions(upstream)
	options.ExtProc, options.API = []envoy.Endpoint{o.GRPC}, []envoy.Endpoint{o.HTTP}
	options.AdminSocket = folder.file(adminSocket)
	return renderBootstrap(options)
}

func renderBootstrap(o envoy.Options) ([]byte, error) {
	bootstrap, err := envoy.Bootstrap(o)
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
