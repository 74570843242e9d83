package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRunFolder_isOurs(t *testing.T) {
	data := filepath.Join(t.TempDir(), "d")
	f, err := newRunFolder(data)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(data, "run"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", info, err)
	}
	if !strings.HasSuffix(f.socket("x.sock"), "/run/x.sock") {
		t.Error(f.socket("x.sock"))
	}
}

func TestRunFolder_longPathsGetAShortOne(t *testing.T) {
	data := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	f, err := newRunFolder(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(f.path) })
	if len(f.file("envoy-admin.sock")) > maxSocketPath {
		t.Errorf("%s is too long for a socket", f.file("envoy-admin.sock"))
	}
	again, err := newRunFolder(data)
	if err != nil || again != f {
		t.Errorf("another start finds %v, %v", again, err)
	}
	if to, err := os.Readlink(filepath.Join(data, "run")); err != nil || to != f.path {
		t.Errorf("DATA/run leads to %s, %v", to, err)
	}
}

func TestRunFolder_refusesALinkLaidThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(t.TempDir(), filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	if _, err := newRunFolder(dir); err == nil {
		t.Error("a link to somewhere else was taken for our folder")
	}
}
