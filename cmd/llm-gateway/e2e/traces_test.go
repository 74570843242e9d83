//go:build e2e

package e2e

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// A client's trace goes on in the gateway's span and reaches the upstream
// unchanged; no content is in it.
func TestTracesGoThrough(t *testing.T) {
	spans := make(chan *tracepb.Span, 100)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var q collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &q)
		}
		if err != nil {
			t.Error(err)
		}
		for _, resource := range q.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					spans <- span
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(receiver.Close)
	g := start(t, setup{env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_BSP_SCHEDULE_DELAY=100"}})
	k := g.key()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r := g.client(false).Do(g.context(), rig.Request{Key: k.Key, Header: http.Header{"Traceparent": {parent}}, Body: rig.Chat{
		Model: "m-1", Stream: true, Text: "canary-prompt", Script: rig.Script{ID: "traced", Prompt: 11, Completion: 7},
	}.Body()})
	if r.Status != 200 {
		t.Fatal(r.Status)
	}
	if got := g.up.ByID("traced")[0].Header.Get("Traceparent"); got != parent {
		t.Errorf("the upstream got %q", got)
	}
	for end := time.After(30 * time.Second); ; {
		select {
		case <-end:
			t.Fatal("the span did not come")
		case s := <-spans:
			if hex.EncodeToString(s.GetTraceId()) != "0af7651916cd43dd8448eb211c80319c" {
				continue
			}
			if s.GetName() != "chat m-1" || hex.EncodeToString(s.GetParentSpanId()) != "b7ad6b7169203331" {
				t.Errorf("%v", s)
			}
			got := map[string]string{}
			for _, a := range s.GetAttributes() {
				got[a.GetKey()] = a.GetValue().String()
			}
			if got["gen_ai.usage.input_tokens"] != "int_value:11" || got["llmgw.key_id"] != `string_value:"`+k.ID+`"` {
				t.Errorf("%v", got)
			}
			if strings.Contains(s.String(), "canary-prompt") || strings.Contains(s.String(), k.Key) {
				t.Errorf("content or a key is in the span: %v", s)
			}
			return
		}
	}
}
