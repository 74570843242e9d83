package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// receiver is an OTLP receiver: what it got is in spans.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	spans chan *tracepb.Span
}

func (r *receiver) Export(_ context.Context, q *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, resource := range q.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				r.spans <- span
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTraces_reachAReceiver(t *testing.T) {
	r := &receiver{spans: make(chan *tracepb.Span, 10)}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a listener of the test
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, r)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = r.Export(q.Context(), &request)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(web.Close)
	for protocol, endpoint := range map[string]string{"grpc": "http://" + l.Addr().String(), "http/protobuf": web.URL} {
		t.Run(protocol, func(t *testing.T) {
			// The exporters read the process' environment.
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			tr, err := openTracing(t.Context(), []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol}, zap.NewNop())
			if err != nil || tr == nil {
				t.Fatalf("%v, %v", tr, err)
			}
			_, span := tr.tracer().Start(t.Context(), "chat m")
			span.End()
			if err := tr.close(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-r.spans:
				if got.GetName() != "chat m" {
					t.Errorf("%v", got)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no span came")
			}
		})
	}
}

func TestTraces_areOffUntilAsked(t *testing.T) {
	for env, wrong := range map[string]string{
		"":                          "",
		"OTEL_TRACES_EXPORTER=none": "",
		"OTEL_SDK_DISABLED=true OTEL_EXPORTER_OTLP_ENDPOINT=http://x": "",
		"OTEL_TRACES_EXPORTER=jaeger":                                 "OTEL_TRACES_EXPORTER: write otlp or none",
		"OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_PROTOCOL=x":     "OTEL_EXPORTER_OTLP_PROTOCOL: write grpc or http/protobuf",
	} {
		tr, err := openTracing(t.Context(), strings.Fields(env), zap.NewNop())
		if tr != nil || (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%q: %v, %v, want %q", env, tr, err, wrong)
		}
	}
}
