//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestIstio_gate is the main job in an Envoy that a real istiod configures from
// what envoy-config prints.
func TestIstio_gate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(*mesh) []string // and the flags that say where the sidecar is
		own   bool                 // the cluster of the models is the mesh's own
	}{
		{"sidecar in the pod", func(m *mesh) []string {
			m.runServe()
			return []string{"--upstream", m.up.URL}
		}, false},
		{"sidecar elsewhere, models in the mesh", func(m *mesh) []string {
			m.proc = m.launch("serve", "--grpc", m.sidecar[0], "--http", m.sidecar[1])
			return []string{"--cluster", "outbound|8000||models.example.com", "--grpc", m.sidecar[0], "--http", m.sidecar[1]}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := startMesh(t)
			m.apply(nil)
			m.wantSite("before")
			if status, body := m.site("/old/chat/completions"); status != 200 {
				t.Fatalf("the old way: %d %q: nothing is proved below", status, body)
			}
			flags := c.start(m)
			m.apply(m.printed(flags...))
			m.ready()
			m.valid()
			key := m.key()
			hits := m.up.Hits()
			m.refusesStrangers(key.Key, &hits)
			if status, body := m.site("/old/chat/completions"); c.own && (status != 503 && status != 403 || m.up.Hits() != hits) {
				t.Errorf("the old way: %d %q", status, body)
			}
			hits = m.up.Hits()
			before := hits
			m.metersModels(key)
			m.wantNoNames(before)
			m.wantSite("with the sidecar")
			m.checkListener(0, "", "--key-file", m.keyFile(key.Key))

			hits = m.up.Hits()
			m.proc.Kill()
			wantClosed(t, "killed", knock(m.gateway, m.url, key.Key))
			m.nothingNew("killed", &hits)
			m.wantSite("without the sidecar")
			m.checkListener(0, "")
			m.checkListener(1, ": valid key (", "--key-file", m.keyFile(key.Key))
			c.start(m)
			m.eventually("the sidecar to be used again", func() bool {
				return m.client(false).Do(m.context(), rig.Request{Key: key.Key, Body: rig.Chat{Model: "back", MaxTokens: 10}.Body()}).SawEnd()
			})
			m.balanced()
		})
	}
}

// wantNoNames checks that the models were told nothing of who asked since.
func (m *mesh) wantNoNames(before int) {
	m.t.Helper()
	for _, r := range m.up.Records()[before:] {
		for name := range r.Header {
			if r.Path != "/v1/chat/completions" || strings.HasPrefix(strings.ToLower(name), "x-forwarded-") || strings.HasPrefix(strings.ToLower(name), "x-envoy-peer") {
				m.t.Errorf("the models were asked for %s with %s", r.Path, name)
			}
		}
	}
}

// TestIstio_partly drops each patch in turn, as Istio does without a word when it
// matches nothing. No sidecar is so bad, and no key so wrong, that it gets in.
func TestIstio_partly(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	closes := &rig.BadSidecar{At: rig.RequestHeaders, Do: rig.CloseCleanly}
	socket := filepath.Join(m.dir, "bad.sock")
	if err := closes.Listen(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closes.Close)
	m.runServe()
	for _, models := range [][]string{{"--upstream", m.up.URL}, {"--cluster", "outbound|8000||models.example.com"}} {
		good := m.printed(models...)
		bad := m.printed(append(models, "--grpc", "unix://"+socket)...)
		for n, p := range good.filter()["configPatches"].([]any) {
			to, what := patchName(p)
			for kind, whole := range map[string]manifests{"a sidecar that closes": bad, "no key": good} {
				list, at := whole.clone(), -1
				if dropped := list.drop(func(string, string) bool { at++; return at == n }); dropped != 1 {
					t.Fatalf("%d patches are gone, want 1", dropped)
				}
				m.wantNothingPasses(fmt.Sprintf("%s, %s, without %d: %s %s", models[0], kind, n, to, what), list)
			}
		}
		m.wantNothingPasses(models[0]+", a sidecar that closes", bad)
		for name, drop := range map[string]func(applyTo, name string) bool{
			"filters": func(applyTo, _ string) bool { return applyTo == "HTTP_FILTER" },
			"all but the cluster and the routes": func(applyTo, name string) bool {
				return applyTo != "VIRTUAL_HOST" && name != "llmgw_models"
			},
		} {
			list := bad.clone()
			list.drop(drop)
			m.wantNothingPasses(models[0]+" without "+name, list)
		}
		// The listener's lock is what closes the mesh's own way to the models.
		list := good.clone()
		list.drop(func(_, name string) bool { return name == "llmgw.lock" })
		m.apply(list)
		if status, body := m.site("/old/chat/completions"); status != 200 {
			t.Errorf("the old way without the lock: %d %q: nothing is proved of the lock", status, body)
		}
		// With neither lock it gets in: the locks are what kept it out.
		list = bad.clone()
		if n := list.drop(func(_, name string) bool { return name == "llmgw.lock" }) + list.unlock(); n != 2 {
			t.Fatalf("%d locks, want 2", n)
		}
		m.apply(list)
		hits := m.up.Hits()
		knock(m.gateway, m.url, "")
		if m.up.Hits() == hits {
			t.Error("no request reached the upstream without locks: nothing is proved")
		}
		// With one of them it does not.
		list = bad.clone()
		list.unlock()
		m.wantNothingPasses(models[0]+" without the cluster's lock", list)
	}
}

// unlock takes the locks out of clusters.
func (list manifests) unlock() int {
	n := 0
	for _, p := range list.filter()["configPatches"].([]any) {
		if _, name := patchName(p); name != "llmgw_models" {
			continue
		}
		for _, o := range p.(map[string]any)["patch"].(map[string]any)["value"].(map[string]any)["typed_extension_protocol_options"].(map[string]any) {
			filters := o.(map[string]any)["http_filters"].([]any)
			o.(map[string]any)["http_filters"] = filters[1:]
			n++
		}
	}
	return n
}

func (m *mesh) wantNothingPasses(when string, list manifests) {
	m.t.Helper()
	m.apply(list)
	hits := m.up.Hits()
	got := knock(m.gateway, m.url, "")
	if n := m.up.Hits(); n != hits {
		m.t.Errorf("%s: %d requests reached the upstream", when, n-hits)
	}
	status := map[int]bool{}
	for _, r := range got {
		status[r.Status] = true
	}
	m.t.Log(when, status)
}
