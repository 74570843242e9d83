package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/MaksimVF/llm-gateway/envoy"
	"github.com/MaksimVF/llm-gateway/extproc"
)

// gatewayOfItsOwn is a configuration and the sockets of a gateway in a folder
// of its own.
func gatewayOfItsOwn(t *testing.T) (c Config, o gatewayOptions) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gw") // short: socket paths have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c = Default()
	c.Data = filepath.Join(dir, "data")
	for name, at := range map[string]*envoy.Endpoint{"grpc": &o.GRPC, "http": &o.HTTP} {
		if *at, err = envoy.ParseEndpoint("unix://" + filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return c, o
}

// The ext_proc port tells its health by gRPC, of the whole and of the service,
// and takes it back before anything else is stopped.
func TestGateway_tellsItsHealthByGRPC(t *testing.T) {
	c, o := gatewayOfItsOwn(t)
	g, err := newGateway(t.Context(), c, o, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.serve(ctx) }()
	watching, endWatching := context.WithCancel(t.Context())
	defer endWatching()
	watches := map[string]healthpb.Health_WatchClient{}
	told := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for name, watch := range watches {
			if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
				t.Errorf("%q: %v, %v, want %s", name, got, err, want)
			}
		}
	}
	for _, name := range []string{"", extproc.ServiceName} {
		if watches[name], err = healthpb.NewHealthClient(g.probe).Watch(watching, &healthpb.HealthCheckRequest{Service: name}); err != nil {
			t.Fatal(err)
		}
	}
	told(healthpb.HealthCheckResponse_SERVING)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- g.stop(context.WithoutCancel(t.Context()), time.Minute) }()
	told(healthpb.HealthCheckResponse_NOT_SERVING)
	endWatching()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
