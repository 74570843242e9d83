package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// tracing sends spans to an OTLP receiver, from a bounded queue: what does not
// fit is dropped, and no request waits.
type tracing struct{ provider *sdktrace.TracerProvider }

// traceFlush bounds how long a stop waits for the last spans.
const traceFlush = 3 * time.Second

// openTracing reads OpenTelemetry's own variables (OTEL_*), those of the
// exporters and of the sampler among them. Nothing is sent unless an OTLP
// endpoint or OTEL_TRACES_EXPORTER=otlp is set.
func openTracing(ctx context.Context, env []string, log *zap.Logger) (*tracing, error) {
	a := &app{env: env}
	on, err := tracingWanted(a.getenv)
	if err != nil || !on {
		return nil, err
	}
	exporter, err := traceExporter(ctx, a.getenv)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	described := resource.Default()
	if a.getenv("OTEL_SERVICE_NAME") == "" {
		described, err = resource.Merge(described, resource.NewSchemaless(
			attribute.String("service.name", "llm-gateway"), attribute.String("service.version", buildVersion())))
		if err != nil {
			return nil, fmt.Errorf("traces: %w", err)
		}
	}
	otel.SetErrorHandler(traceErrors(log))
	return &tracing{provider: sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(described))}, nil
}

func tracingWanted(getenv func(string) string) (bool, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return false, nil
	case "otlp":
		return true, nil
	case "":
		return getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "", nil
	}
	return false, errors.New("OTEL_TRACES_EXPORTER: write otlp or none")
}

func traceExporter(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	protocol := getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	switch protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "", "http/protobuf":
		return otlptracehttp.New(ctx)
	}
	return nil, errors.New("OTEL_EXPORTER_OTLP_PROTOCOL: write grpc or http/protobuf")
}

// traceErrors keeps a receiver that is away from filling the log.
func traceErrors(log *zap.Logger) otel.ErrorHandlerFunc {
	var mu sync.Mutex
	var last time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) > time.Minute {
			last = now
			log.Warn("traces are not delivered", zap.Error(err))
		}
	}
}

func (t *tracing) tracer() trace.Tracer {
	return t.provider.Tracer("github.com/MaksimVF/llm-gateway/extproc", trace.WithInstrumentationVersion(buildVersion()))
}

func (t *tracing) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, traceFlush)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // what could not be delivered was said already; it is no reason to fail
	return nil
}
