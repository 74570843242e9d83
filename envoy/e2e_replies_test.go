//go:build e2e

package envoy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/envoy"
)

func TestE2EOwnReplies(t *testing.T) {
	g := start(t, func(o *envoy.Options) { o.MaxRequestBytes, o.UpstreamTimeout = 2<<20, time.Second })

	t.Run("unknown paths", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(echo)
		for _, client := range clients {
			for _, path := range []string{"/v1", "/V1/models", "/v2/models", "/health/", "/healthz", "/docs/", "/docs/x.js", "/usage/x", "/v1x/y", "/metrics", "/x/v1/models"} {
				for _, body := range bodies() {
					wantError(t, g.do(client, path, body), 404, "not_found", "invalid_request_error")
				}
			}
		}
		if n, hits := g.sidecar.streams.Load(), len(g.upstream.requests()); n != 0 || hits != 0 {
			t.Errorf("the sidecar was asked %d times, the model server %d times", n, hits)
		}
	})

	t.Run("info paths", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(echo)
		for protocol, client := range clients {
			for _, path := range envoy.InfoPaths() {
				if a := g.do(client, path, nil); a.status != 200 || a.body != "healthy GET "+path {
					t.Errorf("%s %s: %d %q", protocol, path, a.status, a.body)
				}
			}
		}
		if n, hits := g.sidecar.streams.Load(), len(g.upstream.requests()); n != 0 || hits != 0 {
			t.Errorf("the sidecar was asked %d times, the model server %d times", n, hits)
		}
	})

	t.Run("too large", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(echo)
		fits, large := strings.Repeat("x", 2<<20-1000), strings.Repeat("x", 3<<20)
		for protocol, client := range clients {
			for name, wrap := range map[string]func(string) io.Reader{
				"length":  func(s string) io.Reader { return strings.NewReader(s) },
				"chunked": func(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} },
			} {
				wantError(t, g.do(client, "/v1/x", wrap(large)), 413, "request_too_large", "invalid_request_error")
				if n := len(g.upstream.requests()); n != 0 {
					t.Errorf("%s %s: reached the model server", protocol, name)
				}
				if a := g.do(client, "/v1/x", wrap(fits)); a.status != 200 || g.upstream.requests()[0].body != fits {
					t.Errorf("%s %s: a body within the limit: %d %s", protocol, name, a.status, a.body)
				}
				g.upstream.set(echo)
			}
		}
	})

	t.Run("silent model server", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(g.upstream.silent)
		for _, client := range clients {
			for _, body := range bodies() {
				wantError(t, g.do(client, "/v1/x", body), 504, "upstream_timeout", "api_error")
			}
		}
	})

	t.Run("silence inside an answer", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			g.upstream.silent(w, r)
		})
		for protocol, client := range clients {
			if a := g.do(client, "/v1/x", nil); a.status != 200 || a.body != "data: 1\n\n" || a.err == nil {
				t.Errorf("%s: %d %q, end %v; want a cut answer", protocol, a.status, a.body, a.err)
			}
		}
	})

	t.Run("model server breaks off", func(t *testing.T) {
		g.sidecar.set(admit)
		g.upstream.set(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		for _, client := range clients {
			for _, body := range bodies() {
				wantError(t, g.do(client, "/v1/x", body), 502, "upstream_error", "api_error")
			}
		}
	})

	t.Run("model server's own errors pass", func(t *testing.T) {
		g.sidecar.set(admit)
		for _, status := range []int{400, 404, 413, 429, 500, 502, 503, 504} {
			g.upstream.set(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/own")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, "its own words")
			})
			if a := g.do(clients["h1"], "/v1/x", nil); a.status != status || a.body != "its own words" || a.header.Get("Content-Type") != "text/own" || len(g.upstream.requests()) != 1 {
				t.Errorf("%d: %d %q, %d attempts", status, a.status, a.body, len(g.upstream.requests()))
			}
		}
	})

	t.Run("health", func(t *testing.T) {
		for protocol, client := range clients {
			for _, path := range []string{"/health", "/health?x=1", "//health", "/v1/../health"} {
				if a := g.do(client, path, nil); a.status != 200 || a.body != "healthy GET /health" {
					t.Errorf("%s %s: %d %q", protocol, path, a.status, a.body)
				}
			}
		}
		g.apiHangs.Store(true)
		wantError(t, g.do(clients["h1"], "/health", nil), 503, "gateway_unavailable", "api_error")
		g.api.Close()
		for _, client := range clients {
			wantError(t, g.do(client, "/health", nil), 503, "gateway_unavailable", "api_error")
		}
	})
}

