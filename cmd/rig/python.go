package rig

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Python returns the interpreter of a virtual environment with the packages of
// a requirements file, which pins every one of them. It is made once and kept
// in the user's cache under a name that changes with the file's content.
// Test binaries that run at the same time wait for the one that makes it.
func Python(t *testing.T, requirements string) string {
	t.Helper()
	b, err := os.ReadFile(requirements)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	venv := filepath.Join(cache, "llm-gateway", "venv-"+hex.EncodeToString(sum[:8]))
	defer locked(t, venv+".lock")()
	binary, ready := filepath.Join(venv, "bin", "python"), filepath.Join(venv, ".ready")
	if _, err := os.Stat(ready); err == nil {
		return binary
	}
	for _, args := range [][]string{
		{"python3", "-m", "venv", "--clear", venv},
		{binary, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", requirements},
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

// locked holds a lock file against other processes until the result is called.
// The kernel drops the lock of a process that dies.
func locked(t *testing.T, path string) func() {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() }
}
