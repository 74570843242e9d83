//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// webOrigins are the pages that the tests of a list let in; a page that is not
// on it; and "" for a client that is no page.
var (
	listed   = []string{"https://app.example.com", "http://localhost:3000"}
	stranger = "https://app.example.com.evil.example"
)

// webAnswer is one answer of the gateway, whatever it is about.
type webAnswer struct {
	name   string
	in     rig.Request
	status int
	code   string // of the error, "" when it is none
}

// wantCORS checks the headers that browsers go by. allowed is what
// Access-Control-Allow-Origin must be, "" = not there.
func wantCORS(t *testing.T, name string, h http.Header, allowed string, credentials bool) {
	t.Helper()
	var want []string
	if allowed != "" {
		want = []string{allowed}
	}
	if got := h.Values("Access-Control-Allow-Origin"); !slices.Equal(got, want) {
		t.Errorf("%s: allowed origins %q, want %q", name, got, want)
	}
	if got := h.Get("Access-Control-Allow-Credentials"); allowed != "" && (got == "true") != credentials || got != "" && !credentials {
		t.Errorf("%s: credentials %q", name, got)
	}
	if allowed != "*" && !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
		t.Errorf("%s: Vary %q does not name Origin", name, h.Values("Vary"))
	}
	exposed := strings.Split(h.Get("Access-Control-Expose-Headers"), ", ")
	for _, header := range []string{
		"x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset",
		"x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
		"x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
		"retry-after", "retry-after-ms", "x-should-retry", "www-authenticate",
	} {
		if allowed != "" && !slices.Contains(exposed, header) {
			t.Errorf("%s: %s is not exposed (%q)", name, header, exposed)
		}
	}
}

// wantPreflight checks the answer to the question that a browser asks first.
func wantPreflight(t *testing.T, name string, r rig.Received, allowed string, credentials bool) {
	t.Helper()
	wantCORS(t, name, r.Header, allowed, credentials)
	if r.Status != 200 || len(r.Body) != 0 {
		t.Errorf("%s: %d %q %v", name, r.Status, r.Body, r.Err)
	}
	if allowed == "" {
		return
	}
	if got := r.Header.Get("Access-Control-Allow-Methods"); got != "GET, POST, OPTIONS" {
		t.Errorf("%s: methods %q", name, got)
	}
	if got := r.Header.Get("Access-Control-Max-Age"); got != "77" {
		t.Errorf("%s: max age %q", name, got)
	}
	headers := strings.Split(r.Header.Get("Access-Control-Allow-Headers"), ", ")
	for _, want := range []string{"authorization", "content-type", "x-stainless-lang", "x-stainless-retry-count", "openai-organization", "openai-project", "idempotency-key", "traceparent"} {
		if !slices.Contains(headers, want) {
			t.Errorf("%s: %s may not be sent (%q)", name, want, headers)
		}
	}
	if slices.Contains(headers, "*") != (allowed == "*") {
		t.Errorf("%s: allowed headers %q", name, headers)
	}
}

// preflight asks for a method of a path as a page of an origin.
func preflight(origin, method, path, key string) rig.Request {
	return rig.Request{Method: http.MethodOptions, Path: path, Key: key, Header: http.Header{
		"Origin":                         {origin},
		"Access-Control-Request-Method":  {method},
		"Access-Control-Request-Headers": {"authorization,content-type,x-stainless-lang"},
	}}
}

// preflights are the questions that must be answered alike.
func preflights(key string) map[string][3]string {
	return map[string][3]string{ // method, path, key
		"to a model":              {"POST", "/v1/chat/completions", ""},
		"to a model, with a key":  {"POST", "/v1/chat/completions", key},
		"to a model, bad key":     {"POST", "/v1/chat/completions", "sk-none"},
		"to the models":           {"GET", "/v1/models", ""},
		"to an info route":        {"GET", "/rate-limit", ""},
		"to health":               {"GET", "/health", ""},
		"to a page":               {"GET", "/docs", ""},
		"with an unknown method":  {"BREW", "/v1/chat/completions", ""},
		"with a foreign method":   {"DELETE", "/usage", ""},
		"to an unknown path":      {"GET", "/nothing", ""},
		"to an unknown model API": {"POST", "/v1/nothing", ""},
		"with a query":            {"GET", "/usage?from=2026-01-01", ""},
	}
}

// keysOf are what a gateway of these tests is asked with.
type webKeys struct{ good, full string }

