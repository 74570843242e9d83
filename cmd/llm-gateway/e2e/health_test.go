//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// healthOf asks the info routes behind a Unix socket, past Envoy, or Envoy itself.
func healthOf(t *testing.T, socket, base, path string) (status int, body struct {
	Status     string                       `json:"status"`
	Components map[string]map[string]string `json:"components"`
},
) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	if socket != "" {
		base = "http://localhost"
		client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, body
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, body
	}
	_ = json.Unmarshal(text, &body) // what is no document has no status
	return res.StatusCode, body
}

// Each dependency is taken down in turn: GET /health names it, its status is
// right, and so is readiness.
func TestHealthNamesWhatIsAway(t *testing.T) {
	t.Parallel() // probes have their intervals
	redis, postgres := rig.StartRedis(t), rig.StartPostgres(t)
	g := start(t, setup{env: []string{"DATABASE_URL=" + postgres.NewDatabase(), "REDIS_URL=redis://" + redis.Addr, "LLM_TIMEOUT=2s"}})
	k := g.key()
	c := g.client(false)
	expect := func(socket, what string, status int, overall string, ready int, states map[string]string) {
		t.Helper()
		g.within(30*time.Second, what, func() bool {
			got, body := healthOf(t, socket, g.url, "/health")
			if got != status || body.Status != overall {
				return false
			}
			for name, state := range states {
				if body.Components[name]["status"] != state {
					return false
				}
			}
			at, _ := healthOf(t, socket, g.url, "/healthz/ready")
			live, _ := healthOf(t, socket, g.url, "/healthz/live")
			return at == ready && live == 200
		})
	}
	all := map[string]string{"database": "healthy", "redis": "healthy", "rate_limit": "healthy", "gate": "healthy", "envoy": "healthy", "llm": "healthy"}
	expect("", "everything to be well", 200, "healthy", 200, all)
	if _, body := healthOf(t, "", g.url, "/health"); body.Components["redis"]["storage"] != "redis" || body.Components["database"]["storage"] != "postgresql" {
		t.Errorf("%v", body.Components)
	}

	redis.Kill()
	expect("", "Redis to be named", 200, "degraded", 200, map[string]string{"redis": "unhealthy", "rate_limit": "unhealthy", "database": "healthy"})
	if _, body := healthOf(t, "", g.url, "/health"); body.Components["redis"]["storage"] != "memory" {
		t.Errorf("%v", body.Components)
	}
	redis.Restart()
	expect("", "Redis to be back", 200, "healthy", 200, all)

	postgres.KillAll()
	expect("", "the books to be named", 503, "unhealthy", 503, map[string]string{"database": "unhealthy", "redis": "healthy"})
	postgres.Restart()
	expect("", "the books to be back", 200, "healthy", 200, all)

	ask := func(s rig.Script) int {
		return c.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", Script: s}.Body()}).Status
	}
	for range 3 {
		if status := ask(rig.Script{Status: 500}); status != 500 {
			t.Fatalf("an upstream that fails: %d", status)
		}
	}
	expect("", "the model server to be named", 200, "degraded", 200, map[string]string{"llm": "unhealthy", "database": "healthy"})
	if status := ask(rig.Script{Prompt: 1, Completion: 1}); status != 200 {
		t.Fatal(status)
	}
	expect("", "the model server to be back", 200, "healthy", 200, all)
	g.up.Close()
	for range 3 {
		if status := ask(rig.Script{}); status != 502 {
			t.Fatalf("no upstream at all: %d", status)
		}
	}
	expect("", "the absent model server to be named", 200, "degraded", 200, map[string]string{"llm": "unhealthy"})

	// Envoy hangs: its own listener cannot tell, the sidecar's can.
	envoy := g.envoyPid()
	if err := syscall.Kill(envoy, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(envoy, syscall.SIGCONT) }()
	expect(g.socket("api.sock"), "Envoy to be named", 503, "unhealthy", 503, map[string]string{"envoy": "unhealthy", "gate": "healthy"})
	if err := syscall.Kill(envoy, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expect("", "Envoy to be back", 200, "degraded", 200, map[string]string{"envoy": "healthy"})
}

// Without its sidecar Envoy answers 503 to everybody; a stopping gateway is not
// ready while it still answers.
func TestHealthOfASidecarThatStops(t *testing.T) {
	t.Parallel() // a slow answer
	g := startApart(t, setup{env: []string{"LLMGW_ENVOY__DRAIN=20s"}})
	k := g.key()
	running := make(chan rig.Received, 1)
	go func() {
		running <- g.client(false).Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", Stream: true, Script: rig.Script{ID: "slow", Chunks: 6, ChunkDelayMS: 500, Prompt: 1, Completion: 1}}.Body()})
	}()
	g.eventually("the stream to run", func() bool { return len(g.up.ByID("slow")) == 1 })
	g.proc.Signal(syscall.SIGTERM)
	g.within(10*time.Second, "readiness to end", func() bool {
		at, _ := healthOf(t, g.socket("api.sock"), "", "/healthz/ready")
		live, _ := healthOf(t, g.socket("api.sock"), "", "/healthz/live")
		return at == 503 && live == 200
	})
	if r := <-running; !r.SawEnd() {
		t.Errorf("the running answer: %+v", r)
	}
	if code, err := g.proc.Wait(30 * time.Second); err != nil || code != 0 {
		t.Fatalf("exit %d, %v", code, err)
	}
	for _, path := range []string{"/health", "/healthz/ready", "/healthz/live"} {
		if status, _ := healthOf(t, "", g.url, path); status != 503 {
			t.Errorf("%s without a sidecar: %d", path, status)
		}
	}
}
