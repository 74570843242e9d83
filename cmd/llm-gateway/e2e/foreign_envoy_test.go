//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// What an Envoy that somebody else configures must do, however our part came
// into it.

// impatientHeaders make Envoy repeat requests or give up early, for clients that
// it trusts; an application's clients may go on to use them.
func impatientHeaders() http.Header {
	return http.Header{"X-Envoy-Retry-On": {"5xx"}, "X-Envoy-Max-Retries": {"2"}, "X-Envoy-Upstream-Rq-Timeout-Ms": {"200"}}
}

// refusesStrangers tries every door without a valid key, and a WebSocket with one.
func (s *existing) refusesStrangers(valid string, hits *int) {
	t := s.t
	t.Helper()
	forged := http.Header{"X-Llmgw-Admit": {"1"}, "X-Llmgw-Key-Id": {"key_x"}, "X-Envoy-Retry-On": {"5xx"}, "X-Envoy-Original-Path": {"/ping"}}
	for _, h2c := range []bool{false, true} {
		c := s.client(h2c)
		body := rig.Chat{Model: "intruder"}.Body()
		for _, header := range []http.Header{nil, forged} {
			wantProblem(t, "no key", c.Do(s.context(), rig.Request{Header: header.Clone(), Body: body}), 401, "missing_api_key")
			wantProblem(t, "wrong key", c.Do(s.context(), rig.Request{Header: header.Clone(), Key: "sk-unknown-0123456789abcdef", Body: body}), 403, "invalid_api_key")
		}
		for _, path := range spellings() {
			for _, method := range []string{"GET", "POST"} {
				in := rig.Request{Method: method, Path: path, Header: forged.Clone()}
				if method == "POST" {
					in.Body = body
				}
				c.Do(s.context(), in)
			}
		}
		s.nothingNew("without a valid key", hits)
	}
	upgrade := fmt.Sprintf("GET /v1/models HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", s.addr, valid)
	if w, err := rig.SendH1(s.addr, []byte(upgrade), 3*time.Second); w.Status != 403 {
		t.Errorf("a WebSocket: %d %v", w.Status, err)
	}
	s.nothingNew("a WebSocket", hits)
}

// metersModels wants exact charges for JSON and SSE by both protocols, a failure
// that is not repeated, a large body, a budget's refusal and the pages.
func (s *existing) metersModels(key rig.NewKey) {
	t := s.t
	t.Helper()
	for i, h2c := range []bool{false, true} {
		c := s.client(h2c)
		for _, stream := range []bool{false, true} {
			model := fmt.Sprintf("m-%d-%v", i, stream)
			chat := rig.Chat{Model: model, Stream: stream, MaxTokens: 100, Script: rig.Script{Prompt: 11, Completion: 31, FirstDelayMS: 400}}
			r := c.Do(s.context(), rig.Request{Key: key.Key, Header: impatientHeaders(), Body: chat.Body()})
			if !r.SawEnd() || r.Done != stream || r.Header.Get("X-Request-Id") == "" || r.Header.Get("X-Ratelimit-Limit") == "" {
				t.Errorf("%s: %d %q %v %v", model, r.Status, r.Body, r.Header, r.Err)
			}
			if row := s.books()[model]; row.Prompt != 11 || row.Completion != 31 || row.Requests != 1 || !row.Is("reported") {
				t.Errorf("%s: the books say %+v", model, row)
			}
		}
		id := fmt.Sprintf("fails-%d", i)
		chat := rig.Chat{Model: id, MaxTokens: 100, Script: rig.Script{ID: id, Status: 503}}
		if r := c.Do(s.context(), rig.Request{Key: key.Key, Header: impatientHeaders(), Body: chat.Body()}); r.Status != 503 {
			t.Errorf("a failing model server: %d %q", r.Status, r.Body)
		}
		if n := len(s.up.ByID(id)); n != 1 {
			t.Errorf("a request that failed was sent %d times", n)
		}
	}
	// Larger than the listener's buffer and Envoy's default.
	big := rig.Chat{Model: "big", MaxTokens: 10, Text: strings.Repeat("a", 3<<20), Script: rig.Script{Prompt: 5, Completion: 6}}
	if r := s.client(false).Do(s.context(), rig.Request{Key: key.Key, Body: big.Body()}); !r.SawEnd() {
		t.Errorf("3 MiB: %d %q %v", r.Status, r.Body, r.Err)
	}
	poor := s.key("--daily", "50")
	r := s.client(false).Do(s.context(), rig.Request{Key: poor.Key, Body: rig.Chat{Model: "poor", MaxTokens: 100}.Body()})
	p := wantProblem(t, "budget", r, 429, "insufficient_quota")
	if !strings.Contains(p.Error.Message, "daily") || r.Header.Get("Retry-After") == "" {
		t.Errorf("budget: %q %v", r.Body, r.Header)
	}
	if row, ok := s.books()["poor"]; ok {
		t.Errorf("a refused request is in the books: %+v", row)
	}
	for path, status := range map[string]int{"/usage": 200, "/v1/limits": 200, "/healthz/ready": 200} {
		c := s.client(false)
		if r := c.Do(s.context(), rig.Request{Method: "GET", Path: path, Key: key.Key}); r.Status != status {
			t.Errorf("%s: %d %q", path, r.Status, r.Body)
		}
	}
	if r := s.get("/usage", nil); r.Status != 401 {
		t.Errorf("/usage without a key: %d", r.Status)
	}
}

