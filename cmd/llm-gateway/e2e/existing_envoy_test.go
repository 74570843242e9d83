//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// existing is an Envoy with a configuration of its own, an application behind it,
// and `serve` beside it.
type existing struct {
	*gateway
	app  *httptest.Server
	hits atomic.Int64 // of the application
}

// startExisting adds what envoy-config prints to the site's configuration. Without
// flags it names the cluster of the models that the site has.
func startExisting(t *testing.T, flags ...string) *existing {
	t.Helper()
	s := prepareExisting(t)
	s.runServe()
	s.envoy = s.runEnvoy("site", s.merged(flags...), s.addr)
	s.ready()
	return s
}

func prepareExisting(t *testing.T) *existing {
	t.Helper()
	s := &existing{gateway: prepare(t, setup{})}
	s.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		if r.URL.Path == "/app/fails" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "app %s %s %s", r.URL.Path, r.Header.Get("X-Site"), r.Header.Get("X-Llmgw-Admit"))
	}))
	t.Cleanup(s.app.Close)
	return s
}

// merged is the site's configuration with the additions, which Envoy accepts.
func (s *existing) merged(flags ...string) rig.EnvoyConfig {
	s.t.Helper()
	if len(flags) == 0 {
		flags = []string{"--cluster", "models"}
	}
	r, err := s.cli.Run(append([]string{"envoy-config", "--for", "static"}, flags...)...)
	if err != nil || r.Code != 0 || r.Stderr != "" {
		s.t.Fatalf("envoy-config: exit %d, %v\n%s", r.Code, err, r.Stderr)
	}
	var additions map[string]any
	if err := yaml.UnmarshalStrict([]byte(r.Stdout), &additions); err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/existing-envoy.yaml")
	if err != nil {
		s.t.Fatal(err)
	}
	filled := strings.NewReplacer(
		"ADMIN_SOCKET", filepath.Join(s.dir, "admin.sock"),
		"APP_PORT", portOf(s.t, s.app.Listener.Addr().String()), "MODELS_PORT", portOf(s.t, s.up.Addr()),
	).Replace(string(text))
	var config map[string]any
	if err := yaml.UnmarshalStrict([]byte(filled), &config); err != nil {
		s.t.Fatal(err)
	}
	addTo(s.t, config, additions)
	whole, err := yaml.Marshal(config)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := envoy.Validate(s.t.Context(), s.envoyBinary, whole); err != nil {
		s.t.Fatalf("%v\n%s", err, whole)
	}
	return config
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// addTo does what the comments of the document tell a person to do.
func addTo(t *testing.T, config, additions map[string]any) {
	t.Helper()
	static := config["static_resources"].(map[string]any)
	manager := managerOf(config)
	for key, value := range additions {
		switch key {
		case "layered_runtime":
			merge(config, map[string]any{key: value})
		case "clusters":
			static[key] = append(static[key].([]any), value.([]any)...)
		case "http_connection_manager":
			merge(manager, value.(map[string]any))
		case "http_filters":
			theirs := manager[key].([]any)
			last := len(theirs) - 1
			manager[key] = append(append(append([]any{}, theirs[:last]...), value.([]any)...), theirs[last])
		case "routes":
			merge(hostOf(config), map[string]any{key: value})
		default:
			t.Fatalf("nobody knows where %s goes", key)
		}
	}
}

// managerOf is the listener's http_connection_manager, hostOf its virtual host.
func managerOf(config map[string]any) map[string]any {
	listener := config["static_resources"].(map[string]any)["listeners"].([]any)[0].(map[string]any)
	filters := listener["filter_chains"].([]any)[0].(map[string]any)["filters"].([]any)
	return filters[0].(map[string]any)["typed_config"].(map[string]any)
}

func hostOf(config map[string]any) map[string]any {
	return managerOf(config)["route_config"].(map[string]any)["virtual_hosts"].([]any)[0].(map[string]any)
}

// merge sets the fields of from, and puts its lists before those that are there.
func merge(to, from map[string]any) {
	for key, value := range from {
		switch value := value.(type) {
		case map[string]any:
			there, ok := to[key].(map[string]any)
			if !ok {
				there = map[string]any{}
				to[key] = there
			}
			merge(there, value)
		case []any:
			there, _ := to[key].([]any)
			to[key] = append(append([]any{}, value...), there...)
		default:
			to[key] = value
		}
	}
}
