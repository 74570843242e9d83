package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReload_ofAProcess: a gateway that runs takes up what was replaced by
// rename and what SIGHUP tells, survives bad files, and stays healthy.
func TestReload_ofAProcess(t *testing.T) {
	dir := t.TempDir()
	at, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
	}
	write("c.yaml", "limits: {requests: 5}\n")
	write("key", reloadCanary)
	logPath := filepath.Join(dir, "log")
	logFile, err := os.Create(logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command("llm-gateway", "serve", "--config", "c.yaml", "--http", at, "--grpc", "unix://"+filepath.Join(dir, "g"))
	cmd.Dir, cmd.Env, cmd.Stderr = dir, []string{"LLM_API_KEY_FILE=" + filepath.Join(dir, "key")}, logFile
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})

	ask := func(path string) (status int, body string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, ""
		}
		defer func() { _ = answer.Body.Close() }()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				text, _ := os.ReadFile(logPath)
				t.Fatalf("waited in vain for %s:\n%s", what, text)
			}
		}
	}
	shows := func(what string) func() bool {
		return func() bool { _, body := ask("/"); return strings.Contains(body, what) }
	}
	logged := func(words ...string) func() bool {
		return func() bool {
			text, _ := os.ReadFile(logPath)
			for line := range strings.Lines(string(text)) {
				all := json.Valid([]byte(line))
				for _, w := range words {
					all = all && strings.Contains(line, w)
				}
				if all {
					return true
				}
			}
			return false
		}
	}
	until("the start", shows("(5 requests per 60 s"))

	write("c.yaml", "limits: {requests: 6, window: 30s}\ndocs: {enabled: false}\n")
	until("a file that was replaced", shows("(6 requests per 30 s"))
	if status, _ := ask("/docs"); status != http.StatusNotFound {
		t.Errorf("/docs: %d after docs.enabled: false", status)
	}
	write(".env", "RATE_LIMIT_REQUESTS=7\n")
	until("a new .env", shows("(7 requests per 30 s"))

	write("c.yaml", "limits: {requests: 1, dayly: 1}\n")
	until("the reason", logged(`"error"`, "configuration not reloaded", "c.yaml: limits.dayly is not known: did you mean limits.daily?"))
	if err := os.Remove(filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	until("the reason", logged("configuration not reloaded", "c.yaml is gone"))
	write("key", reloadCanary+" "+reloadCanary)
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask("/health"); status != http.StatusOK || !shows("(7 requests per 30 s")() {
		t.Errorf("with bad files: health %d", status)
	}

	write("c.yaml", "listen: 0.0.0.0:99\n")
	until("the reason", logged("configuration not reloaded", "LLM_API_KEY_FILE: write the key alone"))
	write("key", reloadCanary+"-next")
	until("what needs a restart", logged(`"warn"`, "changed settings need a restart", `"settings":["listen","limits.window"]`))
	until("the new key", logged("configuration reloaded", "upstream.api_key"))

	// SIGHUP reloads what has not changed, too: somebody wants to see that it is good.
	count := func() int {
		text, _ := os.ReadFile(logPath)
		return strings.Count(string(text), `"configuration reloaded"`)
	}
	before := count()
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until("an answer to SIGHUP", func() bool { return count() > before })

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended = true
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
	text, err := os.ReadFile(logPath)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), reloadCanary) {
		t.Errorf("the secret is in the log:\n%s", text)
	}
}
