//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestReload changes limits and the credential of a running gateway; a request
// that runs meanwhile ends with what it began with.
func TestReload(t *testing.T) {
	const first, second = "sk-first-0123456789", "sk-second-0123456789"
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+"~", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config, secret := write("c.yaml", "limits: {concurrent: 0}\n"), write("key", first)
	g := start(t, setup{args: []string{"--config", config}, env: []string{"LLM_API_KEY_FILE=" + secret}})
	key := g.key().Key
	client := g.client(false)
	ask := func(tokens int64) rig.Received {
		return client.Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: tokens, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()})
	}
	credential := func() string {
		records := g.up.Records()
		return records[len(records)-1].Header.Get("Authorization")
	}
	if r := ask(5); !r.SawEnd() || credential() != "Bearer "+first {
		t.Fatalf("before: %d with %q", r.Status, credential())
	}

	write("key", second)
	g.eventually("the new credential", func() bool { return ask(5).SawEnd() && credential() == "Bearer "+second })

	write("c.yaml", "limits: {tokens_per_minute: 1}\n")
	if err := syscall.Kill(g.proc.Pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	g.eventually("the new limit", func() bool { return ask(50).Status == http.StatusTooManyRequests })

	write("c.yaml", "limits: {tokens_per_minute: many}\n")
	g.eventually("the reason", func() bool {
		return strings.Contains(g.proc.Stderr(), fmt.Sprintf(`"configuration not reloaded","error":"%s: limits.tokens_per_minute: write `, config))
	})
	if r := client.Do(g.context(), rig.Request{Method: "GET", Path: "/health"}); r.Status != http.StatusOK || ask(50).Status != http.StatusTooManyRequests {
		t.Errorf("with a bad file: health %d, or the limit is not in force", r.Status)
	}
	write("c.yaml", "listen: 0.0.0.0:1\n")
	g.eventually("the limit to be gone", func() bool { return ask(50).SawEnd() })
	if said := g.proc.Stderr(); strings.Contains(said, first) || strings.Contains(said, second) {
		t.Error("a credential is in the log")
	}
	g.balanced()
}
