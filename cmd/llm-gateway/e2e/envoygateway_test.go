//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// TestEnvoyGateway gives the manifests that envoy-config prints to a real Envoy
// Gateway, which runs the real Envoy by them. Starting the two takes longer than
// all that follows, so there is one pair for every part.
func TestEnvoyGateway(t *testing.T) {
	s := startEnvoyGateway(t)
	key := s.key()
	s.wantAllAccepted()
	s.translatedIsValid()

	hits := s.up.Hits()
	s.refusesStrangers(key.Key, &hits)
	s.wantApp("with the sidecar")
	s.checkListener(0, "", "--key-file", s.keyFile(key.Key))
	if report := s.balanced(); report.Charges != 0 {
		t.Errorf("%d charges for refused requests", report.Charges)
	}
	s.metersModels(key)

	hits = s.up.Hits()
	pages := s.pagesAt()
	s.proc.Kill()
	wantClosed(t, "killed", knock(s.gateway, s.url, key.Key))
	s.nothingNew("killed", &hits)
	s.wantApp("without the sidecar")
	s.checkListener(0, "")
	s.closesOnSilence(t, s.socket("extproc.sock"))

	s.apply(without("EnvoyPatchPolicy/llmgw"))
	s.applied("no patches", "!llmgw.lock", "RBACPerRoute")
	s.closesOnSilence(t, s.socket("extproc.sock"))
	s.apply(without("SecurityPolicy/llmgw-lock"))
	s.applied("no lock's policy", "llmgw.lock", "!RBACPerRoute")
	s.closesOnSilence(t, s.socket("extproc.sock"))
	s.apply(without("SecurityPolicy/llmgw-lock", "EnvoyPatchPolicy/llmgw"))
	s.applied("no lock at all", "!llmgw.lock", "!RBACPerRoute", "llmgw-gate")
	side := s.silent(t, s.socket("extproc.sock"), rig.RequestHeaders)
	before := s.up.Hits()
	knock(s.gateway, s.url, "")
	if s.up.Hits() == before {
		t.Error("no request reached the upstream without the locks: the lock tests prove nothing")
	}
	side.Close()

	s.serveAt(pages)
	s.ready()
	s.leaks(key.Key)
	s.apply(nil)
	s.applied("everything", "llmgw.lock", "RBACPerRoute", "llmgw-gate/extproc/0")
	s.eventually("the sidecar to be used again", func() bool {
		return s.client(false).Do(s.context(), rig.Request{Key: key.Key, Body: rig.Chat{Model: "back", MaxTokens: 10}.Body()}).SawEnd()
	})
	s.checkListener(0, "", "--key-file", s.keyFile(key.Key))
	s.balanced()
}

// leaks takes parts of the manifests out: the check from outside names what gets
// in, and nothing does while one lock is left. Without gate and patches what closes
// speaks Envoy's words and not ours.
func (s *envoyGateway) leaks(key string) {
	const onlyKey = "1 of 10 did not go as they must: valid key ("
	spoil := func(kind string, change func(spec map[string]any)) func(map[string]any) bool {
		return func(m map[string]any) bool {
			if m["kind"] == kind {
				change(specOf(m))
			}
			return true
		}
	}
	for name, c := range map[string]struct {
		change func(map[string]any) bool
		words  []string
		want   string
	}{
		"patches gone":                       {without("EnvoyPatchPolicy/llmgw"), []string{"!llmgw.lock"}, ""},
		"the policies gone":                  {without("EnvoyExtensionPolicy/llmgw-gate", "SecurityPolicy/llmgw-lock"), []string{"!llmgw-gate", "!RBACPerRoute"}, onlyKey},
		"the gate's policy and patches gone": {without("EnvoyExtensionPolicy/llmgw-gate", "EnvoyPatchPolicy/llmgw"), []string{"!llmgw-gate", "!llmgw.lock", "RBACPerRoute"}, "10 of 10 did not go as they must: no key; "},
		"the gate's policy refused": {spoil("EnvoyExtensionPolicy", func(spec map[string]any) {
			spec["extProc"].([]any)[0].(map[string]any)["backendRefs"].([]any)[0].(map[string]any)["name"] = "nobody"
		}), []string{"!llmgw-gate", "\"status\":500"}, onlyKey},
		"the lock's policy refused": {spoil("SecurityPolicy", func(spec map[string]any) {
			spec["authorization"].(map[string]any)["rules"].([]any)[0].(map[string]any)["cel"] = "metadata."
		}), []string{"\"status\":500"}, onlyKey},
	} {
		s.apply(c.change)
		s.applied(name, c.words...)
		hits := s.up.Hits()
		s.checkListener(min(len(c.want), 1), c.want, "--key-file", s.keyFile(key))
		if c.want == "" {
			hits++ // the one with a key
			s.refusesWebSocket(name, key)
		}
		s.nothingNew(name, &hits)
	}
	s.apply(spoil("EnvoyExtensionPolicy", func(spec map[string]any) { spec["failsOpen"] = true }))
	s.eventually("Envoy Gateway to refuse a field that it does not know", func() bool {
		return strings.Contains(s.control.Stdout()+s.control.Stderr(), "spec.failsOpen: Invalid value: value provided for unknown field")
	})
	s.apply(without("EnvoyExtensionPolicy/llmgw-gate", "SecurityPolicy/llmgw-lock", "EnvoyPatchPolicy/llmgw"))
	s.applied("neither gate nor lock", "!llmgw-gate", "!RBACPerRoute", "!llmgw.lock")
	hits := s.up.Hits()
	s.checkListener(1, "no key; unknown key; ")
	if s.up.Hits() == hits {
		s.t.Error("with neither gate nor lock nothing reached the upstream: the checks prove nothing")
	}
}

