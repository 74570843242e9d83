//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// schemathesisConfig joins a configuration of testdata with the hooks of the
// same name, which it must name by their absolute path.
func schemathesisConfig(t *testing.T, name string) string {
	t.Helper()
	from := filepath.Join("testdata", "schemathesis", name)
	text, err := os.ReadFile(from + ".toml")
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := filepath.Abs(from + ".py")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "schemathesis.toml")
	if err := os.WriteFile(config, append(fmt.Appendf(nil, "hooks = %q\n", hooks), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// TestPublicAPISchemathesis holds everything that is served on the public
// listener, the routes of models included, against the document: what it allows
// is accepted, what it does not is refused, and every answer is described.
func TestPublicAPISchemathesis(t *testing.T) {
	t.Parallel() // beside the other contract tests, which are slow on our side of the wire
	g := start(t, setup{demo: true})
	key := g.key("--rpm", "1000000")
	rig.Schemathesis(t, g.url+"/openapi.json", "--config-file", schemathesisConfig(t, "public"), "--header", "Authorization: Bearer "+key.Key,
		"--max-examples", "40", "--seed", "5", "--continue-on-failure")
	g.balanced()
}
