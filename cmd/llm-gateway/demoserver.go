package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/cmd/llm-gateway/demo"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// startDemo serves the built-in demo model at unix:///PATH or host:port until
// the server is closed.
func startDemo(ctx context.Context, at string, log *zap.Logger) (*http.Server, error) {
	endpoint, err := envoy.ParseEndpoint(at)
	if err != nil {
		return nil, err
	}
	l, err := listen(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: demo.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("demo model stopped", zap.Error(err))
		}
	}()
	return server, nil
}

// demoUpstream is the demo model as Envoy's configuration wants it.
func demoUpstream(at string) (envoy.Upstream, error) {
	endpoint, err := envoy.ParseEndpoint(at)
	if err != nil {
		return envoy.Upstream{}, err
	}
	if socket, ok := endpoint.Socket(); ok {
		return envoy.Upstream{Host: "demo", BasePath: "/v1", SocketPath: socket}, nil
	}
	// Each gateway behind a name has a demo model.
	up, err := envoy.ParseUpstream("http://" + endpoint.Address())
	up.Replicas = true
	return up, err
}
