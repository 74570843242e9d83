package extproc

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

func TestASpanTellsOfAnExchange(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	r := newRig(t, func(o *Options) { o.Tracer, o.Provider = provider.Tracer("test"), "openai" })
	c := r.begin()
	c.say(post("/v1/chat/completions", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	c.say(requestBodyMsg(streamBody))
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream"))
	for _, piece := range []string{delta, finish, usageChunk, done} {
		c.say(responseBodyMsg(piece, false))
	}
	c.say(responseBodyMsg("", true))
	c.end()
	c = r.begin()
	c.say(requestHeadersMsg(false, ":method", "POST", ":path", "/v1/chat/completions", "traceparent", "garbage"))
	c.end()

	ended := spans.Ended()
	if len(ended) != 2 {
		t.Fatalf("%d spans", len(ended))
	}
	s := ended[0]
	if s.Name() != "chat m" || s.SpanKind() != trace.SpanKindClient ||
		s.SpanContext().TraceID().String() != "0af7651916cd43dd8448eb211c80319c" || s.Parent().SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("%s %v %v %v", s.Name(), s.SpanKind(), s.SpanContext(), s.Parent())
	}
	got := map[string]any{}
	for _, a := range s.Attributes() {
		got[string(a.Key)] = a.Value.AsInterface()
	}
	want := map[string]any{
		"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m", "gen_ai.request.stream": true,
		"gen_ai.request.max_tokens": int64(5), "gen_ai.usage.input_tokens": int64(3), "gen_ai.usage.output_tokens": int64(4),
		"http.response.status_code": int64(200), "llmgw.key_id": "key_1", "llmgw.request_id": "req-1", "llmgw.provenance": "reported", "llmgw.ending": "served",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := ended[1]; s.Parent().IsValid() || s.Status().Description != "missing_api_key" {
		t.Errorf("%v %v", s.Parent(), s.Status())
	}
}
