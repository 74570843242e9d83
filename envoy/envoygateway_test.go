package envoy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

func goldenGateway(t *testing.T) GatewayAdditions {
	t.Helper()
	o := goldenOptions(t, goldenUpstreams["http"])
	o.ExtProc = []Endpoint{{socket: "/run/llmgw/extproc.sock"}}
	o.API = []Endpoint{{host: "sidecar.llm.svc.cluster.local", port: 9001}}
	return GatewayAdditions{Options: o, Namespace: "llm", Gateway: "public", GatewayNamespace: "infra", Section: "http"}
}

func goldenGateways(t *testing.T) map[string]GatewayAdditions {
	t.Helper()
	replicas := goldenGateway(t)
	replicas.ExtProc = []Endpoint{{host: "a.llm.svc.cluster.local", port: 9000}, {host: "b.llm.svc.cluster.local", port: 9000}}
	replicas.Upstream = Upstream{TLS: true, Host: "models.example.com", BasePath: "/openai/v1", Replicas: true}
	replicas.Hostnames = []string{"llm.example.com", "*.llm.example.com"}
	return map[string]GatewayAdditions{"envoy-gateway": goldenGateway(t), "envoy-gateway-replicas": replicas}
}

func TestGatewayAdditions_golden(t *testing.T) {
	for name, g := range goldenGateways(t) {
		wantGolden(t, name, g.YAML)
	}
}

// objectsOf reads the documents.
func objectsOf(t *testing.T, g GatewayAdditions) []map[string]any {
	t.Helper()
	documents, err := g.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	for text := range strings.SplitSeq(string(documents), "\n---\n") {
		var m map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

// TestGatewayAdditions_closed holds what the e2e tests prove on one shape for all:
// the route to the model server is the last object, its policies name it, the gate
// never fails open, and the lock is the first patch.
func TestGatewayAdditions_closed(t *testing.T) {
	for name, g := range goldenGateways(t) {
		objects := objectsOf(t, g)
		at := func(m map[string]any, path ...any) any {
			var v any = m
			for _, key := range path {
				switch key := key.(type) {
				case string:
					v = v.(map[string]any)[key]
				case int:
					v = v.([]any)[key]
				}
			}
			return v
		}
		last := objects[len(objects)-1]
		if at(last, "kind") != "HTTPRoute" || at(last, "metadata", "name") != gatewayModels {
			t.Errorf("%s: the last object is %v", name, last["metadata"])
		}
		found := map[string]bool{}
		for _, m := range objects {
			kind := m["kind"].(string)
			found[kind] = true
			switch kind {
			case "EnvoyExtensionPolicy":
				if at(m, "spec", "targetRefs", 0, "name") != gatewayModels || at(m, "spec", "extProc", 0, "failOpen") != false {
					t.Errorf("%s: the gate is %v", name, m["spec"])
				}
			case "SecurityPolicy":
				rule := fmt.Sprint(at(m, "spec", "authorization", "rules", 0))
				if at(m, "spec", "targetRefs", 0, "name") != gatewayModels || at(m, "spec", "authorization", "defaultAction") != "Deny" ||
					!strings.Contains(rule, "metadata.filter_metadata['llmgw']['admit'] == '1'") {
					t.Errorf("%s: the lock is %v", name, m["spec"])
				}
			case "EnvoyPatchPolicy":
				if at(m, "spec", "jsonPatches", 0, "operation", "value", "name") != addedLock {
					t.Errorf("%s: the first patch is %v", name, at(m, "spec", "jsonPatches", 0))
				}
			}
		}
		for _, kind := range []string{"EnvoyExtensionPolicy", "SecurityPolicy", "EnvoyPatchPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "EnvoyProxy"} {
			if !found[kind] {
				t.Errorf("%s: there is no %s", name, kind)
			}
		}
		if found["BackendTLSPolicy"] != g.Upstream.TLS {
			t.Errorf("%s: TLS %v, its policy %v", name, g.Upstream.TLS, found["BackendTLSPolicy"])
		}
	}
}

// TestGatewayAdditions_ownAuthority brings the certificates along: Envoy's pods do
// not have the file.
func TestGatewayAdditions_ownAuthority(t *testing.T) {
	g := goldenGateways(t)["envoy-gateway-replicas"]
	g.Upstream.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if _, err := g.YAML(); !errors.Is(err, ErrOptions) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(g.Upstream.CAFile, []byte("PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := g.YAML()
	if err != nil || !bytes.Contains(text, []byte("\ndata:\n  ca.crt: PEM\n")) || bytes.Contains(text, []byte("wellKnownCACertificates")) {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestGatewayAdditions_refusesBadOptions(t *testing.T) {
	for name, change := range map[string]func(*GatewayAdditions){
		"no Gateway":     func(g *GatewayAdditions) { g.Gateway = "" },
		"a quote":        func(g *GatewayAdditions) { g.Namespace = "a' || true || '" },
		"a pattern":      func(g *GatewayAdditions) { g.Section = "a.*|b" },
		"a path":         func(g *GatewayAdditions) { g.GatewayNamespace = "a/b" },
		"a bad hostname": func(g *GatewayAdditions) { g.Hostnames = []string{"*"} },
		"names and addresses": func(g *GatewayAdditions) {
			g.ExtProc = []Endpoint{{host: "a.llm.svc.cluster.local", port: 9000}, {host: "192.0.2.7", port: 9000}}
		},
		"no gate":           func(g *GatewayAdditions) { g.ExtProc = nil },
		"pages at a socket": func(g *GatewayAdditions) { g.API = []Endpoint{{socket: "/run/api.sock"}} },
		"a model's socket":  func(g *GatewayAdditions) { g.Upstream.SocketPath = "/run/model.sock" },
		"an upper case":     func(g *GatewayAdditions) { g.API = []Endpoint{{host: "Sidecar", port: 1}} },
		"TLS to an address": func(g *GatewayAdditions) { g.Upstream = Upstream{TLS: true, Host: "192.0.2.1"} },
		"no model server":   func(g *GatewayAdditions) { g.Upstream = Upstream{} },
		"a long time":       func(g *GatewayAdditions) { g.UpstreamTimeout = 200_000 * time.Hour },
	} {
		g := goldenGateway(t)
		change(&g)
		if text, err := g.YAML(); !errors.Is(err, ErrOptions) && !errors.Is(err, ErrUpstream) || text != nil {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: `"0s"`, time.Millisecond: `"1ms"`, 1500 * time.Millisecond: `"1s500ms"`, 300 * time.Second: `"300s"`,
		time.Hour: `"1h"`, 100_000 * time.Second: `"27h2800s"`, 90 * time.Minute: `"5400s"`,
	} {
		if got, err := json.Marshal(duration(d)); err != nil || string(got) != want {
			t.Errorf("%v: %s %v, want %s", d, got, err, want)
		}
	}
}
