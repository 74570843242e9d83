package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Tool finds a program that deploy/install-test-tools.sh installs, also where
// Debian keeps the ones of administrators. Where the machine has none the test is
// skipped, under CI=true it fails.
func Tool(t testing.TB, name string) string {
	t.Helper()
	for _, at := range []string{name, filepath.Join("/usr/sbin", name), filepath.Join("/sbin", name)} {
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	needed(t, name+" is not here: deploy/install-test-tools.sh installs it")
	return ""
}

// CachedTool finds a Go program that deploy/install-test-tools.sh builds into the
// cache, its version in its name; see [Tool] for when there is none.
func CachedTool(t testing.TB, name string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path, err := executable(filepath.Join(cache, "llm-gateway", "tools", name))
	if err != nil {
		needed(t, name+" is not here: deploy/install-test-tools.sh installs it")
	}
	return path
}
