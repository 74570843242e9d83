package envoy

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestLineageArguments(t *testing.T) {
	l := lineage{baseID: 7}.next()
	want := []string{
		"--base-id", "7", "--restart-epoch", "1", "--socket-path", "/r/hot", "--socket-mode", "600", "--skip-hot-restart-parent-stats",
		"--drain-strategy", "immediate", "--drain-time-s", "3", "--parent-shutdown-time-s", "11",
	}
	if diff := cmp.Diff(want, l.arguments("/r", 2100*time.Millisecond)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if args := l.arguments("/r", 0); args[slices.Index(args, "--drain-time-s")+1] != "1" {
		t.Errorf("no drain time: %q", args)
	}
	if got := (lineage{baseID: 7, epoch: 5}).parentSocket("/r"); got != "/r/hot_parent_72" {
		t.Errorf("the socket of epoch 5: %s", got)
	}
}

// Envoy computes with signed 32 bits.
func TestLineageNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_ = rapid.Bool().Draw(t, "again")
		if id := newLineage().baseID; id < 1 || int64(id)*10+maxEpochs > 1<<31-1 {
			t.Fatalf("base id %d", id)
		}
	})
}

func TestSweepLineages(t *testing.T) {
	run, shared := t.TempDir(), t.TempDir()
	for _, name := range []string{"hot_parent_120", "hot_udp_child_121", "hot_parent_nothing", "hot_9", "envoy.yaml", "hotel_120"} {
		write(t, filepath.Join(run, name), nil)
	}
	for _, name := range []string{"envoy_shared_memory_120", "envoy_shared_memory_130", "other"} {
		write(t, filepath.Join(shared, name), nil)
	}
	sweepLineages(run, shared)
	sweepLineages(filepath.Join(run, "none"), shared)
	if diff := cmp.Diff([]string{"envoy.yaml", "hot_parent_nothing", "hotel_120"}, names(t, run)); diff != "" {
		t.Errorf("run folder (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"envoy_shared_memory_130", "other"}, names(t, shared)); diff != "" {
		t.Errorf("shared memory (-want +got):\n%s", diff)
	}
}

func TestForgetStart(t *testing.T) {
	memory := func(size, version, flags uint64) []byte {
		b := make([]byte, 104)
		for at, v := range map[int]uint64{0: size, 8: version, 96: flags} {
			binary.NativeEndian.PutUint64(b[at:], v)
		}
		b[40] = 0x90
		return b
	}
	path := filepath.Join(t.TempDir(), "m")
	for name, c := range map[string]struct {
		content []byte
		version string
		ok      bool
	}{
		"a start":         {memory(104, 11, 1), "11.104", true},
		"none":            {memory(104, 11, 0), "11.104", true},
		"another program": {memory(104, 11, 1), "12.104", false},
		"another size":    {memory(112, 11, 1), "11.104", false},
		"another version": {memory(104, 12, 1), "11.104", false},
		"other flags":     {memory(104, 11, 3), "11.104", false},
		"too short":       {memory(104, 11, 1)[:103], "11.104", false},
		"too long":        {append(memory(104, 11, 1), 0), "11.104", false},
	} {
		write(t, path, c.content)
		err := forgetStart(path, c.version)
		after, _ := os.ReadFile(path)
		want := c.content
		if c.ok {
			want = memory(104, 11, 0)
		}
		if (err == nil) != c.ok || !errors.Is(err, ErrNoHotRestart) != c.ok || !cmp.Equal(want, after) {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(want, after))
		}
	}
	if err := forgetStart(path+"-none", "11.104"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no shared memory: %v", err)
	}
}

func TestSilentSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	former, err := silentSocket(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = former.Close() }()
	silent, err := silentSocket(path) // in the place of one that is there
	if err != nil {
		t.Fatal(err)
	}
	tell := func() error {
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte("end"))
		return err
	}
	if err := tell(); err != nil {
		t.Errorf("it does not take a message: %v", err)
	}
	if err := silent.Close(); err != nil {
		t.Error(err)
	}
	if err := tell(); err == nil {
		t.Error("it takes messages after its end")
	}
}

func TestHotRestartVersion(t *testing.T) {
	dir := t.TempDir()
	good := program(t, filepath.Join(dir, "good"), `[ "$1" = --hot-restart-version ] && printf 11.104 >&2`)
	if v, err := hotRestartVersion(context.Background(), good); v != "11.104" || err != nil {
		t.Errorf("%q %v", v, err)
	}
	for name, script := range map[string]string{"bad": "echo 1.2; exit 1", "mute": "", "other": "echo hello"} {
		if v, err := hotRestartVersion(context.Background(), program(t, filepath.Join(dir, name), script)); !errors.Is(err, ErrNoHotRestart) {
			t.Errorf("%s: %q %v", name, v, err)
		}
	}
}

func TestCanShareMemory(t *testing.T) {
	dir := t.TempDir()
	if err := canShareMemory(dir); err != nil || len(names(t, dir)) != 0 {
		t.Errorf("%v, left %q", err, names(t, dir))
	}
	if err := canShareMemory(filepath.Join(dir, "none")); !errors.Is(err, ErrNoHotRestart) {
		t.Errorf("no folder: %v", err)
	}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		list = append(list, f.Name())
	}
	return list
}
