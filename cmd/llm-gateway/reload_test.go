package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

// reloading is a reloader over files in a directory of its own, and what it
// logged.
type reloading struct {
	*reloader
	t       *testing.T
	dir     string
	out     bytes.Buffer
	applied []Config
	fails   error
}

const reloadCanary = "reload-canary-0123456789" // stands where secrets do

func startReloading(t *testing.T, files map[string]string, env ...string) *reloading {
	t.Helper()
	r := &reloading{t: t, dir: t.TempDir()}
	for name, text := range files {
		r.write(name, text)
	}
	for i := range env {
		env[i] = strings.ReplaceAll(env[i], "DIR", r.dir)
	}
	src := sources{dir: r.dir, env: env}
	if files["c.yaml"] != "" {
		src.file = filepath.Join(r.dir, "c.yaml")
	}
	before := lookAtFiles(src)
	c, err := loadConfig(src)
	if err != nil {
		t.Fatal(err)
	}
	log, control, err := (&app{stderr: &r.out}).controlledLogger(c)
	if err != nil {
		t.Fatal(err)
	}
	r.reloader = newReloader(src, before, c, log, control, func() { t.Error("the gateway was stopped") })
	return r
}

// write replaces a file by rename, as editors do; "" removes it.
func (r *reloading) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if text == "" {
		if err := os.Remove(path); err != nil {
			r.t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reloading) apply(_ context.Context, c Config) error {
	if r.fails == nil {
		r.applied = append(r.applied, c)
	}
	return r.fails
}

func (r *reloading) now() {
	r.t.Helper()
	r.reload(r.t.Context(), r.apply, lookAtFiles(r.src))
}

// said takes what was logged since the last call: message and facts.
func (r *reloading) said() (lines []string) {
	r.t.Helper()
	defer r.out.Reset()
	if strings.Contains(r.out.String(), reloadCanary) {
		r.t.Errorf("a secret is in the log: %s", r.out.String())
	}
	for line := range strings.Lines(r.out.String()) {
		var e struct {
			Level, Msg, Error string
			Changed, Settings []string
			Keys              int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			r.t.Fatal(err)
		}
		text := e.Level + ": " + e.Msg
		if e.Error != "" {
			text += ": " + strings.ReplaceAll(e.Error, r.dir+"/", "")
		}
		if facts := slices.Concat(e.Changed, e.Settings); len(facts) > 0 {
			text += ": " + strings.Join(facts, " ")
		}
		lines = append(lines, text)
	}
	return lines
}

func (r *reloading) expect(what string, want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.said()); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestReload_takesUpWhatCanChange(t *testing.T) {
	r := startReloading(t, map[string]string{
		"c.yaml": "limits: {daily: 10}\nauth: {allowed_keys: [sk-one, sk-two]}\n", ".env": "API_MONTHLY_LIMIT=20\n", "secret": reloadCanary + "-1",
	}, "LLM_API_KEY_FILE=DIR/secret", "RATE_LIMIT_REQUESTS=30")
	r.now()
	r.expect("nothing is new", "info: configuration reloaded")

	// The environment still beats the file, and .env does.
	r.write("c.yaml", "limits: {daily: 11, monthly: 99, requests: 99}\nlisten: 0.0.0.0:1\nauth: {allowed_keys: [sk-two, sk-three]}\n")
	r.write(".env", "API_MONTHLY_LIMIT=21\nLLMGW_KEY_PEPPER="+reloadCanary+"\n")
	r.write("secret", reloadCanary+"-2")
	r.now()
	r.expect("several sources",
		"info: configuration reloaded: upstream.api_key auth.allowed_keys limits.daily limits.monthly",
		"warn: keys that were taken from auth.allowed_keys stay valid: end them with revoke-key",
		"warn: changed settings need a restart: listen auth.pepper")
	got := r.applied[len(r.applied)-1]
	want := Default()
	want.Limits.Daily, want.Limits.Monthly = 11, 21
	want.Upstream.APIKey, want.Auth.AllowedKeys = reloadCanary+"-2", []Secret{"sk-two", "sk-three"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in force (-want +got):\n%s", diff)
	}
	// Old secrets and new ones, also those that wait for a restart, stay out of the log.
	for _, secret := range []string{reloadCanary + "-1", reloadCanary + "-2", reloadCanary} {
		r.log.Error("x", zap.String("error", secret))
	}
	r.expect("secrets", "error: x: ***", "error: x: ***", "error: x: ***")

	// The line about a new level is written whichever of the two is quieter.
	r.write(".env", "LOG_LEVEL=error\n")
	r.now()
	r.log.Warn("not shown")
	r.expect("quieter", "info: configuration reloaded: log.level limits.monthly", "warn: changed settings need a restart: listen")
	r.write(".env", "LOG_LEVEL=debug\n")
	r.now()
	r.log.Debug("shown")
	r.expect("louder", "info: configuration reloaded: log.level", "warn: changed settings need a restart: listen", "debug: shown")
}

func TestReload_badOnesChangeNothing(t *testing.T) {
	r := startReloading(t, map[string]string{"c.yaml": "limits: {daily: 10}\n", ".env": "LOG_LEVEL=info\n", "secret": reloadCanary}, "LLM_API_KEY_FILE=DIR/secret")
	const refused = "error: configuration not reloaded: "
	good := r.inForce
	for _, c := range []struct {
		name, file, text string
		want             []string
	}{
		{"several mistakes", "c.yaml", "limits: {foo: 1, daily: x}\n", []string{
			"c.yaml: limits.foo is not known: did you mean limits.window?", "c.yaml: limits.daily: write a whole number above 0, digits only",
		}},
		{"no YAML", "c.yaml", "limits: [" + reloadCanary, []string{"c.yaml is not valid YAML near line 1: write name: value, sections indented by spaces"}},
		{"YAML gone", "c.yaml", "", []string{"c.yaml is gone: put it back, or restart to do without it"}},
		{"YAML cut off", "c.yaml", " \n", []string{"c.yaml is empty: write the settings into it, or restart to do without them"}},
		{"line of .env", ".env", reloadCanary + "\n", []string{".env: line 1 cannot be read: write NAME=value, with quotes around values that hold spaces or #"}},
		{".env gone", ".env", "", []string{".env is gone: put it back, or restart to do without it"}},
		{"secret gone", "secret", "", []string{"secret is gone: put it back, or restart to do without it"}},
		{"secret cut off", "secret", "\n", []string{"secret is empty: write the settings into it, or restart to do without them"}},
		{"bad secret", "secret", reloadCanary + " b", []string{"LLM_API_KEY_FILE: write the key alone, in printable ASCII without spaces"}},
		{"contradiction", ".env", "LLMGW_ADMIN__TOKEN=" + reloadCanary + "-abcdefghij\nALLOWED_API_KEYS=" + reloadCanary + "-abcdefghij\n", []string{
			".env: LLMGW_ADMIN__TOKEN: it is a client's key, the model server's or the pepper: write a token of its own, such as `openssl rand -hex 32` prints",
		}},
	} {
		old, err := os.ReadFile(filepath.Join(r.dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		r.write(c.file, c.text)
		r.now()
		var want []string
		for _, line := range c.want {
			want = append(want, refused+line)
		}
		r.expect(c.name, want...)
		r.write(c.file, string(old))
	}
	r.now()
	r.expect("as before", "info: configuration reloaded")
	if diff := cmp.Diff([]Config{good}, r.applied); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

// TestReload_thatCannotBePutInForce is tried again: the books may be away.
func TestReload_thatCannotBePutInForce(t *testing.T) {
	r := startReloading(t, map[string]string{"c.yaml": "limits: {daily: 10}\n"})
	r.write("c.yaml", "limits: {daily: 11}\n")
	r.fails = errors.New("the books are away")
	r.now()
	r.expect("away", "error: configuration not reloaded: the books are away")
	files := lookAtFiles(r.src)
	if at := time.Now(); r.due(files, at) || !r.due(files, at.Add(retryEvery)) {
		t.Error("it is tried again after a while, and not before")
	}
	r.fails = nil
	r.now()
	r.expect("back", "info: configuration reloaded: limits.daily")
	if r.due(files, time.Now().Add(time.Hour)) {
		t.Error("what is in force is tried again")
	}
}

// TestReload_due: a change counts when two looks have found the same, and once.
func TestReload_due(t *testing.T) {
	r := startReloading(t, map[string]string{"c.yaml": "limits: {daily: 10}\n"})
	look := func() bool { return r.due(lookAtFiles(r.src), time.Now()) }
	again := func() bool { first := look(); return look() || first }
	if again() {
		t.Error("nothing has changed")
	}
	r.write("c.yaml", "limits: {daily: 1")
	if look() {
		t.Error("a file that may be in the middle of being written is read")
	}
	r.write("c.yaml", "limits: {daily: 11}\n")
	if look() || !look() {
		t.Error("what was there twice is read, and not before")
	}
	r.now()
	if again() {
		t.Error("it was read already")
	}
	// The same content is no change; a link that leads elsewhere is.
	r.write("c.yaml", "limits: {daily: 11}\n")
	if again() {
		t.Error("a file with the same content is read")
	}
	r.write("other", "limits: {daily: 12}\n")
	if err := errors.Join(os.Remove(filepath.Join(r.dir, "c.yaml")), os.Symlink("other", filepath.Join(r.dir, "c.yaml"))); err != nil {
		t.Fatal(err)
	}
	if look() || !look() {
		t.Error("a link in the place of a file is not read")
	}
}

// TestReload_whatCanBeReadOnce: a pipe is not emptied by looking at it.
func TestReload_whatCanBeReadOnce(t *testing.T) {
	r := startReloading(t, nil)
	pipe := filepath.Join(r.dir, ".env")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	r.now()
	r.expect("a pipe", "error: configuration not reloaded: .env is not a regular file and cannot be read again: restart instead")
}
