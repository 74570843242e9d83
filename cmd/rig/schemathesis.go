package rig

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// schemathesisPackages are what the checker of documented APIs needs.
//
//go:embed testdata/schemathesis.txt
var schemathesisPackages []byte

// Schemathesis checks a running API against its OpenAPI document: it asks what
// the document allows and what it does not, and compares the answers. The test
// fails, with its output, when it finds anything. args are those of
// `schemathesis run` beside the document, such as --header and --max-examples.
func Schemathesis(t *testing.T, documentURL string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	requirements := filepath.Join(dir, "requirements.txt")
	if err := os.WriteFile(requirements, schemathesisPackages, 0o600); err != nil {
		t.Fatal(err)
	}
	python := Python(t, requirements)
	// Its console script has the interpreter's path in it; the module has not.
	cmd := exec.CommandContext(t.Context(), python, append([]string{"-m", "schemathesis.cli", "run", documentURL, "--no-color"}, args...)...)
	cmd.Dir = dir // it keeps what it found in a folder of its own
	cmd.Env = MinimalEnv("PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("schemathesis: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