// answers are one of each kind that the gateway, Envoy or the model server
// gives.
func answers(k webKeys) []webAnswer {
	chat := func(key string, s rig.Script) rig.Request {
		return rig.Request{Key: key, Body: rig.Chat{Model: "cors", MaxTokens: 5, Script: s}.Body()}
	}
	own := rig.Script{Prompt: 1, Completion: 1, Header: map[string]string{
		"Access-Control-Allow-Origin": "https://elsewhere.example", "Access-Control-Allow-Credentials": "true",
		"Access-Control-Expose-Headers": "x-secret", "Access-Control-Allow-Headers": "x-secret", "Access-Control-Max-Age": "1",
		"Vary": "Accept-Encoding",
	}}
	stream := rig.Chat{Model: "cors", MaxTokens: 5, Stream: true, Script: own}.Body()
	failing := own
	failing.Status = 400
	return []webAnswer{
		{"an answer", chat(k.good, own), 200, ""},
		{"a stream", rig.Request{Key: k.good, Body: stream}, 200, ""},
		{"the models", rig.Request{Method: "GET", Path: "/v1/models", Key: k.good}, 200, ""},
		{"the model server's error", chat(k.good, failing), 400, "rig_400"},
		{"health", rig.Request{Method: "GET", Path: "/health"}, 200, ""},
		{"an info route", rig.Request{Method: "GET", Path: "/rate-limit", Key: k.good}, 200, ""},
		{"an info route, no key", rig.Request{Method: "GET", Path: "/rate-limit"}, 401, "missing_api_key"},
		{"no key", chat("", own), 401, "missing_api_key"},
		{"a bad key", chat("sk-none", own), 403, "invalid_api_key"},
		{"no JSON", rig.Request{Key: k.good, Body: []byte("{")}, 400, "invalid_json"},
		{"an unknown path", rig.Request{Method: "GET", Path: "/nothing"}, 404, "not_found"},
		{"an unknown model API", rig.Request{Path: "/v1/nothing", Key: k.good, Body: []byte("{}")}, 404, "not_found"},
		{"a wrong method", rig.Request{Method: "GET", Path: "/v1/chat/completions", Key: k.good}, 405, "method_not_allowed"},
		{"a wrong method of an info route", rig.Request{Method: "POST", Path: "/health"}, 405, "method_not_allowed"},
		{"OPTIONS of no browser", rig.Request{Method: "OPTIONS", Path: "/v1/chat/completions"}, 405, "method_not_allowed"},
		{"OPTIONS of no browser, info route", rig.Request{Method: "OPTIONS", Path: "/health"}, 405, "method_not_allowed"},
		{"too large", rig.Request{Key: k.good, Body: make([]byte, 8<<10)}, 413, "request_too_large"},
		{"too often", chat(k.full, own), 429, "rate_limit_exceeded"},
		{"the model server breaks off", chat(k.good, rig.Script{End: rig.EndClose}), 502, "upstream_error"},
		{"the model server is silent", chat(k.good, rig.Script{FirstDelayMS: 60_000}), 504, "upstream_timeout"},
	}
}

// startCORS runs a gateway with limits that make the errors of [answers].
func startCORS(t *testing.T, env ...string) (*gateway, webKeys) {
	t.Helper()
	g := startApart(t, setup{env: append([]string{"LLM_TIMEOUT=2s", "MAX_REQUEST_BYTES=4096", "LLMGW_CORS__MAX_AGE=77"}, env...)})
	k := webKeys{good: g.key().Key}
	full, err := g.cli.CreateKey(plenty, "--rpm", "1")
	if err != nil {
		t.Fatal(err)
	}
	k.full = full.Key
	g.accepted(full)
	if r := g.client(false).Do(g.context(), rig.Request{Method: "GET", Path: "/v1/models", Key: k.full}); r.Status != 200 {
		t.Fatalf("the one request of a key: %d %q", r.Status, r.Body)
	}
	return g, k
}

