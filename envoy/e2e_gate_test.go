//go:build e2e

package envoy_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// bodies are the two ways a request can begin: with a body to come, without.
func bodies() map[string]io.Reader {
	return map[string]io.Reader{
		"POST":    strings.NewReader(`{"model":"m"}`),
		"GET":     nil,
		"chunked": struct{ io.Reader }{strings.NewReader(`{"model":"m"}`)},
	}
}

func TestE2EGate(t *testing.T) {
	g := start(t, nil)

	t.Run("admitted requests pass", func(t *testing.T) {
		g.sidecar.set(admit)
		for protocol, client := range clients {
			for kind, body := range bodies() {
				g.upstream.set(echo)
				a := g.do(client, "/v1/x", body)
				if a.status != 200 || a.body != `{"ok":true}` || len(g.upstream.requests()) != 1 {
					t.Errorf("%s %s: %d %s, %d hits", protocol, kind, a.status, a.body, len(g.upstream.requests()))
				}
			}
		}
	})

	atHeaders := func(m *extprocv3.ProcessingRequest) bool { return m.GetRequestHeaders() != nil }
	atBody := func(m *extprocv3.ProcessingRequest) bool { return m.GetRequestBody() != nil }
	// misbehave passes without admitting until at, and does what it is told.
	misbehave := func(at func(*extprocv3.ProcessingRequest) bool, r *extprocv3.ProcessingResponse, err error) behaviour {
		return func(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
			if at(m) {
				return r, err
			}
			return pass(m), nil
		}
	}
	never := func(*extprocv3.ProcessingRequest) bool { return false }
	wrongMetadata := func(fields map[string]any, namespace string) behaviour {
		return func(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
			r := pass(m)
			r.DynamicMetadata = metadata(fields)
			r.DynamicMetadata.Fields[namespace] = r.DynamicMetadata.Fields["llmgw"]
			if namespace != "llmgw" {
				delete(r.DynamicMetadata.Fields, "llmgw")
			}
			return r, nil
		}
	}
	for name, b := range map[string]behaviour{
		"closes cleanly at the headers": misbehave(atHeaders, nil, nil),
		"closes cleanly at the body":    misbehave(atBody, nil, nil),
		"fails at the headers":          misbehave(atHeaders, nil, errors.New("broken")),
		"fails at the body":             misbehave(atBody, nil, errors.New("broken")),
		"hangs at the headers":          misbehave(atHeaders, nil, hang{}),
		"hangs at the body":             misbehave(atBody, nil, hang{}),
		"answers another message":       misbehave(atHeaders, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{}}}, nil),
		"says nothing about admission":  misbehave(never, nil, nil),
		"admits with another value":     wrongMetadata(map[string]any{"admit": "0"}, "llmgw"),
		"admits with a number":          wrongMetadata(map[string]any{"admit": 1}, "llmgw"),
		"admits in another namespace":   wrongMetadata(map[string]any{"admit": "1"}, "other"),
	} {
		t.Run(name, func(t *testing.T) {
			g.sidecar.set(b)
			for protocol, client := range clients {
				for kind, body := range bodies() {
					if kind == "GET" && strings.HasSuffix(name, "at the body") {
						continue // there is none to misbehave at
					}
					g.upstream.set(echo)
					a := g.do(client, "/v1/chat/completions", body, "x-llmgw-admit", "1")
					wantError(t, a, 503, "gateway_unavailable", "api_error")
					if n := len(g.upstream.requests()); n != 0 {
						t.Errorf("%s %s: %d requests reached the model server", protocol, kind, n)
					}
				}
			}
		})
	}

	t.Run("sidecar absent, then back", func(t *testing.T) {
		g.sidecar.set(admit)
		g.sidecar.stop()
		for protocol, client := range clients {
			for kind, body := range bodies() {
				g.upstream.set(echo)
				wantError(t, g.do(client, "/v1/chat/completions", body), 503, "gateway_unavailable", "api_error")
				if n := len(g.upstream.requests()); n != 0 {
					t.Errorf("%s %s: %d requests reached the model server", protocol, kind, n)
				}
			}
		}
		if a := g.do(clients["h1"], "/health", nil); a.status != 200 {
			t.Errorf("/health without the sidecar's gRPC: %d", a.status)
		}
		g.sidecar.start()
		// At once: no probe has to find it healthy first.
		if a := g.do(clients["h1"], "/v1/x", nil); a.status != 200 {
			t.Errorf("the sidecar is back: %d %s", a.status, a.body)
		}
	})
}

