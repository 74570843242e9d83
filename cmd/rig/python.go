package rig

import (
	"crypto/sha256"
	_ "embed" // the pinned packages
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Python returns the interpreter of a virtual environment with the packages of
// a pip requirements text, made once and kept in the cache under the text's hash.
func Python(t *testing.T, requirements string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(requirements))
	venv := filepath.Join(cache, "llm-gateway", "e2e-venv-"+hex.EncodeToString(sum[:8]))
	binary, ready := filepath.Join(venv, "bin", "python"), filepath.Join(venv, ".ready")
	if _, err := os.Stat(ready); err == nil {
		return binary
	}
	list := filepath.Join(t.TempDir(), "requirements.txt")
	if err := os.WriteFile(list, []byte(requirements), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", venv},
		{binary, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", list},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return binary
}

//go:embed testdata/schemathesis.txt
var schemathesisPackages string

// Schemathesis tests the server of an OpenAPI document against it, and fails
// the test with what it found. "--config-file" and its value go first among the
// arguments. It runs in a folder of its own, in which it leaves its cache.
func Schemathesis(t *testing.T, documentURL string, args ...string) {
	t.Helper()
	python := Python(t, schemathesisPackages)
	var call []string
	if len(args) > 1 && args[0] == "--config-file" { // of the program, not of its command
		call, args = args[:2], args[2:]
	}
	call = slices.Concat(call, []string{"run", documentURL}, args)
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(python), "schemathesis"), call...)
	cmd.Dir, cmd.Env = t.TempDir(), MinimalEnv("NO_COLOR=1", "PYTHONUNBUFFERED=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("schemathesis: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