// TestCORS goes through every kind of answer and every preflight as pages of
// all kinds of origins, with a list of origins, with any, and with none.
func TestCORS(t *testing.T) {
	t.Parallel() // each origin waits for a model server that is silent
	for _, mode := range []struct {
		name        string
		env         []string
		credentials bool
		allowed     map[string]string // origin of the page -> what is allowed; "" is no page
	}{
		{"any", nil, false, map[string]string{"": "*", "https://a.example": "*", "null": "*"}},
		{
			"list",
			[]string{"LLMGW_CORS__ORIGINS=" + strings.Join(listed, ", ")},
			false,
			map[string]string{"": "", listed[0]: listed[0], listed[1]: listed[1], stranger: "", "http://app.example.com": "", "https://app.example.com:8443": "", "null": ""},
		},
		{
			"list with credentials",
			[]string{"LLMGW_CORS__ORIGINS=" + listed[0], "LLMGW_CORS__CREDENTIALS=true"},
			true,
			map[string]string{"": "", listed[0]: listed[0], listed[1]: ""},
		},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			g, k := startCORS(t, mode.env...)
			for origin, allowed := range mode.allowed {
				client := g.client(origin == listed[1]) // one of them over HTTP/2
				for name, p := range preflights(k.good) {
					if origin != "" {
						r := client.Do(g.context(), preflight(origin, p[0], p[1], p[2]))
						wantPreflight(t, fmt.Sprintf("preflight %s from %s", name, origin), r, allowed, mode.credentials)
					}
				}
			}
			for origin, allowed := range mode.allowed {
				list := answers(k)
				parallel(len(list), 4, func(i int) {
					a, name := list[i], fmt.Sprintf("%s for %q", list[i].name, origin)
					a.in.Header = http.Header{}
					if origin != "" {
						a.in.Header.Set("Origin", origin)
					}
					r := g.client(false).Do(g.context(), a.in)
					wantCORS(t, name, r.Header, allowed, mode.credentials)
					if r.Status != a.status {
						t.Errorf("%s: %d %q %v, want %d", name, r.Status, r.Body, r.Err, a.status)
					}
					if p, ok := r.Problem(); ok != (a.code != "") || p.Error.Code != a.code {
						t.Errorf("%s: %q, want the code %q", name, r.Body, a.code)
					}
					if vary := strings.Join(r.Header.Values("Vary"), ","); a.status == 200 && len(a.in.Body) > 0 && !strings.Contains(vary, "Accept-Encoding") {
						t.Errorf("%s: the model server's Vary is lost: %q", name, vary)
					}
					if a.status == 405 && r.Header.Get("Allow") == "" {
						t.Errorf("%s: no Allow", name)
					}
				})
			}
			g.balanced()

			// The gate is gone: preflights are answered as before, and pages can
			// read that it is.
			g.proc.Kill()
			before := g.up.Hits()
			for origin, allowed := range mode.allowed {
				client := g.client(false)
				for _, path := range []string{"/v1/chat/completions", "/rate-limit"} {
					in := rig.Request{Path: path, Key: k.good, Header: http.Header{}, Body: rig.Chat{Model: "cors"}.Body()}
					if path == "/rate-limit" {
						in.Method, in.Body = "GET", nil
					}
					if origin != "" {
						in.Header.Set("Origin", origin)
						wantPreflight(t, "preflight of "+path+" without a gate from "+origin, client.Do(g.context(), preflight(origin, "POST", path, "")), allowed, mode.credentials)
					}
					r := client.Do(g.context(), in)
					wantCORS(t, path+" without a gate for "+origin, r.Header, allowed, mode.credentials)
					wantProblem(t, path+" without a gate", r, 503, "gateway_unavailable")
				}
			}
			if n := g.up.Hits() - before; n != 0 {
				t.Errorf("%d requests reached the model server", n)
			}
		})
	}
}

// TestCORS_preflightsAreFree asks with a key that has two requests: neither the
// sidecar, nor the model server, nor the books, nor the limits notice.
func TestCORS_preflightsAreFree(t *testing.T) {
	g := startApart(t, setup{})
	k, err := g.cli.CreateKey(plenty, "--rpm", "2")
	if err != nil {
		t.Fatal(err)
	}
	g.accepted(k)
	client := g.client(false)
	ask := func() rig.Received {
		return client.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "paid", MaxTokens: 5, Script: rig.Script{Prompt: 2, Completion: 3}}.Body(), Header: http.Header{"Origin": {"https://a.example"}}})
	}
	if r := ask(); r.Status != 200 || r.Header.Get("X-Ratelimit-Remaining-Requests") != "1" {
		t.Fatalf("first request: %d %v", r.Status, r.Header)
	}
	admin := envoy.Admin{Socket: filepath.Join(g.dir, "admin.sock")}
	streams := func() int64 {
		n, err := admin.Stat(g.context(), "http.llm.ext_proc.llmgw.streams_started")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	asked, hits := streams(), g.up.Hits()
	for name, p := range preflights(k.Key) {
		if r := client.Do(g.context(), preflight("https://a.example", p[0], p[1], p[2])); r.Status != 200 || r.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("preflight %s: %d %v", name, r.Status, r.Header)
		}
	}
	if n := streams() - asked; n != 0 {
		t.Errorf("the sidecar was asked %d times", n)
	}
	if n := g.up.Hits() - hits; n != 0 {
		t.Errorf("%d preflights reached the model server", n)
	}
	if r := ask(); r.Status != 200 || r.Header.Get("X-Ratelimit-Remaining-Requests") != "0" {
		t.Errorf("second request: %d %v", r.Status, r.Header)
	}
	if r := ask(); r.Status != 429 {
		t.Errorf("third request: %d", r.Status)
	}
	if streams() == asked {
		t.Error("the counter of the sidecar's streams stands still: nothing is proved")
	}
	if report := g.balanced(); report.Charges != 2 {
		t.Errorf("%d charges, want 2", report.Charges)
	}
	if row := g.books()["paid"]; row.Total != 10 {
		t.Errorf("%d tokens in the books, want 10", row.Total)
	}
}

