//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// envoyGatewayVersion is the one that deploy/install-test-tools.sh installs.
const envoyGatewayVersion = "v1.9.1"

// envoyGateway is a real Envoy Gateway with its file provider, which runs the real
// Envoy, and `serve` beside it.
type envoyGateway struct {
	*existing
	control    *rig.Process
	manifests  []map[string]any // what envoy-config printed
	generation int
	folder     string // of everything that Envoy Gateway writes
}

// startEnvoyGateway prints the manifests and gives them to Envoy Gateway. It takes
// the fixed ports 18000, 18002 and 19003 (and 8081, when that is free): only one
// runs at a time.
func startEnvoyGateway(t *testing.T) *envoyGateway {
	t.Helper()
	binary := rig.GoTool(t, "envoy-gateway", envoyGatewayVersion)
	for _, port := range []string{"18000", "18002", "19003"} {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			t.Fatalf("Envoy Gateway needs port %s, which it cannot be told to leave: %v", port, err)
		}
		_ = l.Close()
	}
	s := &envoyGateway{existing: prepareExisting(t)}
	s.folder = filepath.Join(s.dir, "eg")
	pages, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	s.serveAt(pages)
	s.print(pages)
	s.configure()
	s.apply(nil)
	if _, err := s.command(binary, "certgen", "--local", "--config-home", s.folder).Wait(time.Minute); err != nil {
		t.Fatal(err)
	}
	s.control = s.command(binary, "server", "--config-path", filepath.Join(s.folder, "envoy-gateway.yaml"))
	s.applied("a model's route and both locks", "httproute/llm/llmgw-models/rule/0/match/0/*", "llmgw.lock", "RBACPerRoute", "request_body_buffer_limit")
	s.ready()
	return s
}

// serveAt starts the sidecar where the manifests look for it.
func (s *envoyGateway) serveAt(pages string) {
	s.proc = s.launch("serve", "--grpc", "unix://"+s.socket("extproc.sock"), "--http", pages)
}

// command runs a program that stops its own children when it is asked to stop.
func (s *envoyGateway) command(path string, args ...string) *rig.Process {
	s.t.Helper()
	p, err := rig.Start(rig.Spec{Name: "envoy-gateway", Path: path, Args: args, Dir: s.dir, Logs: s.dir, Env: rig.MinimalEnv("HOME=" + s.folder)})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Log(p.Tail(40))
		}
		_, _ = p.Stop(20 * time.Second)
		p.Kill()
	})
	return p
}

// print takes both forms of the manifests, which must be the same.
func (s *envoyGateway) print(pages string) {
	s.t.Helper()
	args := []string{
		"envoy-config", "--for", "envoy-gateway", "--gateway", "infra/public", "--namespace", "llm",
		"--grpc", "unix://" + s.socket("extproc.sock"), "--http", pages, "--upstream", s.up.URL,
	}
	r, err := s.cli.Run(args...)
	if err != nil || r.Code != 0 || r.Stderr != "" {
		s.t.Fatalf("envoy-config: exit %d, %v\n%s", r.Code, err, r.Stderr)
	}
	for text := range strings.SplitSeq(r.Stdout, "\n---\n") {
		var m map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &m); err != nil {
			s.t.Fatal(err)
		}
		s.manifests = append(s.manifests, m)
	}
	r, err = s.cli.Run(append(args, "--json")...)
	var list struct{ Items []map[string]any }
	if err != nil || r.Code != 0 || json.Unmarshal([]byte(r.Stdout), &list) != nil || fmt.Sprint(list.Items) != fmt.Sprint(s.manifests) {
		s.t.Errorf("--json does not hold what the YAML does: %v %d\n%s", err, r.Code, r.Stdout)
	}
}

