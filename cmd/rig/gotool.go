package rig

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// GoTool finds a Go program that deploy/install-test-tools.sh builds into the cache,
// in exactly this version. Where the machine has none the test is skipped, under
// CI=true it fails.
func GoTool(t testing.TB, name, version string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path, err := executable(filepath.Join(cache, "llm-gateway", "tools", name+"-"+version))
	if err != nil {
		Needed(t, name+" "+version+" is not here: deploy/install-test-tools.sh builds it")
	}
	return path
}

// GoModule is the folder of a module, of which files are read that no Go code
// imports: as name@version.
func GoModule(t testing.TB, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = t.TempDir() // the go.mod here has no say in it
	out, err := cmd.Output()
	var found struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &found); err != nil || jsonErr != nil || found.Dir == "" {
		Needed(t, module+" is not here, and cannot be had: "+found.Error)
	}
	return found.Dir
}