// TestCORS_malformed: of what Envoy cannot read as a request it does not know
// the origin. Only where everybody may read an answer can it say so.
func TestCORS_malformed(t *testing.T) {
	for _, origins := range []string{"*", listed[0]} {
		g := start(t, setup{env: []string{"LLMGW_CORS__ORIGINS=" + origins}})
		for name, c := range map[string]struct {
			head  string
			known bool // the origin, to Envoy
		}{
			"400 path":       {"GET /a%2fb HTTP/1.1", true},
			"400 underscore": {"GET /health HTTP/1.1\r\nx_y: 1", false},
			"431 header":     {"GET /health HTTP/1.1\r\nx-big: " + strings.Repeat("x", 70<<10), false},
			"426 version":    {"GET /health HTTP/1.0", false},
		} {
			w, err := rig.SendH1(g.addr, []byte(c.head+"\r\nHost: h\r\nOrigin: "+listed[0]+"\r\n\r\n"), 10*time.Second)
			if err != nil || fmt.Sprint(w.Status) != name[:3] {
				t.Errorf("%s: %d %v", name, w.Status, err)
			}
			allowed := origins
			if origins != "*" && !c.known {
				allowed = ""
			}
			wantCORS(t, name+" with "+origins, w.Header, allowed, false)
		}
	}
}

// TestCORS_gateFailsAtTheAnswer: Envoy's own words in place of an answer that
// had begun pass none of its filters.
func TestCORS_gateFailsAtTheAnswer(t *testing.T) {
	for _, origins := range []string{"*", listed[0]} {
		g := prepare(t, setup{env: []string{"LLMGW_CORS__ORIGINS=" + origins}})
		url := g.behind(t, g.renderedConfig(), "bad", &rig.BadSidecar{At: rig.ResponseHeaders, Do: rig.Fail})
		client := rig.NewClient(url, false)
		defer client.Close()
		for _, origin := range []string{listed[0], stranger} {
			r := client.Do(g.context(), rig.Request{Body: rig.Chat{Model: "m"}.Body(), Header: http.Header{"Origin": {origin}}})
			if r.Status != 503 {
				t.Errorf("%d %q %v", r.Status, r.Body, r.Err)
			}
			want := map[bool]string{true: origins}[origins == "*" || origins == origin]
			if got := r.Header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s with %s: allowed %q, want %q", origin, origins, got, want)
			}
		}
	}
}

// TestCORS_none: nothing is said to any page, also not by the model server.
func TestCORS_none(t *testing.T) {
	g, k := startCORS(t, "LLMGW_CORS__ORIGINS=none")
	check := func(name string, r rig.Received, status int) {
		t.Helper()
		if r.Status != status {
			t.Errorf("%s: %d %q %v, want %d", name, r.Status, r.Body, r.Err, status)
		}
		for header := range r.Header {
			if strings.HasPrefix(header, "Access-Control-") {
				t.Errorf("%s: %s: %q", name, header, r.Header[header])
			}
		}
	}
	client := g.client(false)
	for _, a := range answers(k)[:11] {
		a.in.Header = http.Header{"Origin": {listed[0]}}
		check(a.name, client.Do(g.context(), a.in), a.status)
	}
	check("preflight", client.Do(g.context(), preflight(listed[0], "POST", "/v1/chat/completions", k.good)), 405)
	check("preflight of an info route", client.Do(g.context(), preflight(listed[0], "GET", "/health", "")), 405)
	check("preflight of an unknown path", client.Do(g.context(), preflight(listed[0], "GET", "/nothing", "")), 404)
	g.balanced()
}
