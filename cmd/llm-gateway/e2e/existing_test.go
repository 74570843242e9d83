//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// get asks the site for a page.
func (s *existing) get(path string, header http.Header) rig.Received {
	return s.client(false).Do(s.context(), rig.Request{Method: http.MethodGet, Path: path, Header: header})
}

// wantOwnRoutes checks that what the site served before the gateway came is as
// it was.
func (s *existing) wantOwnRoutes(when string) {
	s.t.Helper()
	admit := http.Header{"X-Llmgw-Admit": {"1"}}
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/app":       {200, "app /app request 1"}, // its headers are its own business
		"/":          {200, "app / request 1"},
		"/ping":      {200, "site says 200"},
		"/teapot":    {419, "site says 419"},
		"/moved":     {301, "site says 301"},
		"/forbidden": {403, "site says 403"},
	} {
		r := s.get(path, admit)
		if r.Status != want.status || string(r.Body) != want.body || r.Header.Get("X-Site") != "answer" {
			s.t.Errorf("%s: %s: %d %q (%v), want %d %q", when, path, r.Status, r.Body, r.Err, want.status, want.body)
		}
	}
}

// nothingNew fails when a request has reached the upstream since the last call.
func (s *existing) nothingNew(what string, hits *int) {
	s.t.Helper()
	if n := s.up.Hits(); n != *hits {
		s.t.Errorf("%s: %d requests reached the upstream, the last is %+v", what, n-*hits, s.up.Records()[n-1])
		*hits = n
	}
}

// checkListener runs check --listener as anybody could, and wants its exit code
// and what its message says.
func (s *existing) checkListener(code int, want string, flags ...string) {
	s.t.Helper()
	r, err := s.cli.Run(append([]string{"check", "--listener", s.url}, flags...)...)
	if err != nil || r.Code != code || !strings.Contains(r.Stderr, want) || (code == 0) != (r.Stderr == "") {
		s.t.Errorf("check --listener: exit %d, %v, want %d and %q\n%s%s", r.Code, err, code, want, r.Stdout, r.Stderr)
	}
}

func (s *existing) keyFile(key string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func TestExistingEnvoy_closed(t *testing.T) {
	s := startExisting(t)
	valid := s.key().Key
	hits := s.up.Hits()
	s.refusesStrangers(valid, &hits)
	for _, h2c := range []bool{false, true} {
		// A way that was there before, without a gate: the lock closes it, also
		// for those who have a key.
		wantProblem(t, "the old way", s.client(h2c).Do(s.context(), rig.Request{
			Path: "/old/chat/completions", Key: valid, Body: rig.Chat{Model: "intruder"}.Body(),
		}), 503, "gateway_unavailable")
		s.nothingNew("the old way", &hits)
	}
	s.wantOwnRoutes("with the sidecar")
	s.checkListener(0, "", "--key-file", s.keyFile(valid))
	if report := s.balanced(); report.Charges != 0 {
		t.Errorf("%d charges for refused requests", report.Charges)
	}
}

func TestExistingEnvoy_meters(t *testing.T) {
	s := startExisting(t)
	key := s.key()
	s.metersModels(key)
	before := s.hits.Load()
	if r := s.get("/app/fails", impatientHeaders()); r.Status != 503 || s.hits.Load() != before+3 {
		t.Errorf("the application was asked %d times (%d), want 3: its clients' headers have no effect, so nothing is proved above", s.hits.Load()-before, r.Status)
	}
}

// TestExistingEnvoy_withoutTheSidecar: models are refused, the site goes on.
func TestExistingEnvoy_withoutTheSidecar(t *testing.T) {
	s := startExisting(t)
	key := s.key().Key
	for kind, r := range knock(s.gateway, s.url, key) {
		if !r.SawEnd() {
			t.Fatalf("with a sidecar: %s %d %q", kind, r.Status, r.Body)
		}
	}
	hits := s.up.Hits()
	s.proc.Kill()
	wantClosed(t, "killed", knock(s.gateway, s.url, key))
	s.nothingNew("killed", &hits)
	wantProblem(t, "a page", s.get("/health", nil), 503, "gateway_unavailable")
	s.wantOwnRoutes("without the sidecar")
	s.checkListener(0, "")
	s.checkListener(1, ": valid key (", "--key-file", s.keyFile(key)) // closed, and for everybody
	s.runServe()
	s.ready()
	s.eventually("the sidecar to be used again", func() bool {
		r := s.client(false).Do(s.context(), rig.Request{Key: key, Body: rig.Chat{Model: "back", MaxTokens: 10}.Body()})
		return r.SawEnd()
	})
	s.balanced()
}

// TestExistingEnvoy_lock puts sidecars that end the stream without a word behind
// the merged configuration, and then takes the lock out: the first lets nobody
// through, the second shows that this is the lock's doing.
func TestExistingEnvoy_lock(t *testing.T) {
	s := prepareExisting(t)
	config := s.merged()
	for i, at := range []rig.Phase{rig.RequestHeaders, rig.RequestBody} {
		side := &rig.BadSidecar{At: at, Do: rig.CloseCleanly}
		url := s.behind(t, config.Clone(), fmt.Sprintf("closes%d", i), side)
		for kind, r := range knock(s.gateway, url, "") {
			if at == rig.RequestHeaders || !strings.HasPrefix(kind, "get") { // which has no body to fail at
				wantProblem(t, kind, r, 503, "gateway_unavailable")
			}
		}
		for _, r := range s.up.Records() {
			if at == rig.RequestHeaders || r.Method == http.MethodPost {
				t.Errorf("closed at %s: %s %s reached the upstream", at, r.Method, r.Path)
			}
		}
	}
	if n := config.RemoveHTTPFilter(rbac); n != 2 {
		t.Fatalf("the config has %d RBAC filters, want the site's and ours", n)
	}
	hits := s.up.Hits()
	knock(s.gateway, s.behind(t, config, "open", &rig.BadSidecar{At: rig.RequestHeaders, Do: rig.CloseCleanly}), "")
	if s.up.Hits() == hits {
		t.Error("no request reached the upstream without the lock: the lock tests prove nothing")
	}
}

// TestExistingEnvoy_newCluster has no cluster of the models yet, and reads JSON.
func TestExistingEnvoy_newCluster(t *testing.T) {
	s := prepareExisting(t)
	s.runServe()
	s.envoy = s.runEnvoy("site", s.merged("--upstream", s.up.URL, "--json"), s.addr)
	s.ready()
	key := s.key().Key
	c := s.client(false)
	wantProblem(t, "no key", c.Do(s.context(), rig.Request{Body: rig.Chat{Model: "m"}.Body()}), 401, "missing_api_key")
	r := c.Do(s.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 50, Script: rig.Script{Prompt: 3, Completion: 4}}.Body()})
	if row := s.books()["m"]; !r.SawEnd() || row.Total != 7 {
		t.Errorf("%d %q, %d tokens in the books", r.Status, r.Body, row.Total)
	}
	if host := s.up.Records()[s.up.Hits()-1].Host; host != s.up.Addr() {
		t.Errorf("the model server was asked as %q", host)
	}
	s.wantOwnRoutes("with a cluster of the gateway's")
	s.checkListener(0, "", "--key-file", s.keyFile(key))
}