// refusesWebSocket asks with a valid key: it may be left waiting, and not let in.
func (s *envoyGateway) refusesWebSocket(when, key string) {
	s.t.Helper()
	upgrade := "GET /v1/models HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer " + key + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	w, err := rig.SendH1(s.addr, []byte(upgrade), time.Second)
	if w.Status == http.StatusSwitchingProtocols || w.Status == http.StatusOK {
		s.t.Errorf("%s: a WebSocket: %d %v", when, w.Status, err)
	}
}

// wantAllAccepted reads what Envoy Gateway writes to the status of every object.
func (s *envoyGateway) wantAllAccepted() {
	s.t.Helper()
	log := s.control.Stdout() + s.control.Stderr()
	for _, m := range regexp.MustCompile(`(?s)message: ([^\n]*)\n[^:]*reason: (\w+)\n\s*status: "False"`).FindAllStringSubmatch(log, -1) {
		if m[2] != "AddressNotAssigned" { // this Gateway is a process of the test's
			s.t.Errorf("%s: %s", m[2], m[1])
		}
	}
	for _, kind := range []string{"EnvoyExtensionPolicy", "SecurityPolicy", "BackendTrafficPolicy", "ClientTrafficPolicy", "EnvoyPatchPolicy", "HTTPRoute", "Backend"} {
		if !strings.Contains(log, "Got new status for "+kind) {
			s.t.Errorf("Envoy Gateway says nothing of the %s", kind)
		}
	}
	if !strings.Contains(log, "reason: Programmed") {
		s.t.Error("the patches are not programmed")
	}
}

// wantApp checks that what the site served before is as it was.
func (s *envoyGateway) wantApp(when string) {
	s.t.Helper()
	for _, path := range []string{"/", "/app"} {
		if r := s.get(path, http.Header{"X-Llmgw-Admit": {"1"}}); r.Status != 200 || string(r.Body) != "app "+path+"  1" {
			s.t.Errorf("%s: %s: %d %q %v", when, path, r.Status, r.Body, r.Err)
		}
	}
}

// pagesAt is where the manifests say that the sidecar's pages are.
func (s *envoyGateway) pagesAt() string {
	s.t.Helper()
	for _, m := range s.manifests {
		if m["kind"] == "Backend" && m["metadata"].(map[string]any)["name"] == "llmgw-pages" {
			ip := specOf(m)["endpoints"].([]any)[0].(map[string]any)["ip"].(map[string]any)
			port, err := json.Marshal(ip["port"])
			if err != nil {
				s.t.Fatal(err)
			}
			return ip["address"].(string) + ":" + string(port)
		}
	}
	s.t.Fatal("there is no Backend of the pages")
	return ""
}

// translatedIsValid makes a static configuration of what Envoy Gateway has sent to
// Envoy, and has Envoy read it.
func (s *envoyGateway) translatedIsValid() {
	s.t.Helper()
	dump := readDump(s.t, []byte(s.dump()))
	for _, l := range dump.listeners {
		for _, chain := range chainsOf(l) {
			dump.inline(chain["filters"].([]any)[0].(map[string]any)["typed_config"].(map[string]any))
		}
	}
	for _, c := range dump.clusters {
		delete(c, "eds_cluster_config")
		c["type"] = "STATIC"
		c["load_assignment"] = map[string]any{"cluster_name": c["name"]}
	}
	text, err := yaml.Marshal(map[string]any{
		"layered_runtime": dump.bootstrap["layered_runtime"], "static_resources": map[string]any{"listeners": dump.listeners, "clusters": dump.clusters},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, want := range []string{"llmgw.lock", "ext_proc_graceful_grpc_close: true", "allowed_override_modes", "llmgw.strip", "HeaderMutationPerRoute", "gateway_unavailable"} {
		if !strings.Contains(string(text), want) {
			s.t.Errorf("%s is not in what Envoy got", want)
		}
	}
	if err := envoy.Validate(s.t.Context(), s.envoyBinary, text); err != nil {
		s.t.Errorf("what Envoy Gateway makes of the manifests: %v", err)
	}
}

func chainsOf(listener map[string]any) []map[string]any {
	var list []map[string]any
	for _, chain := range append([]any{listener["default_filter_chain"]}, toList(listener["filter_chains"])...) {
		if chain, ok := chain.(map[string]any); ok {
			list = append(list, chain)
		}
	}
	return list
}

func toList(v any) []any { list, _ := v.([]any); return list }
