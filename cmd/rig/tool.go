package rig

import (
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
	Needed(t, name+" is not here: deploy/install-test-tools.sh installs it")
	return ""
}
