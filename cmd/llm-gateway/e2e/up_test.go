//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestFirstStart follows what a person sees and does.
func TestFirstStart(t *testing.T) {
	g := start(t, setup{demo: true})
	secret := regexp.MustCompile(`sk-lgw_[0-9A-Za-z]{38}`)
	var line string
	g.eventually("the curl line", func() bool {
		for _, l := range strings.Split(g.proc.Stdout(), "\n") {
			if l = strings.TrimSpace(l); strings.HasPrefix(l, "curl ") {
				line = l
			}
		}
		return line != ""
	})
	keys := map[string]bool{}
	for _, k := range secret.FindAllString(g.proc.Stdout(), -1) {
		keys[k] = true
	}
	if len(keys) != 1 {
		t.Fatalf("%d keys on stdout, want one:\n%s", len(keys), g.proc.Stdout())
	}
	out, err := exec.CommandContext(g.context(), "sh", "-c", strings.Replace(line, "curl ", "curl -sS --fail-with-body ", 1)).CombinedOutput()
	var answer struct {
		Choices []json.RawMessage `json:"choices"`
		Usage   struct {
			Total int64 `json:"total_tokens"`
		} `json:"usage"`
	}
	if err != nil || json.Unmarshal(out, &answer) != nil || len(answer.Choices) == 0 || answer.Usage.Total == 0 {
		t.Fatalf("the printed line %q: %v\n%s", line, err, out)
	}
	g.balanced()
	table, err := g.cli.Usage("key")
	if err != nil {
		t.Fatal(err)
	}
	if table.Total.Total != answer.Usage.Total || table.Total.Requests != 1 {
		t.Errorf("books: %d tokens in %d requests, the answer said %d", table.Total.Total, table.Total.Requests, answer.Usage.Total)
	}
	for _, l := range strings.Split(strings.TrimSpace(g.proc.Stderr()), "\n") {
		if !json.Valid([]byte(l)) {
			t.Errorf("a log line that is no JSON object: %s", l)
		}
	}

	g.proc.Signal(syscall.SIGINT)
	if code, err := g.proc.Wait(20 * time.Second); err != nil || code != 0 {
		t.Fatalf("after SIGINT: exit %d %v", code, err)
	}
	before := len(g.proc.Stdout())
	g.runUp()
	g.eventually("the second welcome", func() bool { return len(g.proc.Stdout()) > before && strings.Contains(g.proc.Stdout()[before:], "\n") })
	if second := g.proc.Stdout()[before:]; secret.MatchString(second) {
		t.Errorf("the second start prints a key:\n%s", second)
	}
	r := g.client(false).Do(g.context(), rig.Request{Key: only(keys), Body: rig.Chat{Model: "demo"}.Body()})
	if !r.SawEnd() {
		t.Errorf("the demo key after a restart: %d %q", r.Status, r.Body)
	}
}

func only(set map[string]bool) string {
	for k := range set {
		return k
	}
	return ""
}

func TestEnvoyIsRestarted(t *testing.T) {
	g := start(t, setup{})
	key := g.key().Key
	old := g.envoyPid()
	if old == 0 {
		t.Fatal("no Envoy among the children of up")
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	g.eventually("another Envoy to serve", func() bool {
		pid := g.envoyPid()
		if pid == 0 || pid == old {
			return false
		}
		r := g.client(false).Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 5, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()})
		return r.SawEnd()
	})
	g.balanced()
}

func TestKilledUpLeavesAClosedPort(t *testing.T) {
	g := start(t, setup{})
	key := g.key().Key
	envoy := g.envoyPid()
	g.proc.Kill()
	client := g.client(false)
	for range 20 {
		r := client.Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m"}.Body()})
		if r.Status != 0 && r.Status < 500 {
			t.Errorf("status %d without a sidecar", r.Status)
		}
	}
	if n := g.up.Hits(); n != 0 {
		t.Errorf("%d upstream hits without a sidecar", n)
	}
	g.runUp()
	if c := rig.Command(envoy); strings.Contains(c, g.data) {
		t.Errorf("the old Envoy still runs: %s", c)
	}
	r := client.Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 5, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()})
	if !r.SawEnd() {
		t.Errorf("after the restart: %d %q", r.Status, r.Body)
	}
	g.balanced()
}

func TestSecondGatewayOnTheSameDataIsRefused(t *testing.T) {
	g := start(t, setup{})
	other, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.cli.Run("up", "--listen", other)
	if err != nil || r.Code != 1 || r.Stderr == "" {
		t.Errorf("a second up: exit %d %v %q", r.Code, err, r.Stderr)
	}
	if r := g.client(false).Do(g.context(), rig.Request{Method: "GET", Path: "/health"}); r.Status != 200 {
		t.Errorf("the first one after that: %d", r.Status)
	}
}

// TestWindowIsExact asks far too often and reads the admissions from the
// upstream's clock.
func TestWindowIsExact(t *testing.T) {
	const (
		limit  = 5
		window = 2 * time.Second
		jitter = 60 * time.Millisecond // between admission and the upstream's clock
	)
	g := start(t, setup{env: []string{fmt.Sprint("RATE_LIMIT_REQUESTS=", limit), "RATE_LIMIT_WINDOW=2"}})
	key := g.key().Key
	client := g.client(false)
	refused := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(7 * time.Second); time.Now().Before(end); <-tick.C {
		r := client.Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 5, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()})
		if r.Status == http.StatusTooManyRequests {
			refused++
			wantProblem(t, "too often", r, 429, "rate_limit_exceeded")
			if after := r.Header.Get("Retry-After"); after != "1" && after != "2" {
				t.Errorf("Retry-After %q", after)
			}
		} else if !r.SawEnd() {
			t.Errorf("%d %q", r.Status, r.Body)
		}
	}
	records := g.up.Records()
	for i := limit; i < len(records); i++ {
		if d := records[i].At.Sub(records[i-limit].At); d < window-jitter {
			t.Errorf("requests %d to %d within %s, the limit is %d in %s", i-limit, i, d, limit, window)
		}
	}
	if len(records) < 3*limit || refused < 100 {
		t.Errorf("%d admitted, %d refused in 7 s", len(records), refused)
	}
	g.balanced()
}

// TestRestartGrantsNoSecondQuota uses the window up and restarts, orderly and
// by force.
func TestRestartGrantsNoSecondQuota(t *testing.T) {
	g := start(t, setup{env: []string{"RATE_LIMIT_REQUESTS=5", "RATE_LIMIT_WINDOW=3600"}})
	key := g.key().Key
	ask := func() int {
		r := g.client(false).Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 5, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()})
		return r.Status
	}
	for i := range 5 {
		if s := ask(); s != 200 {
			t.Fatalf("request %d: %d", i, s)
		}
	}
	if s := ask(); s != 429 {
		t.Fatalf("request 6: %d", s)
	}
	if code, err := g.proc.Stop(20 * time.Second); err != nil || code != 0 {
		t.Fatalf("exit %d %v", code, err)
	}
	g.runUp()
	if s := ask(); s != 429 {
		t.Errorf("after an orderly restart: %d", s)
	}
	g.proc.Kill()
	g.runUp()
	if s := ask(); s != 429 {
		t.Errorf("after kill -9: %d", s)
	}
}
