//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// entries are the log's lines; a line that is not one JSON object fails.
func (g *gateway) entries() []map[string]any {
	g.t.Helper()
	var list []map[string]any
	for line := range strings.SplitSeq(strings.TrimSuffix(g.proc.Stderr(), "\n"), "\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			g.t.Fatalf("a line of the log is no JSON object: %.300q", line)
		}
		list = append(list, e)
	}
	return list
}

// access waits for the gateway's line, and Envoy's, of a request.
func (g *gateway) access(requestID string) (own, envoy map[string]any) {
	g.t.Helper()
	g.eventually("both lines of "+requestID, func() bool {
		own, envoy = nil, nil
		for _, e := range g.entries() {
			switch {
			case e["request_id"] != requestID:
			case e["msg"] == "request":
				own = e
			case e["details"] != nil:
				envoy = e
			}
		}
		return own != nil && envoy != nil
	})
	return own, envoy
}

// Both logs tell of each request who asked, for what, and what it cost.
func TestAccessLines(t *testing.T) {
	t.Parallel() // Envoy writes its lines every 10 s
	g := start(t, setup{env: []string{"RATE_LIMIT_REQUESTS=2", "RATE_LIMIT_WINDOW=60s"}})
	k, err := g.cli.CreateKey(plenty)
	if err != nil {
		t.Fatal(err)
	}
	c := g.client(false)
	ask := func(stream bool) rig.Received {
		return c.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m-1", Stream: stream, Script: rig.Script{Prompt: 11, Completion: 7}}.Body()})
	}
	var first rig.Received
	g.eventually("the key to be known", func() bool { first = ask(false); return first.Status == 200 })
	second, third := ask(true), ask(false)
	if second.Status != 200 || third.Status != 429 {
		t.Fatalf("%d %d", second.Status, third.Status)
	}
	unauthorized := c.Do(g.context(), rig.Request{Body: []byte("{}")})
	for _, want := range []struct {
		r              rig.Received
		level, ending  string
		status, tokens float64
		code           any
	}{
		{first, "info", "served", 200, 18, nil},
		{second, "info", "served", 200, 18, nil},
		{third, "warn", "refused", 429, 0, "rate_limit_exceeded"},
		{unauthorized, "warn", "refused", 401, 0, "missing_api_key"},
	} {
		own, envoy := g.access(want.r.Header.Get("X-Request-Id"))
		if own["level"] != want.level || own["ending"] != want.ending || own["status"] != want.status || own["total_tokens"] != want.tokens || own["code"] != want.code {
			t.Errorf("%d: %v", want.r.Status, own)
		}
		if envoy["status"] != want.status {
			t.Errorf("Envoy's line: %v", envoy)
		}
		if want.status == 401 {
			continue
		}
		if own["key_id"] != k.ID || own["model"] != "m-1" || envoy["key_id"] != k.ID || envoy["model"] != "m-1" {
			t.Errorf("who and what: %v, %v", own, envoy)
		}
		if want.status == 200 && (envoy["total_tokens"] != want.tokens || envoy["provenance"] != "reported" || own["duration_ms"].(float64) <= 0) {
			t.Errorf("what it cost: %v, %v", own, envoy)
		}
		if want.status == 429 && envoy["details"] != "llmgw_rate_limit_exceeded" {
			t.Errorf("Envoy's word of the refusal: %v", envoy)
		}
	}
}

