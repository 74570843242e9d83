package envoy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// program writes a shell script that stands for an Envoy.
func program(t *testing.T, dir, script string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "envoy")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func says(version string) string {
	return `echo; echo "envoy  version: 0123abcd/` + version + `/Clean/RELEASE/BoringSSL"; echo`
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Dir(program(t, filepath.Join(dir, "old"), says("1.39.4")))
	minor := filepath.Dir(program(t, filepath.Join(dir, "minor"), says("1.40.7")))
	dev := filepath.Dir(program(t, filepath.Join(dir, "dev"), says("1.41.0-dev")))
	major := filepath.Dir(program(t, filepath.Join(dir, "major"), says("2.0.0")))
	other := filepath.Dir(program(t, filepath.Join(dir, "other"), "echo some other envoy 7.1"))
	fails := filepath.Dir(program(t, filepath.Join(dir, "fails"), says("1.40.0")+"; exit 3"))
	cache := filepath.Join(dir, "cache")
	cached := program(t, filepath.Dir(CachePath(cache)), says("1.40.0"))
	list := func(dirs ...string) string { return strings.Join(dirs, string(filepath.ListSeparator)) }

	for name, c := range map[string]struct{ explicit, path, cache, want, version string }{
		"explicit wins":     {filepath.Join(minor, "envoy"), dev, cache, filepath.Join(minor, "envoy"), "1.40.7"},
		"path before cache": {"", minor, cache, filepath.Join(minor, "envoy"), "1.40.7"},
		"older is skipped":  {"", list(old, other, fails, dir, dev), cache, filepath.Join(dev, "envoy"), "1.41.0"},
		"next major":        {"", major, "", filepath.Join(major, "envoy"), "2.0.0"},
		"cache":             {"", list("", old), cache, cached, "1.40.0"},
	} {
		b, err := Find(c.explicit, c.path, c.cache)
		if err != nil || b.Path != c.want || b.Version != c.version {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
	for name, c := range map[string]struct{ explicit, path, cache, hint string }{
		"nothing":           {"", "", "", "make build"},
		"explicit too old":  {filepath.Join(old, "envoy"), minor, cache, "older than"},
		"explicit missing":  {filepath.Join(dir, "none"), minor, cache, filepath.Join(dir, "none")},
		"explicit a folder": {minor, minor, cache, "not an executable"},
		"only old ones":     {"", old, dir, "1.39.4"},
	} {
		if b, err := Find(c.explicit, c.path, c.cache); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}

func TestDeathCount(t *testing.T) {
	var d deathCount
	const quick, short, long = 0, 2 * time.Second, 11 * time.Second
	for i, c := range []struct {
		lived, wait time.Duration
		giveUp      bool
	}{
		{quick, 100 * time.Millisecond, false},
		{quick, 200 * time.Millisecond, false},
		{quick, 400 * time.Millisecond, false},
		{quick, 800 * time.Millisecond, false},
		{short, 1600 * time.Millisecond, false}, // the row is broken, the back-off goes on
		{quick, 3200 * time.Millisecond, false},
		{short, 5 * time.Second, false},
		{short, 5 * time.Second, false},
		{long, 100 * time.Millisecond, false}, // it was healthy
		{quick, 200 * time.Millisecond, false},
		{quick, 400 * time.Millisecond, false},
		{quick, 800 * time.Millisecond, false},
		{quick, 1600 * time.Millisecond, false},
		{quick, 3200 * time.Millisecond, true},
	} {
		if wait, giveUp := d.next(c.lived); wait != c.wait || giveUp != c.giveUp {
			t.Errorf("death %d: wait %v, give up %v", i, wait, giveUp)
		}
	}
}

func TestLineWriter(t *testing.T) {
	var writes []string
	w := &lineWriter{
		to:  writerFunc(func(p []byte) { writes = append(writes, string(p)) }),
		now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.FixedZone("", 3600)) },
	}
	wrapped := func(text string) string {
		return `{"level":"warning","logger":"envoy","msg":"` + text + `","ts":"2026-01-02T02:04:05.006Z"}` + "\n"
	}
	long := strings.Repeat("x", maxLine)
	for _, part := range []string{`{"a"`, ":1}\n{\"b\": 2}\n{c", "", " \"d\"\n\n", long, "f"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	w.flush()
	w.flush()
	want := []string{"{\"a\":1}\n{\"b\": 2}\n", wrapped(`{c \"d\"`), wrapped(long), wrapped("f")}
	if diff := cmp.Diff(want, writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	for i := range 100 {
		_, _ = w.Write([]byte(strconv.Itoa(i) + "\n"))
	}
	if tail := w.lines(); len(tail) != tailSize || tail[tailSize-1] != "99" {
		t.Errorf("tail %q", tail)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

func TestReasonOf(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{nil, "it said nothing"},
		{[]string{`{"level":"info","msg":"hello"}`, ""}, "hello"},
		{[]string{`{"level":"info","msg":"hello"}`, "plain words"}, "plain words"},
		{[]string{`{"level":"critical","msg":"it broke"}`, "plain", `{"level":"info","msg":"exiting"}`}, "it broke"},
		{[]string{"1", "2", "3", "4"}, "2; 3; 4"},
	} {
		if got := reasonOf(c.lines); got != c.want {
			t.Errorf("%q: %q", c.lines, got)
		}
	}
}

func TestIsOurEnvoy(t *testing.T) {
	const dir = "/data/run"
	for line, want := range map[string]bool{
		"/opt/envoy --config-path /data/run/envoy.yaml --log-level warning": true,
		"/bin/sh /opt/envoy --config-path /data/run/envoy.yaml":             true,
		"/opt/envoy --config-path /data/run2/envoy.yaml":                    false,
		"/opt/envoy --config-path /data/run/sub/envoy.yaml":                 false,
		"/opt/envoy --config-path":                                          false,
		"/opt/envoy":                                                        false,
		"vi x y --config-path /data/run/envoy.yaml":                         false,
		"": false,
	} {
		if got := isOurEnvoy(strings.Fields(line), dir); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func TestListeningAddresses(t *testing.T) {
	o := goldenOptions(t, "http://127.0.0.1:8080")
	for listen, want := range map[string]string{"0.0.0.0:12000": "0.0.0.0:12000", "[::1]:9": "[::1]:9"} {
		o.Listen = listen
		b, err := Bootstrap(o)
		if err != nil {
			t.Fatal(err)
		}
		y, err := RenderYAML(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{want}, listeningAddresses(y)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", listen, diff)
		}
	}
	if got := listeningAddresses([]byte("{")); got != nil {
		t.Errorf("broken YAML: %q", got)
	}
}

// runDir has a configuration that listens at address.
func runDir(t *testing.T, address string) (dir, config string) {
	t.Helper()
	dir = t.TempDir()
	o := goldenOptions(t, "http://127.0.0.1:8080")
	o.Listen = address
	b, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	y, err := RenderYAML(b)
	if err != nil {
		t.Fatal(err)
	}
	config = filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(config, y, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, config
}

func TestSuperviseGivesUp(t *testing.T) {
	dir, config := runDir(t, "127.0.0.1:1")
	starts := filepath.Join(dir, "starts")
	fake := program(t, filepath.Join(dir, "bin"), "echo >>"+starts+`; echo '{"level":"critical","msg":"bad \"luck\""}' >&2; exit 7`)
	err := Supervise(context.Background(), RunOptions{Binary: fake, ConfigPath: config, RunDir: dir})
	if !errors.Is(err, ErrDies) || !strings.Contains(err.Error(), `bad "luck"`) || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("error %v", err)
	}
	if n, _ := os.ReadFile(starts); len(n) != maxQuickDeaths {
		t.Errorf("%d starts", len(n))
	}
	if _, err := os.Stat(pidPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file stays: %v", err)
	}
}

func TestSuperviseSaysAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir, config := runDir(t, l.Addr().String())
	fake := program(t, filepath.Join(dir, "bin"), "echo started >"+filepath.Join(dir, "started")+"; exec sleep 60")
	err = Supervise(context.Background(), RunOptions{Binary: fake, ConfigPath: config, RunDir: dir})
	if !errors.Is(err, ErrAddressInUse) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "started")); err == nil {
		t.Error("it was started all the same")
	}
}

func TestSuperviseInsists(t *testing.T) {
	dir, config := runDir(t, "127.0.0.1:1")
	ready := filepath.Join(dir, "ready")
	fake := program(t, filepath.Join(dir, "bin"), "trap '' TERM; echo >"+ready+"; while :; do sleep 0.1; done")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Supervise(ctx, RunOptions{Binary: fake, ConfigPath: config, RunDir: dir, Stderr: new(bytes.Buffer)})
	}()
	waitForFile(t, ready)
	waitForFile(t, pidPath(dir))
	if err := Supervise(ctx, RunOptions{Binary: fake, ConfigPath: config, RunDir: dir}); !errors.Is(err, ErrRunning) {
		t.Errorf("a second supervisor: %v", err)
	}
	if err := EndStale(dir, nil); !errors.Is(err, ErrRunning) {
		t.Errorf("ending a supervised Envoy: %v", err)
	}
	if info, err := os.Stat(pidPath(dir)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("pid file: %v %v", info, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("an orderly stop: %v", err)
	}
}

func TestSuperviseWantsConfigInRunDir(t *testing.T) {
	_, config := runDir(t, "127.0.0.1:1")
	if err := Supervise(context.Background(), RunOptions{Binary: "envoy", ConfigPath: config, RunDir: t.TempDir()}); !errors.Is(err, ErrOptions) {
		t.Errorf("error %v", err)
	}
}

// waitForFile polls; the test's own time limit ends it.
func waitForFile(t *testing.T, path string) {
	t.Helper()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("%s did not appear", path)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestEndStaleLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	if err := EndStale(dir, nil); err != nil {
		t.Errorf("without a pid file: %v", err)
	}
	if err := EndStale(filepath.Join(dir, "none"), nil); err != nil {
		t.Errorf("without a folder: %v", err)
	}
	for _, text := range []string{strconv.Itoa(os.Getpid()), "garbage", "", "0", "-1", "1", "999999999"} {
		if err := os.WriteFile(pidPath(dir), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := EndStale(dir, nil); err != nil {
			t.Errorf("pid file %q: %v", text, err)
		}
		if _, err := os.Stat(pidPath(dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("pid file %q stays", text)
		}
	}
}