// configure writes Envoy Gateway's own settings, and puts our Envoy where it would
// put one that it has fetched.
func (s *envoyGateway) configure() {
	s.t.Helper()
	bin := filepath.Join(s.folder, "envoy-versions", "1.40.0", "bin")
	for _, folder := range []string{bin, filepath.Join(s.folder, "resources")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Symlink(s.envoyBinary, filepath.Join(bin, "envoy")); err != nil {
		s.t.Fatal(err)
	}
	admin, err := ports.Next()
	if err != nil {
		s.t.Fatal(err)
	}
	host := map[string]any{"configHome": s.folder, "dataHome": s.folder, "stateHome": s.folder, "runtimeDir": filepath.Join(s.folder, "run")}
	s.write(filepath.Join(s.folder, "envoy-gateway.yaml"), map[string]any{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyGateway",
		"gateway":   map[string]any{"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
		"admin":     map[string]any{"address": map[string]any{"host": "127.0.0.1", "port": json.Number(portOf(s.t, admin))}},
		"telemetry": map[string]any{"metrics": map[string]any{"prometheus": map[string]any{"disable": true}}},
		"provider": map[string]any{"type": "Custom", "custom": map[string]any{
			"resource":       map[string]any{"type": "File", "file": map[string]any{"paths": []string{filepath.Join(s.folder, "resources")}}},
			"infrastructure": map[string]any{"type": "Host", "host": host},
		}},
		"extensionApis": map[string]any{"enableBackend": true, "enableEnvoyPatchPolicy": true},
	})
}

// write makes YAML documents of the objects; a reader never meets half of them.
func (s *envoyGateway) write(path string, objects ...map[string]any) {
	s.t.Helper()
	var texts []string
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			s.t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.WriteFile(hidden, []byte(strings.Join(texts, "---\n")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(hidden, path); err != nil {
		s.t.Fatal(err)
	}
}

// apply gives Envoy Gateway the site and the manifests, after a change of them. A
// route by which [envoyGateway.applied] knows this state goes with it.
func (s *envoyGateway) apply(change func(m map[string]any) (keep bool)) {
	s.t.Helper()
	s.generation++
	text, err := os.ReadFile("testdata/envoy-gateway.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	filled := strings.NewReplacer(
		"LISTEN_PORT", portOf(s.t, s.addr), "APP_PORT", portOf(s.t, s.app.Listener.Addr().String()), "GENERATION", fmt.Sprint(s.generation),
	).Replace(string(text))
	var all []map[string]any
	for doc := range strings.SplitSeq(filled, "\n---\n") {
		var m map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &m); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, m)
	}
	for _, m := range s.manifests {
		var copied map[string]any
		text, err := json.Marshal(m)
		if err != nil || json.Unmarshal(text, &copied) != nil {
			s.t.Fatal(err)
		}
		if copied["kind"] == "EnvoyProxy" { // this machine's Envoy, and no other
			specOf(copied)["provider"] = map[string]any{"type": "Host", "host": map[string]any{"envoyVersion": "1.40.0"}}
		}
		if change == nil || change(copied) {
			all = append(all, copied)
		}
	}
	s.write(filepath.Join(s.folder, "resources", "all.yaml"), all...)
}

func specOf(m map[string]any) map[string]any { return m["spec"].(map[string]any) }

// without leaves out objects by kind and name.
func without(objects ...string) func(map[string]any) bool {
	return func(m map[string]any) bool {
		name, _ := m["metadata"].(map[string]any)["name"].(string)
		return !slices.Contains(objects, fmt.Sprint(m["kind"], "/", name))
	}
}

// applied waits until Envoy runs with the last state, and with these words in its
// configuration; those that begin with ! must not be there.
func (s *envoyGateway) applied(what string, words ...string) {
	s.t.Helper()
	words = append(words, fmt.Sprintf("/generation/%d\"", s.generation), "!warming_state", "!error_state")
	s.within(time.Minute, what, func() bool {
		select {
		case <-s.control.Done():
			s.t.Fatalf("Envoy Gateway has ended:\n%s", s.control.Tail(40))
		default:
		}
		dump := s.running()
		for _, w := range words {
			wanted, absent := strings.CutPrefix(w, "!")
			if strings.Contains(dump, wanted) == absent {
				return false
			}
		}
		return dump != ""
	})
}

// running is the configuration that is in force for new connections.
func (s *envoyGateway) running() string {
	var dump struct{ Configs []map[string]any }
	if json.Unmarshal([]byte(s.dump()), &dump) != nil {
		return ""
	}
	for _, c := range dump.Configs {
		delete(c, "bootstrap") // it lists all that Envoy knows
		for _, l := range toList(c["dynamic_listeners"]) {
			delete(l.(map[string]any), "draining_state")
		}
	}
	text, err := json.Marshal(dump.Configs)
	if err != nil {
		return ""
	}
	return string(text)
}

// dump is the configuration that Envoy has from Envoy Gateway, "" while it is not
// there yet.
func (s *envoyGateway) dump() string {
	files, err := filepath.Glob(filepath.Join(s.folder, "run", "*", "admin-address.txt"))
	if err != nil || len(files) != 1 {
		return ""
	}
	at, err := os.ReadFile(files[0])
	if err != nil {
		return ""
	}
	r, err := http.Get("http://" + strings.TrimSpace(string(at)) + "/config_dump")
	if err != nil {
		return ""
	}
	defer func() { _ = r.Body.Close() }()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	return string(text)
}