// TestCheckListener_up: the gateway's own Envoy is closed too.
func TestCheckListener_up(t *testing.T) {
	s := &existing{gateway: start(t, setup{demo: true})}
	s.checkListener(0, "", "--key-file", s.keyFile(s.key().Key))
	revoked, _ := s.deadKeys()
	s.checkListener(1, "1 of 10 did not go as they must: valid key (", "--key-file", s.keyFile(revoked))
}

// TestExistingEnvoy_leaks takes parts out of the merged configuration, one way
// at a time: the check from outside names what gets in.
func TestExistingEnvoy_leaks(t *testing.T) {
	s := prepareExisting(t)
	key := s.key()
	s.runServe()
	config := s.merged()
	for i, c := range []struct {
		name   string
		change func(rig.EnvoyConfig)
		want   string
	}{
		{"nothing", func(rig.EnvoyConfig) {}, ""},
		{"paths are read as they come", func(c rig.EnvoyConfig) {
			managerOf(c)["merge_slashes"] = false
		}, "1 of 10 did not go as they must: path //v1 ("},
		{"WebSockets are let through", func(c rig.EnvoyConfig) {
			for _, r := range hostOf(c)["routes"].([]any) {
				if r, ok := r.(map[string]any)["route"].(map[string]any); ok {
					delete(r, "upgrade_configs")
				}
			}
		}, "1 of 10 did not go as they must: websocket, no key ("},
		{"neither gate nor lock", func(c rig.EnvoyConfig) {
			c.RemoveHTTPFilter(rbac)
			c.RemoveHTTPFilter("envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor")
		}, "9 of 10 did not go as they must: no key; unknown key; "},
		{"no gate", func(c rig.EnvoyConfig) { // the lock closes, for everybody
			c.RemoveHTTPFilter("envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor")
		}, "1 of 10 did not go as they must: valid key ("},
		{"no lock", func(c rig.EnvoyConfig) { c.RemoveHTTPFilter(rbac) }, ""}, // while the gate works it is not missed
	} {
		t.Run(c.name, func(t *testing.T) {
			h := *s.gateway
			h.t = t
			side := &existing{gateway: &h}
			changed := config.Clone()
			c.change(changed)
			changed.MovePipe("admin.sock", h.socket(fmt.Sprintf("leak%d.sock", i)))
			addr, err := ports.Next()
			if err != nil {
				t.Fatal(err)
			}
			h.addr, h.url = addr, "http://"+addr
			h.envoy = h.runEnvoy(fmt.Sprintf("leak%d", i), changed, addr)
			h.ready()
			code := 0
			if c.want != "" {
				code = 1
			}
			side.checkListener(code, c.want, "--key-file", side.keyFile(key.Key))
		})
	}
}