// closesOnSilence puts sidecars that end the stream without a word at a socket
// which nobody serves now, one after another: nobody gets through.
func (s *existing) closesOnSilence(t *testing.T, socket string) {
	t.Helper()
	for _, at := range []rig.Phase{rig.RequestHeaders, rig.RequestBody} {
		side := s.silent(t, socket, at)
		before := len(s.up.Records())
		for kind, r := range knock(s.gateway, s.url, "") {
			if (at == rig.RequestHeaders || !strings.HasPrefix(kind, "get")) && r.Status < 400 { // a GET has no body to fail at
				t.Errorf("closed at %s: %s: %d %q", at, kind, r.Status, r.Body)
			}
		}
		for _, r := range s.up.Records()[before:] {
			if at == rig.RequestHeaders || r.Method == http.MethodPost {
				t.Errorf("closed at %s: %s %s reached the upstream", at, r.Method, r.Path)
			}
		}
		side.Close()
	}
}

// silent is a sidecar that closes cleanly, and that Envoy has found.
func (s *existing) silent(t *testing.T, socket string, at rig.Phase) *rig.BadSidecar {
	t.Helper()
	side := &rig.BadSidecar{At: at, Do: rig.CloseCleanly}
	_ = os.Remove(socket) // of a sidecar that was killed
	if err := side.Listen(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(side.Close)
	s.eventually("Envoy to ask the sidecar", func() bool {
		s.client(false).Do(s.context(), rig.Request{Body: rig.Chat{Model: "warm"}.Body()})
		return side.Seen(rig.RequestHeaders) > 0
	})
	return side
}

// configDump is what a control plane has sent to an Envoy, as its admin interface
// tells it.
type configDump struct {
	bootstrap           map[string]any
	listeners, clusters []map[string]any
	routes              map[any]map[string]any // by name
}

func readDump(t *testing.T, text []byte) configDump {
	t.Helper()
	var dump struct {
		Configs []struct {
			Bootstrap map[string]any `json:"bootstrap"`
			Listeners []struct {
				State struct {
					Listener map[string]any `json:"listener"`
				} `json:"active_state"`
			} `json:"dynamic_listeners"`
			Routes []struct {
				Config map[string]any `json:"route_config"`
			} `json:"dynamic_route_configs"`
			Clusters []struct {
				Cluster map[string]any `json:"cluster"`
			} `json:"dynamic_active_clusters"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(text, &dump); err != nil {
		t.Fatal(err)
	}
	d := configDump{routes: map[any]map[string]any{}}
	for _, c := range dump.Configs {
		if c.Bootstrap != nil {
			d.bootstrap = c.Bootstrap
		}
		for _, l := range c.Listeners {
			delete(l.State.Listener, "@type")
			d.listeners = append(d.listeners, l.State.Listener)
		}
		for _, r := range c.Routes {
			delete(r.Config, "@type")
			d.routes[r.Config["name"]] = r.Config
		}
		for _, cl := range c.Clusters {
			delete(cl.Cluster, "@type")
			d.clusters = append(d.clusters, cl.Cluster)
		}
	}
	return d
}

// inline puts a connection manager's routes into it, where it asks for them.
func (d configDump) inline(manager map[string]any) {
	if rds, ok := manager["rds"].(map[string]any); ok {
		manager["route_config"] = d.routes[rds["route_config_name"]]
		delete(manager, "rds")
	}
}
