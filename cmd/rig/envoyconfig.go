package rig

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"sigs.k8s.io/yaml"
)

// EnvoyConfig is a rendered bootstrap that a test edits before it runs an
// Envoy of its own.
type EnvoyConfig map[string]any

// LoadEnvoyConfig reads the bootstrap that the product rendered.
func LoadEnvoyConfig(path string) (EnvoyConfig, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load Envoy config: %w", err)
	}
	var c EnvoyConfig
	if err := yaml.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("load Envoy config %s: %w", path, err)
	}
	return c, nil
}

// Clone returns a deep copy.
func (c EnvoyConfig) Clone() EnvoyConfig {
	b, err := yaml.Marshal(c)
	if err != nil {
		panic(err) // it came from YAML
	}
	var out EnvoyConfig
	if err := yaml.Unmarshal(b, &out); err != nil {
		panic(err)
	}
	return out
}

// Write stores the config for Envoy.
func (c EnvoyConfig) Write(path string) error {
	b, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// SetListen moves every listener (there is one) to another address.
func (c EnvoyConfig) SetListen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	static, _ := c["static_resources"].(map[string]any)
	if static == nil {
		static, _ = c["staticResources"].(map[string]any)
	}
	listeners, _ := static["listeners"].([]any)
	if len(listeners) == 0 {
		return fmt.Errorf("no listener in the Envoy config")
	}
	for _, l := range listeners {
		changed := 0
		walk(l.(map[string]any)["address"], func(m map[string]any) {
			for _, name := range []string{"port_value", "portValue"} {
				if _, ok := m[name]; ok {
					m["address"], m[name], changed = host, n, changed+1
				}
			}
		})
		if changed != 1 {
			return fmt.Errorf("a listener without one socket address in the Envoy config")
		}
	}
	return nil
}

// MovePipe lets every Unix socket whose file name is base point to path, and
// returns how many there were.
func (c EnvoyConfig) MovePipe(base, path string) int {
	n := 0
	walk(map[string]any(c), func(m map[string]any) {
		if pipe, ok := m["pipe"].(map[string]any); ok {
			if old, _ := pipe["path"].(string); filepath.Base(old) == base {
				pipe["path"], n = path, n+1
			}
		}
	})
	return n
}

// RemoveHTTPFilter takes an HTTP filter of a type (for example
// "envoy.extensions.filters.http.rbac.v3.RBAC") out of the chain, with its
// per-route settings, and returns how many filters it took. With names it takes
// those of them only.
func (c EnvoyConfig) RemoveHTTPFilter(typ string, only ...string) int {
	names := map[string]bool{}
	n := 0
	for _, key := range []string{"http_filters", "httpFilters"} {
		walk(map[string]any(c), func(m map[string]any) {
			list, ok := m[key].([]any)
			if !ok {
				return
			}
			var kept []any
			for _, f := range list {
				name, _ := f.(map[string]any)["name"].(string)
				if hasType(f, typ) && (len(only) == 0 || slices.Contains(only, name)) {
					names[name], n = true, n+1
					continue
				}
				kept = append(kept, f)
			}
			m[key] = kept
		})
	}
	for _, key := range []string{"typed_per_filter_config", "typedPerFilterConfig"} {
		walk(map[string]any(c), func(m map[string]any) {
			if per, ok := m[key].(map[string]any); ok {
				for name := range names {
					delete(per, name)
				}
			}
		})
	}
	return n
}

func hasType(filter any, typ string) bool {
	m, _ := filter.(map[string]any)
	for _, key := range []string{"typed_config", "typedConfig"} {
		if typed, ok := m[key].(map[string]any); ok && typed["@type"] == "type.googleapis.com/"+typ {
			return true
		}
	}
	return false
}

// walk calls visit for every object in v, parents first.
func walk(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(v)
		for _, child := range v {
			walk(child, visit)
		}
	case []any:
		for _, child := range v {
			walk(child, visit)
		}
	}
}

// StartEnvoy writes the config into dir and runs an Envoy with it.
func StartEnvoy(binary, dir, name string, c EnvoyConfig, concurrency int) (*Process, error) {
	path := filepath.Join(dir, name+".yaml")
	if err := c.Write(path); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	return Start(Spec{
		Name: name, Path: binary, Dir: dir, Logs: dir,
		Args: []string{"-c", path, "--disable-hot-restart", "--concurrency", strconv.Itoa(concurrency)},
	})
}
