package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// call runs the program in an empty working directory without any environment.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	var out, messages bytes.Buffer
	code = run(t.Context(), args, nil, strings.NewReader(""), &out, &messages)
	return code, out.String(), messages.String()
}

func TestRun_resultThatCannotBeWritten(t *testing.T) {
	t.Chdir(t.TempDir())
	var messages bytes.Buffer
	code := run(t.Context(), []string{"create-key", "--limit", "5"}, nil, strings.NewReader(""), brokenPipe{}, &messages)
	if code != exitFailed || !strings.Contains(messages.String(), "llm-gateway: write the result") {
		t.Errorf("exit code %d, %q: a key that nobody saw is a failure", code, messages.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestRun_everyCommandHasHelp(t *testing.T) {
	root := newRootCommand(&app{stdout: io.Discard, stderr: io.Discard})
	for _, c := range root.Commands() {
		if c.Short == "" || c.GroupID == "" && c.Name() != "completion" && c.Name() != "help" {
			t.Errorf("%s has no short help, or no group", c.Name())
		}
		if code, stdout, stderr := call(t, c.Name(), "--help"); code != exitDone || stdout == "" || stderr != "" {
			t.Errorf("%s --help: exit code %d, stderr %q", c.Name(), code, stderr)
		}
	}
}

func TestLog_line(t *testing.T) {
	var out bytes.Buffer
	logger := newLogger(&out, zap.WarnLevel)
	logger.Info("below the level")
	for range 1000 { // more than a sampler would let through
		logger.Warn("slow \"books\"", zap.String("key_id", "key_1"), zap.Duration("duration_ms", 1500*time.Millisecond))
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1000 {
		t.Fatalf("%d lines, want 1000", len(lines))
	}
	var entry map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &entry); err != nil {
		t.Fatal(err)
	}
	ts, _ := entry["ts"].(string)
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(ts) {
		t.Errorf("ts is %q", ts)
	}
	delete(entry, "ts")
	if got := entry; len(got) != 4 || got["level"] != "warn" || got["msg"] != `slow "books"` || got["key_id"] != "key_1" || got["duration_ms"] != 1500.0 {
		t.Errorf("entry is %v", got)
	}
	c := Default()
	c.Log.Level = "loud"
	if _, err := (&app{stderr: &out}).logger(c); err == nil {
		t.Error("a level that is none was taken")
	}
}

func TestCheckListen(t *testing.T) {
	ctx := t.Context()
	if detail, err := checkListen(ctx, "127.0.0.1:0"); err != nil || !strings.Contains(detail, "free") {
		t.Errorf("free address: %q, %v", detail, err)
	}
	ours := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "llm-gateway")
		w.WriteHeader(http.StatusServiceUnavailable) // not healthy, but a gateway
	}))
	defer ours.Close()
	if detail, err := checkListen(ctx, ours.Listener.Addr().String()); err != nil || !strings.Contains(detail, "running gateway") {
		t.Errorf("our own gateway: %q, %v", detail, err)
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	if _, err := checkListen(ctx, other.Listener.Addr().String()); err == nil || !strings.Contains(err.Error(), "LLMGW_LISTEN") {
		t.Errorf("another program: %v", err)
	}
}

func TestCheckUpstream(t *testing.T) {
	ctx := t.Context()
	refused, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail are the point
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, c := range []struct{ name, url, detail, failure string }{
		{"demo", "", "demo model", ""},
		{"reachable", plain.URL, "reachable", ""},
		{"refused", "http://" + refused, "", "cannot be reached"},
		{"certificate of nobody", secure.URL, "", "TLS fails"},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), "", "TLS fails"},
	} {
		config := Default()
		config.Upstream.URL = c.url
		detail, err := checkUpstream(ctx, config)
		if c.failure == "" && (err != nil || !strings.Contains(detail, c.detail)) {
			t.Errorf("%s: %q, %v", c.name, detail, err)
		}
		if c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)) {
			t.Errorf("%s: %q, %v, want %q", c.name, detail, err, c.failure)
		}
	}
	config := Default()
	config.Upstream.URL, config.Upstream.CAFile = secure.URL, writeFile(t, "ca.pem", "no certificate")
	if _, err := checkUpstream(ctx, config); err == nil || !strings.Contains(err.Error(), "LLM_CA_FILE") {
		t.Errorf("broken CA file: %v", err)
	}
}

func TestDialAddress(t *testing.T) {
	for url, want := range map[string]string{
		"http://host": "host:80", "https://host/v1": "host:443", "https://host:80": "host:80", "http://[::1]": "[::1]:80",
	} {
		up, err := envoy.ParseUpstream(url)
		if got := dialAddress(up); err != nil || got != want {
			t.Errorf("%s is dialled at %s (%v), want %s", url, got, err, want)
		}
	}
}

func TestCheckData(t *testing.T) {
	dir := t.TempDir()
	if detail, err := checkData(filepath.Join(dir, "a", "b")); err != nil || !strings.Contains(detail, "will be created") {
		t.Errorf("new directory: %q, %v", detail, err)
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, "*")); len(entries) > 0 {
		t.Errorf("the check left %v behind", entries)
	}
	file := writeFile(t, "file", "x")
	if _, err := checkData(filepath.Join(file)); err == nil {
		t.Error("a file was taken for a directory")
	}
}

func TestPrintAudit_listOfProblemsAlways(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, json: true}
	if err := a.printAudit(billing.AuditReport{Balanced: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"problems":[]`) {
		t.Errorf("got %s", out.String())
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1234567: "1,234,567", -1000: "-1,000", -999: "-999",
	} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestPrintable_noEscapes(t *testing.T) {
	if got := printable("gpt\x1b[2J\n\u202eé"); strings.ContainsAny(got, "\x1b\n\u202e") || !strings.HasSuffix(got, "é") {
		t.Errorf("got %q", got)
	}
}

func TestStats_sumsDoNotGoRound(t *testing.T) {
	const top = 1<<63 - 1
	s := api.Stats([]api.KeyView{
		{State: api.StateActive, LimitsView: api.LimitsView{Limit: top}},
		{State: api.StateActive, LimitsView: api.LimitsView{Limit: 5}},
		{State: api.StateRevoked, LimitsView: api.LimitsView{Limit: 1}},
	})
	if s.TotalTokens != top || s.MinTokens != 5 || s.MaxTokens != top || s.TotalKeys != 3 || s.ActiveKeys != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestParseLifetime(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"1s": time.Second, "12h": 12 * time.Hour, "30d": 30 * day, "1d12h": 36 * time.Hour, " 7d ": 7 * day, "36500d": 36500 * day,
	} {
		if got, err := parseLifetime(text); err != nil || got != want {
			t.Errorf("parseLifetime(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "5", "-1d", "1.5d", "0d", "0s", "-1h", "1d-2h", "36501d", "900000h", "1w", "0d0h"} {
		if got, err := parseLifetime(text); err == nil {
			t.Errorf("parseLifetime(%q) = %v, want an error", text, got)
		}
	}
}
