//go:build e2e

package envoy_test

import (
	"bufio"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// A client that writes Envoy's instructions is not obeyed, and nothing that it
// or Envoy says about itself reaches the model server.
func TestE2EHeaders(t *testing.T) {
	g := start(t, nil)
	orders := []string{
		"x-envoy-upstream-rq-timeout-ms", "1",
		"x-envoy-upstream-rq-per-try-timeout-ms", "1",
		"x-envoy-expected-rq-timeout-ms", "1",
		"x-envoy-retry-on", "5xx,reset,gateway-error,retriable-4xx",
		"x-envoy-retry-grpc-on", "internal",
		"x-envoy-max-retries", "5",
		"x-envoy-retriable-status-codes", "503",
		"x-envoy-hedge-on-per-try-timeout", "true",
		"x-envoy-original-path", "/v1/other",
		"x-envoy-original-host", "evil.example",
		"x-envoy-decorator-operation", "evil",
		"x-envoy-internal", "true",
		"x-envoy-external-address", "6.6.6.6",
		"x-envoy-force-trace", "true",
		"X-ENVOY-Upstream-Alt-Stat-Name", "evil",
		"X-LLMGW-Admit", "1", "x-llmgw-key-id", "evil", "x-llmgw-upstream", "evil",
		"x-forwarded-for", "6.6.6.6", "x-forwarded-proto", "https", "x-forwarded-host", "evil", "forwarded", "for=6.6.6.6",
		"accept-encoding", "gzip, br", "cookie", "a=b",
		"authorization", "Bearer x", "x-own", "kept",
	}
	for protocol, client := range clients {
		t.Run(protocol, func(t *testing.T) {
			g.sidecar.set(admit)
			g.upstream.set(func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(100 * time.Millisecond) // a time limit of 1 ms would be over
				w.WriteHeader(503)
			})
			a := g.do(client, "/v1/x", strings.NewReader("{}"), orders...)
			seen := g.upstream.requests()
			if a.status != 503 || a.body != "" || len(seen) != 1 {
				t.Fatalf("status %d %q, %d attempts", a.status, a.body, len(seen))
			}
			var names []string
			for name := range seen[0].header {
				if name != "X-Request-Id" && name != "User-Agent" && name != "Content-Type" && name != "Content-Length" {
					names = append(names, strings.ToLower(name))
				}
			}
			if diff := cmp.Diff(map[string]bool{"authorization": true, "x-own": true}, set(names)); diff != "" {
				t.Errorf("headers at the model server (-want +got):\n%s", diff)
			}
			if want := strings.TrimPrefix(g.upstream.URL, "http://"); seen[0].host != want || seen[0].path != "/v1/x" {
				t.Errorf("Host %q, path %q; want %q", seen[0].host, seen[0].path, want)
			}
			for name := range a.header {
				if strings.HasPrefix(name, "X-Envoy") {
					t.Errorf("the client got %s", name)
				}
			}
		})
	}
	t.Run("nominated by Connection", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(echo)
		a := g.raw("GET /v1/x HTTP/1.1\r\nHost: h\r\nConnection: close, x-llmgw-admit, X-Envoy-Retry-On\r\n" +
			"x-llmgw-admit: 1\r\nX-LLMGW-ADMIT: 1\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 3\r\n\r\n")
		seen := g.upstream.requests()
		if a.status != 400 && (a.status != 200 || len(seen) != 1) {
			t.Fatalf("status %d, %d hits", a.status, len(seen))
		}
		for _, r := range seen {
			for name := range r.header {
				if strings.HasPrefix(name, "X-Llmgw") || strings.HasPrefix(name, "X-Envoy") || name == "Connection" {
					t.Errorf("the model server got %s", name)
				}
			}
		}
	})
}