// Whatever clients write, each line of the log is one JSON object, and nothing
// secret is in the log, the metrics or the data directory.
func TestNothingBreaksALineAndNothingSecretIsWritten(t *testing.T) {
	t.Parallel() // Envoy writes its lines every 10 s
	const canary = "sk-canary-0123456789abcdefghijkl"
	metrics, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, setup{env: []string{
		"LOG_LEVEL=debug", "LLMGW_METRICS__LISTEN=" + metrics, "LLM_API_KEY=canary-upstream-credential", "ALLOWED_API_KEYS=sk-canary-listed",
	}})
	k := g.key()
	c := g.client(false)
	payloads := []string{
		"a\nb", "a\r\nb", "\x1b[31mred", "\u2028\u2029", `"},{"msg":"forged"`, "\x00", strings.Repeat("long", 500), "{{.}}%s%d", "\u202e",
	}
	send := func(headers http.Header, path, key, model, text string) {
		t.Helper()
		body := rig.Chat{Model: model, Text: text, Script: rig.Script{Prompt: 3, Completion: 4}}.Body()
		r := c.Do(g.context(), rig.Request{Path: path, Key: key, Body: body, Header: headers})
		if r.Status == 0 && r.Err != nil && !strings.Contains(r.Err.Error(), "invalid") {
			t.Errorf("no answer: %v", r.Err)
		}
	}
	for _, p := range payloads {
		send(nil, "", k.Key, "model "+p, "canary-prompt "+p)
		send(nil, "/v1/"+strings.NewReplacer("\n", "%0A", "\r", "%0D", "\x1b", "%1B", "\x00", "%00", "\"", "%22", "{", "%7B", "}", "%7D", "%s%d", "%25s").Replace(p)+"?key="+canary, k.Key, "m", "x")
		header := strings.NewReplacer("\n", " ", "\r", " ", "\x00", " ", "\x1b", " ").Replace(p)
		send(http.Header{"X-Request-Id": {header}, "User-Agent": {header}, "Traceparent": {header}, "X-Llmgw-Key": {canary}}, "", k.Key, "m", "x")
	}
	for _, key := range []string{canary, canary + ", Bearer " + canary, "sk-canary-listed"} {
		send(nil, "", key, "m", "canary-prompt")
	}
	send(nil, "/v1/"+canary, "", "m", "x")
	send(nil, "", k.Key, canary, "x") // a client that takes its key for the model
	// By hand: bytes that no library sends.
	for _, raw := range []string{
		"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + canary + "\xff\xfe\r\n\r\n",
		"GET /v1/\xff\xfe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + k.Key + "\r\n\r\n",
		"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xc3\x28\"\\\r\nAuthorization: Bearer " + k.Key + "\r\n\r\n",
	} {
		if _, err := rig.SendH1(g.addr, []byte(raw), 10*time.Second); err != nil {
			t.Logf("%.40q: %v", raw, err) // Envoy may hang up on it
		}
	}
	stream := c.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", Stream: true, Text: "canary-prompt", Script: rig.Script{Prompt: 3, Completion: 4}}.Body()})
	g.access(stream.Header.Get("X-Request-Id"))
	scraped := scrape(t, metrics)
	if code, err := g.proc.Stop(30 * time.Second); err != nil || code != 0 {
		t.Fatalf("exit %d, %v", code, err)
	}
	if n := len(g.entries()); n < 40 {
		t.Errorf("%d lines only", n)
	}
	places := map[string]string{"log": g.proc.Stderr(), "metrics": scraped}
	err = filepath.WalkDir(g.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		places[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, text := range places {
		for _, secret := range []string{"canary-prompt", "canary-upstream-credential", "sk-canary-listed", k.Key} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %s", secret, place)
			}
		}
		// What a client gave as a model is kept in the books as the model.
		if strings.Contains(text, canary) && !strings.Contains(place, "billing.db") {
			at := strings.Index(text, canary)
			t.Errorf("a credential is in %s: %.200q", place, text[max(0, at-120):])
		}
	}
}

// scrape reads a metrics listener.
func scrape(t *testing.T, addr string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v", res.StatusCode, err)
	}
	return string(text)
}

// The metrics of a gateway under known traffic.
func TestMetricsOfKnownTraffic(t *testing.T) {
	metrics, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	g := start(t, setup{env: []string{"LLMGW_METRICS__LISTEN=" + metrics, "LLMGW_METRICS__MODELS=m-1"}})
	k := g.key()
	c := g.client(false)
	for i := range 6 {
		r := c.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: fmt.Sprintf("m-%d", i%3), Stream: i%2 == 0, Script: rig.Script{Prompt: 11, Completion: 7}}.Body()})
		if r.Status != 200 {
			t.Fatal(r.Status)
		}
	}
	c.Do(g.context(), rig.Request{Body: []byte("{}")})
	var text string
	g.eventually("all to be counted", func() bool {
		text = scrape(t, metrics)
		return containsAll(text,
			`llmgw_requests_total{ending="served",endpoint="chat.completions",status="200"} 6`,
			`llmgw_refusals_total{code="missing_api_key",limit=""} `,
			`llmgw_tokens_total{provenance="reported",type="input"} 66`,
			`llmgw_tokens_total{provenance="reported",type="output"} 42`,
			`gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai_compatible",gen_ai_request_model="m-1",gen_ai_token_type="input"} 2`,
			`gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai_compatible",gen_ai_request_model="other",gen_ai_token_type="input"} 4`,
			`llmgw_time_to_first_token_seconds_count{endpoint="chat.completions"} 3`,
			`llmgw_books_open_holds 0`, `llmgw_ratelimit_fallback 0`, "llmgw_requests_running 0",
		)
	})
	if strings.Contains(text, k.ID) || strings.Contains(text, "m-2") {
		t.Error("a key or a client's model is a label")
	}
}