func TestE2EUnreachableModelServer(t *testing.T) {
	for name, raw := range map[string]string{
		"refused":      "http://" + freeAddress(t),
		"no such name": "http://model.invalid:8080",
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, func(o *envoy.Options) {
				var err error
				if o.Upstream, err = envoy.ParseUpstream(raw); err != nil {
					t.Fatal(err)
				}
			})
			for _, client := range clients {
				wantError(t, g.do(client, "/v1/x", strings.NewReader("{}")), 502, "upstream_error", "api_error")
			}
		})
	}
	t.Run("no socket", func(t *testing.T) {
		g := start(t, func(o *envoy.Options) {
			o.Upstream = envoy.Upstream{Host: "demo", SocketPath: filepath.Join(filepath.Dir(o.AdminSocket), "none.sock")}
		})
		wantError(t, g.do(clients["h1"], "/v1/x", nil), 502, "upstream_error", "api_error")
	})
}

func TestE2EPathsHaveOneReading(t *testing.T) {
	g := start(t, nil)
	for path, want := range map[string]string{ // the path at the model server, "" when it must not get there
		"/v1/models":                  "/v1/models",
		"/v1/models?a=/../b&c=%2f":    "/v1/models?a=/../b&c=%2f",
		"//v1/models":                 "/v1/models",
		"/v1//models":                 "/v1/models",
		"/v1/../v1/models":            "/v1/models",
		"/x/../v1/./models":           "/v1/models",
		"/v1/%6dodels":                "/v1/models",
		"/%76%31/models":              "/v1/models",
		"/v1\\models":                 "/v1/models",
		"/v1/%2e%2e/v1/models":        "/v1/models",
		"/v1/..":                      "info",
		"/v1/../nothing":              "",
		"/v1/../metrics":              "",
		"/v1%2fmodels":                "400",
		"/v1/a%2Fb":                   "400",
		"/v1/a%5cb":                   "400",
		"/v1/models%00":               "400",
		"http://other.host/v1/models": "/v1/models",
	} {
		g.upstream.set(echo)
		g.sidecar.set(admit)
		a := g.raw("GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		seen := g.upstream.requests()
		switch {
		case want == "400":
			if a.status != 400 || len(seen) != 0 || g.sidecar.streams.Load() != 0 {
				t.Errorf("%s: %d %s, %d hits", path, a.status, a.body, len(seen))
				continue
			}
			wantError(t, a, 400, "bad_request", "invalid_request_error")
		case want == "info":
			if a.status != 200 || a.body != "healthy GET /" || len(seen) != 0 {
				t.Errorf("%s: %d %s, %d hits", path, a.status, a.body, len(seen))
			}
		case want == "":
			if a.status != 404 || len(seen) != 0 {
				t.Errorf("%s: %d, %d hits", path, a.status, len(seen))
			}
		case a.status != 200 || len(seen) != 1 || seen[0].path != want:
			t.Errorf("%s: %d, seen %+v, want %s", path, a.status, seen, want)
		}
	}
}

func TestE2EMalformedRequestsGetAnAnswer(t *testing.T) {
	g := start(t, nil)
	g.sidecar.set(admit)
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"garbage":     {"GET / HTTP/9\r\n\r\n", 400},
		"HTTP/1.0":    {"GET /v1/models HTTP/1.0\r\n\r\n", 426},
		"underscore":  {"GET /v1/models HTTP/1.1\r\nHost: h\r\nx_llmgw_admit: 1\r\n\r\n", 400},
		"big header":  {"GET /v1/models HTTP/1.1\r\nHost: h\r\nx-big: " + strings.Repeat("x", 70<<10) + "\r\n\r\n", 431},
		"two lengths": {"POST /v1/models HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"upgrade":     {"GET /v1/models HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 403},
	} {
		g.upstream.set(echo)
		if a := g.raw(c.request); a.status != c.status {
			t.Errorf("%s: status %d %q, want %d", name, a.status, a.body, c.status)
		}
		if n := len(g.upstream.requests()); n != 0 {
			t.Errorf("%s reached the model server", name)
		}
	}
}

// raw sends bytes as they are and reads one answer.
func (g *gateway) raw(request string) answer {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		g.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(body), err}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// removeLock takes the RBAC filters out of a rendered configuration.
func removeLock(t *testing.T, path string) {
	t.Helper()
	var config any
	if err := yaml.Unmarshal([]byte(readFile(t, path)), &config); err != nil {
		t.Fatal(err)
	}
	removed := 0
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if filters, ok := v["http_filters"].([]any); ok {
				var kept []any
				for _, f := range filters {
					if name := f.(map[string]any)["name"]; name == "envoy.filters.http.rbac" || name == "llmgw.lock" {
						removed++
						continue
					}
					kept = append(kept, f)
				}
				v["http_filters"] = kept
			}
			if per, ok := v["typed_per_filter_config"].(map[string]any); ok {
				delete(per, "envoy.filters.http.rbac")
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(config)
	if removed != 2 { // of the listener, and of the cluster
		t.Fatalf("%d locks in the configuration", removed)
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}
