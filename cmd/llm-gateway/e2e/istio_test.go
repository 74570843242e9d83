//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// mesh is a site behind a gateway that Istio configures, and `serve` beside it.
type mesh struct {
	*existing
	istiod  *rig.Istiod
	admin   string    // Envoy's, a socket
	sidecar [2]string // where a sidecar outside of the pod has gRPC and HTTP
	applied int
}

// manifests are Kubernetes objects.
type manifests []map[string]any

func startMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{existing: prepareExisting(t)}
	m.istiod = rig.StartIstiod(t, &ports, m.dir)
	for n := range m.sidecar {
		addr, err := ports.Next()
		if err != nil {
			t.Fatal(err)
		}
		m.sidecar[n] = addr
	}
	m.admin = filepath.Join(m.dir, "admin.sock")
	config := rig.EnvoyConfig(m.read("istio-proxy.yaml")[0])
	var err error
	if m.envoy, err = rig.StartEnvoy(m.envoyBinary, m.dir, "proxy", config, 2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.envoy.Tail(25))
		}
		m.envoy.Kill()
	})
	return m
}

// read fills in what is only known now.
func (m *mesh) read(file string) manifests {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		m.t.Fatal(err)
	}
	return m.parse(strings.NewReplacer(
		"ADMIN_SOCKET", m.admin, "ISTIOD_PORT", portOf(m.t, m.istiod.GRPC), "GATEWAY_PORT", portOf(m.t, m.addr),
		"APP_PORT", portOf(m.t, m.app.Listener.Addr().String()), "MODELS_PORT", portOf(m.t, m.up.Addr()),
	).Replace(string(text)))
}

func (m *mesh) parse(text string) manifests {
	m.t.Helper()
	var list manifests
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		var object map[string]any
		if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
			m.t.Fatal(err)
		}
		if object != nil {
			list = append(list, object)
		}
	}
	return list
}

// printed are the manifests of envoy-config for the gateway's address.
func (m *mesh) printed(flags ...string) manifests {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	r, err := m.cli.Run(append([]string{"envoy-config", "--for", "istio", "--hostname", host, "--gateway-port", port}, flags...)...)
	if err != nil || r.Code != 0 || r.Stderr != "" {
		m.t.Fatalf("envoy-config: exit %d, %v\n%s", r.Code, err, r.Stderr)
	}
	return m.parse(r.Stdout)
}

// apply gives the site's manifests and these to istiod, and waits until Envoy has
// them all. Connections that are open may still meet what was before.
func (m *mesh) apply(list manifests) {
	m.t.Helper()
	m.applied++
	marker := fmt.Sprintf("applied-%d", m.applied)
	all := append(m.read("istio-site.yaml"), list...)
	all = append(all, m.parse(`{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: marker, namespace: istio-system}, spec: {configPatches: [
{applyTo: CLUSTER, match: {context: GATEWAY}, patch: {operation: ADD, value: {name: `+marker+`, type: STATIC, connect_timeout: 1s}}},
{applyTo: NETWORK_FILTER, match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}},
patch: {operation: MERGE, value: {name: envoy.filters.network.http_connection_manager, typed_config: {
"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, server_name: `+marker+`}}}},
{applyTo: ROUTE_CONFIGURATION, match: {context: GATEWAY}, patch: {operation: MERGE, value: {response_headers_to_add: [{header: {key: x-applied, value: `+marker+`}}]}}}]}}`)...)
	var out strings.Builder
	for _, object := range all {
		text, err := yaml.Marshal(object)
		if err != nil {
			m.t.Fatal(err)
		}
		out.WriteString("---\n" + string(text))
	}
	if err := m.istiod.Apply([]byte(out.String())); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("Envoy to have what was applied", func() bool {
		c := m.client(false)
		defer c.Close()
		return strings.Count(string(m.dump()), marker) >= 3 && c.Do(m.context(), rig.Request{Method: "GET", Path: "/nowhere"}).Header.Get("Server") == marker
	})
}

// dump is Envoy's whole configuration.
func (m *mesh) dump() []byte {
	m.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", m.admin)
	}}}
	req, err := http.NewRequestWithContext(m.context(), http.MethodGet, "http://admin/config_dump", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	r, err := client.Do(req)
	if err != nil {
		return nil // not there yet
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return text
}

// asStatic is what Istio made of the manifests as one configuration, which
// Envoy can check as a whole.
func (m *mesh) asStatic() []byte {
	m.t.Helper()
	dump := readDump(m.t, m.dump())
	if len(dump.listeners) != 1 || len(dump.routes) != 1 {
		m.t.Fatalf("%d listeners and %d route tables, want one of each", len(dump.listeners), len(dump.routes))
	}
	config := m.read("istio-proxy.yaml")[0]
	static := config["static_resources"].(map[string]any)
	for _, c := range dump.clusters {
		static["clusters"] = append(static["clusters"].([]any), c)
	}
	static["listeners"] = []any{dump.listeners[0]}
	dump.inline(managerOf(config))
	for _, key := range []string{"cds_config", "lds_config"} {
		delete(config["dynamic_resources"].(map[string]any), key)
	}
	whole, err := yaml.Marshal(config)
	if err != nil {
		m.t.Fatal(err)
	}
	return whole
}

func (m *mesh) valid() {
	m.t.Helper()
	config := m.asStatic()
	if err := envoy.Validate(m.t.Context(), m.envoyBinary, config); err != nil {
		m.t.Errorf("%v\n%s", err, config)
	}
}

// site asks for a page by the site's name.
func (m *mesh) site(path string) (status int, body string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.context(), http.MethodPost, m.url+path, strings.NewReader(string(rig.Chat{Model: "site"}.Body())))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Host = "site.example.com"
	req.Header.Set("X-Llmgw-Admit", "1")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

func (m *mesh) wantSite(when string) {
	m.t.Helper()
	if status, body := m.site("/app"); status != 200 || body != "app /app  1" { // its headers are its own business
		m.t.Errorf("%s: the site answers %d %q", when, status, body)
	}
}

// clone lets a test change manifests of its own.
func (list manifests) clone() manifests {
	out := make(manifests, len(list))
	for n, object := range list {
		out[n] = rig.EnvoyConfig(object).Clone()
	}
	return out
}

// filter is the spec of the EnvoyFilter.
func (list manifests) filter() map[string]any {
	for _, object := range list {
		if object["kind"] == "EnvoyFilter" {
			return object["spec"].(map[string]any)
		}
	}
	return nil
}

// drop takes patches out, as if they had matched nothing, and returns how many.
func (list manifests) drop(bad func(applyTo, name string) bool) int {
	spec := list.filter()
	var kept []any
	all := spec["configPatches"].([]any)
	for _, p := range all {
		if applyTo, name := patchName(p); !bad(applyTo, name) {
			kept = append(kept, p)
		}
	}
	spec["configPatches"] = kept
	return len(all) - len(kept)
}

func patchName(p any) (applyTo, name string) {
	m := p.(map[string]any)
	name, _ = m["patch"].(map[string]any)["value"].(map[string]any)["name"].(string)
	return m["applyTo"].(string), name
}