func set(names []string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

func TestE2EBasePaths(t *testing.T) {
	for base, want := range map[string]string{"/openai/v1": "/openai/v1/chat/completions?q=1", "/": "/chat/completions?q=1"} {
		g := start(t, func(o *envoy.Options) { o.Upstream.BasePath = base })
		g.upstream.set(echo)
		g.do(clients["h2c"], "/v1/chat/completions?q=1", strings.NewReader("{}"))
		seen := g.upstream.requests()
		if len(seen) != 1 || seen[0].path != want {
			t.Fatalf("base %q: %+v", base, seen)
		}
		for name := range seen[0].header {
			if strings.HasPrefix(name, "X-Envoy") {
				t.Errorf("base %q: the model server got %s", base, name)
			}
		}
		lines := g.accessLog()
		if len(lines) != 1 || lines[0]["path"] != "/v1/chat/completions" {
			t.Errorf("base %q: access log %v", base, lines)
		}
	}
}

// accessLog stops Envoy, so that all is written, and returns its access log.
// Every line it wrote must be JSON.
func (g *gateway) accessLog() []map[string]any {
	g.t.Helper()
	if err := g.stop(); err != nil {
		g.t.Fatal(err)
	}
	var list []map[string]any
	for line := range strings.Lines(g.log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			g.t.Errorf("log line %q: %v", line, err)
			continue
		}
		if _, ok := entry["duration_ms"]; ok {
			list = append(list, entry)
		} else if entry["msg"] == nil || entry["level"] == nil || entry["ts"] == nil {
			g.t.Errorf("log line %q", line)
		}
	}
	return list
}

func TestE2EAccessLog(t *testing.T) {
	g := start(t, nil)
	g.upstream.set(echo)
	a := g.do(clients["h1"], `/v1/x"y?api_key=hush`, strings.NewReader("{}"))
	g.do(clients["h1"], "/health?hush", nil)
	g.do(clients["h1"], "/nowhere?hush", nil)
	lines := g.accessLog()
	if len(lines) != 1 || strings.Contains(g.log.String(), "hush") {
		t.Fatalf("%d lines, or a query in them: %v", len(lines), lines)
	}
	l := lines[0]
	if when, err := time.Parse(time.RFC3339, l["time"].(string)); err != nil || when.Location() != time.UTC {
		t.Errorf("time %v: %v", l["time"], err)
	}
	if l["request_id"] != a.header.Get("X-Request-Id") || l["request_id"] == "" {
		t.Errorf("request id %v, the client has %q", l["request_id"], a.header.Get("X-Request-Id"))
	}
	delete(l, "time")
	delete(l, "request_id")
	delete(l, "duration_ms")
	delete(l, "upstream")
	want := map[string]any{
		"method": "POST", "path": `/v1/x%22y`, "status": 200.0, "flags": "-", "details": "via_upstream",
		"bytes_received": 2.0, "bytes_sent": float64(len(a.body)), "key_id": "key_1", "model": "m",
		"prompt_tokens": 3.0, "completion_tokens": 4.0, "total_tokens": 7.0, "provenance": "reported",
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Each event reaches the client before the next one is made.
func TestE2EStreamsAreNotBuffered(t *testing.T) {
	g := start(t, nil)
	for protocol, client := range clients {
		next := make(chan struct{})
		g.upstream.set(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for range 3 {
				_, _ = io.WriteString(w, "data: x\n")
				w.(http.Flusher).Flush()
				<-next
			}
		})
		response, err := client.Post(g.url+"/v1/x", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(response.Body)
		for range 3 {
			if line, err := lines.ReadString('\n'); err != nil || line != "data: x\n" {
				t.Fatalf("%s: %q %v", protocol, line, err)
			}
			next <- struct{}{}
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
			t.Errorf("%s: end %q %v", protocol, rest, err)
		}
		response.Body.Close()
	}
}

// The model server's certificate must be good for the name in the URL.
func TestE2ETLS(t *testing.T) {
	u := newUpstream(t)
	u.EnableHTTP2 = true
	u.StartTLS() // its certificate is for example.com, 127.0.0.1 and ::1
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: u.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		url, ca string
		status  int
	}{
		"right":             {u.URL, ca, 200},
		"another name":      {strings.Replace(u.URL, "127.0.0.1", "localhost", 1), ca, 502},
		"another authority": {u.URL, "testdata/ca.pem", 502},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, func(o *envoy.Options) {
				var err error
				if o.Upstream, err = envoy.ParseUpstream(c.url); err != nil {
					t.Fatal(err)
				}
				o.Upstream.CAFile = absolute(t, c.ca)
			})
			u.set(echo)
			// The client's Host says nothing about whom we trust.
			request, err := http.NewRequest(http.MethodGet, g.url+"/v1/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Host = "example.com"
			response, err := clients["h1"].Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != c.status || len(u.requests()) != map[int]int{200: 1}[c.status] {
				t.Errorf("status %d, %d hits, want %d", response.StatusCode, len(u.requests()), c.status)
			}
		})
	}
}