func TestE2EFailingBetweenAnswers(t *testing.T) {
	g := start(t, nil)
	g.upstream.set(echo)
	g.sidecar.set(func(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
		if m.GetResponseHeaders() != nil {
			return nil, errors.New("broken")
		}
		return admit(m)
	})
	wantError(t, g.do(clients["h1"], "/v1/x", nil), 503, "gateway_unavailable", "api_error")
}

// A time limit for the model server that is shorter than the sidecar's does
// not put the blame for a slow sidecar on the model server.
func TestE2ESlowSidecarIsNotTheModelServersFault(t *testing.T) {
	g := start(t, func(o *envoy.Options) { o.UpstreamTimeout, o.MessageTimeout = 300*time.Millisecond, 5*time.Second })
	g.upstream.set(echo)
	for at, begin := range map[string]func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse{
		"headers": func(*extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse { return nil },
		"body": func(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
			if m.GetRequestHeaders() == nil {
				return nil
			}
			r := pass(m)
			r.DynamicMetadata = metadata(map[string]any{"key_id": "key_1"})
			return r
		},
	} {
		g.sidecar.set(func(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
			if r := begin(m); r != nil {
				return r, nil
			}
			return nil, hang{}
		})
		for _, client := range clients {
			wantError(t, g.do(client, "/v1/x", strings.NewReader("{}")), 503, "gateway_unavailable", "api_error")
		}
		if n := len(g.upstream.requests()); n != 0 {
			t.Errorf("at %s: %d requests reached the model server", at, n)
		}
	}
}

// What the sidecar answers itself arrives as it is.
func TestE2EImmediateAnswersAreUntouched(t *testing.T) {
	g := start(t, nil)
	const body = `{"zeta": 1,  "error":{"code":"own"} }`
	for _, status := range []typev3.StatusCode{400, 401, 403, 404, 413, 429, 500, 502, 503, 504} {
		refuse := &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
			Status: &typev3.HttpStatus{Code: status},
			Headers: &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{
				{Header: &corev3.HeaderValue{Key: "content-type", RawValue: []byte("application/json; own")}},
				{Header: &corev3.HeaderValue{Key: "retry-after", RawValue: []byte("17")}},
			}},
			Body:    []byte(body),
			Details: "llmgw_own",
		}}}
		for _, at := range []string{"headers", "body"} {
			g.sidecar.set(func(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
				if at == "body" && m.GetRequestBody() == nil {
					return pass(m), nil
				}
				return refuse, nil
			})
			for protocol, client := range clients {
				g.upstream.set(echo)
				a := g.do(client, "/v1/x", strings.NewReader("{}"))
				if a.status != int(status) || a.body != body || a.header.Get("Retry-After") != "17" || a.header.Get("Content-Type") != "application/json; own" {
					t.Errorf("%s %d at %s: %d %q %v", protocol, status, at, a.status, a.body, a.header)
				}
				if len(g.upstream.requests()) != 0 {
					t.Errorf("%s %d at %s: reached the model server", protocol, status, at)
				}
			}
		}
	}
}

// With the lock taken out the gate must leak, or the tests above prove nothing.
func TestE2EWithoutTheLockItLeaks(t *testing.T) {
	g := prepare(t, nil)
	removeLock(t, g.run.ConfigPath)
	g.startEnvoy()
	g.sidecar.set(func(*extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) { return nil, nil })
	g.upstream.set(echo)
	if a := g.do(clients["h1"], "/v1/x", nil); a.status != 200 || len(g.upstream.requests()) != 1 {
		t.Errorf("status %d, %d hits: a clean close was expected to pass without the lock", a.status, len(g.upstream.requests()))
	}
}

func TestE2EGoldensAreValid(t *testing.T) {
	for _, name := range []string{"http", "https", "demo", "replicas-by-address", "replicas-by-name"} {
		config := readFile(t, "testdata/"+name+".golden.yaml")
		config = strings.ReplaceAll(config, "testdata/ca.pem", absolute(t, "testdata/ca.pem"))
		if err := envoy.Validate(t.Context(), binary(t), []byte(config)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		broken := strings.Replace(config, "cluster: llm\n", "cluster: nowhere\n", 1)
		if err := envoy.Validate(t.Context(), binary(t), []byte(broken)); !errors.Is(err, envoy.ErrConfig) || !strings.Contains(err.Error(), "nowhere") {
			t.Errorf("%s with an unknown cluster: %v", name, err)
		}
	}
	if err := envoy.Validate(t.Context(), "/nonexistent/envoy", nil); err == nil || errors.Is(err, envoy.ErrConfig) {
		t.Errorf("without an Envoy: %v", err)
	}
}
