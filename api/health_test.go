package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"
)

func ask(t *testing.T, h http.Handler, method, path string) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	var body map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
		t.Fatalf("%s %s: body is no JSON: %v\n%s", method, path, err, w.Body)
	}
	return w, body
}

func component(name string, optional bool, err error) Component {
	return Component{Name: name, Optional: optional, Check: func(context.Context) error { return err }}
}

func TestHealth_namesWhatDoesNotWork(t *testing.T) {
	broken := errors.New("secret detail: /var/lib/x.db is locked")
	for _, c := range []struct {
		name       string
		components []Component
		code       int
		status     string
	}{
		{"all work", []Component{component("database", false, nil), component("redis", true, nil)}, 200, "healthy"},
		{"an optional part is away", []Component{component("database", false, nil), component("redis", true, broken)}, 200, "degraded"},
		{"books are away", []Component{component("database", false, broken), component("redis", true, nil)}, 503, "unhealthy"},
		{"unhealthy beats degraded", []Component{component("redis", true, broken), component("database", false, broken)}, 503, "unhealthy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, body := ask(t, Handler(Options{Components: c.components, Log: zap.NewNop()}), "GET", "/health")
			if w.Code != c.code || body["status"] != c.status || body["service"] != "llm-gateway" {
				t.Errorf("got %d %v, want %d %s", w.Code, body, c.code, c.status)
			}
			if strings.Contains(w.Body.String(), "secret detail") {
				t.Errorf("the answer shows internals: %s", w.Body)
			}
		})
	}
}

func TestHandler_unknownPathAndMethod(t *testing.T) {
	h := Handler(Options{Log: zap.NewNop()})
	if w, body := ask(t, h, "GET", "/nothing"); w.Code != 404 || body["detail"] == "" {
		t.Errorf("unknown path: %d %v", w.Code, body)
	}
	w, _ := ask(t, h, "POST", "/health")
	if w.Code != 405 || w.Header().Get("Allow") != "GET" {
		t.Errorf("wrong method: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

// Live is the process, ready is whether to send requests here: a gateway that
// is about to stop is healthy and not ready, and says so before it stops.
func TestProbes(t *testing.T) {
	broken := errors.New("secret detail")
	for _, c := range []struct {
		name       string
		draining   bool
		components []Component
		ready      int
		status     string
		health     int
	}{
		{"healthy", false, []Component{component("database", false, nil)}, 200, "ready", 200},
		{"degraded", false, []Component{component("redis", true, broken)}, 200, "ready", 200},
		{"unhealthy", false, []Component{component("database", false, broken)}, 503, "not_ready", 503},
		{"about to stop", true, []Component{component("database", false, nil)}, 503, "not_ready", 200},
	} {
		h := Handler(Options{Log: zap.NewNop(), Components: c.components, Draining: func() bool { return c.draining }})
		if w, body := ask(t, h, "GET", "/healthz/ready"); w.Code != c.ready || body["status"] != c.status || len(body) != 1 {
			t.Errorf("%s: ready %d %v", c.name, w.Code, body)
		}
		if w, body := ask(t, h, "GET", "/healthz/live"); w.Code != 200 || body["status"] != "ok" || len(body) != 1 {
			t.Errorf("%s: live %d %v", c.name, w.Code, body)
		}
		if w, _ := ask(t, h, "GET", "/health"); w.Code != c.health {
			t.Errorf("%s: health %d", c.name, w.Code)
		}
	}
}

// A part that hangs is named, and not those that are asked beside it; a check
// that panics is a part that does not work.
func TestHealth_aPartThatHangsIsNamedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := Component{Name: "database", Check: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		asks := func(name string) Component { // as a check over a socket does
			return Component{Name: name, Check: func(ctx context.Context) error { return ctx.Err() }}
		}
		panics := Component{Name: "rate_limit", Optional: true, Check: func(context.Context) error { panic("a mistake of ours") }}
		w, _ := ask(t, Handler(Options{Log: zap.NewNop(), Components: []Component{asks("gate"), hangs, panics, asks("envoy")}}), "GET", "/health")
		want := `{"status":"unhealthy","service":"llm-gateway","components":{"database":{"status":"unhealthy"},"envoy":{"status":"healthy"},"gate":{"status":"healthy"},"rate_limit":{"status":"unhealthy"}}}`
		if got := strings.TrimSpace(w.Body.String()); w.Code != 503 || got != want {
			t.Errorf("%d %s", w.Code, got)
		}
	})
}
