package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func problem(code string) string {
	return fmt.Sprintf(`{"error":{"message":"No.","type":"t","param":null,"code":%q},"detail":"No."}`, code)
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		a      answered
		ok     bool
		detail string
	}{
		{"no key", answered{status: 401, body: []byte(problem("missing_api_key"))}, true, "401 missing_api_key"},
		{"unknown key", answered{status: 403, body: []byte(problem("invalid_api_key"))}, true, "403 invalid_api_key"},
		{"Envoy refuses", answered{status: 503, body: []byte(problem("gateway_unavailable"))}, true, "gateway itself does not work"},
		{"an upgrade", answered{status: 403, body: []byte(problem("bad_request"))}, true, "403 bad_request"},
		{"an answer", answered{status: 200, body: []byte("{}")}, false, "let through"},
		{"an answer that looks like a refusal", answered{status: 200, body: []byte(problem("missing_api_key"))}, false, "let through"},
		{"an upgrade", answered{status: 101}, false, "let through"},
		{"elsewhere", answered{status: 301, header: http.Header{"Location": {"https://x/\x1b"}}}, false, "on to https://x/\uFFFD"},
		{"the model server is away", answered{status: 502, body: []byte(problem("upstream_error"))}, false, "let through"},
		{"the model server is silent", answered{status: 504, body: []byte(problem("upstream_timeout"))}, false, "let through"},
		{
			"OpenAI's own refusal",
			answered{status: 401, body: []byte(`{"error":{"message":"Incorrect API key provided","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`)},
			false, "past the gateway",
		},
		{"FastAPI's own refusal", answered{status: 401, body: []byte(`{"detail":"No."}`)}, false, "past the gateway"},
		{"an unknown code", answered{status: 401, body: []byte(problem("go_away"))}, false, "past the gateway"},
		{"a page", answered{status: 404, body: []byte("<html>")}, false, "past the gateway"},
	} {
		if detail, ok := refused(c.a); ok != c.ok || !strings.Contains(detail, c.detail) {
			t.Errorf("%s: %v %q, want %v %q", c.name, ok, detail, c.ok, c.detail)
		}
	}
}

func TestMetered(t *testing.T) {
	limits := http.Header{"X-Ratelimit-Limit": {"30"}}
	for _, c := range []struct {
		name string
		a    answered
		ok   bool
	}{
		{"models", answered{200, limits, []byte("{}")}, true},
		{"a model server without models", answered{404, limits, []byte("not here")}, true},
		{"past the gateway", answered{status: 200, body: []byte("{}")}, false},
		{"refused", answered{403, limits, []byte(problem("invalid_api_key"))}, false},
		{"the model server is away", answered{502, limits, []byte(problem("upstream_error"))}, false},
	} {
		if detail, ok := metered(c.a); ok != c.ok {
			t.Errorf("%s: %v %q", c.name, ok, detail)
		}
	}
}

// TestKnocksAsWritten: the paths arrive as they are meant, and only the valid
// key is one.
func TestKnocksAsWritten(t *testing.T) {
	var mu sync.Mutex
	got := map[string][]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got[r.Method+" "+r.RequestURI] = append(got[r.Method+" "+r.RequestURI], fmt.Sprint(
			r.Header.Get("Authorization"), "|", r.Header.Get("X-Llmgw-Admit"), "|", r.Header.Get("Upgrade")))
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	findings := knockAll(t.Context(), server.URL, append(knocks("u"), validKnock("v")))
	if len(findings) != 10 {
		t.Errorf("%d findings: %v", len(findings), findings)
	}
	for _, texts := range got {
		slices.Sort(texts)
	}
	want := map[string][]string{
		"POST /v1/chat/completions":       {"Bearer u|1|", "Bearer u||", "|1|", "||"},
		"GET /v1/chat/completions":        {"||websocket"},
		"GET /v1/models":                  {"Bearer v||", "||"},
		"POST //v1/chat/completions":      {"||"},
		"POST /v1/%63hat/completions":     {"||"},
		"POST /v1/../v1/chat/completions": {"||"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// silentTransport answers nobody.
type silentTransport struct{}

func (silentTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestKnockHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := knocks("u")[0].send(t.Context(), silentTransport{}, "http://gw")
		if !errors.Is(err, context.DeadlineExceeded) || noAnswer(err) != "not within 15s" {
			t.Errorf("%v", err)
		}
	})
}
