//go:build e2e

package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// scaled is a time of a test: the short one, or with LLMGW_TEST_LONG=1 that of
// the acceptance runs.
func scaled(short, long time.Duration) time.Duration {
	if os.Getenv("LLMGW_TEST_LONG") == "1" {
		return long
	}
	return short
}

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// TestRedisFaultsCostNoRequest takes Redis away in every way while requests
// come at 200 a second: none is answered by an error of ours, no window holds
// more than its limit, and Redis is used again soon after its return.
func TestRedisFaultsCostNoRequest(t *testing.T) {
	command := func(t *testing.T, r *rig.Redis, line string) {
		t.Helper()
		if _, err := r.Command(line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	away := scaled(3*time.Second, 30*time.Second)
	for _, c := range []struct {
		name        string
		hurt, mend  func(*testing.T, *rig.Redis)
		short, gone bool // gone: GET /health says so meanwhile
	}{
		{"stopped", func(_ *testing.T, r *rig.Redis) { r.Pause() }, func(_ *testing.T, r *rig.Redis) { r.Resume() }, false, true},
		{"killed", func(_ *testing.T, r *rig.Redis) { r.Kill() }, func(_ *testing.T, r *rig.Redis) { r.Restart() }, false, true},
		{"read-only", func(t *testing.T, r *rig.Redis) { command(t, r, "REPLICAOF 127.0.0.1 1") }, func(t *testing.T, r *rig.Redis) { command(t, r, "REPLICAOF NO ONE") }, false, true},
		{"full", func(t *testing.T, r *rig.Redis) { command(t, r, "CONFIG SET maxmemory 1") }, func(t *testing.T, r *rig.Redis) { command(t, r, "CONFIG SET maxmemory 0") }, false, true},
		{"flushed", func(t *testing.T, r *rig.Redis) { command(t, r, "FLUSHALL") }, func(*testing.T, *rig.Redis) {}, true, false},
		{"scripts flushed", func(t *testing.T, r *rig.Redis) { command(t, r, "SCRIPT FLUSH") }, func(*testing.T, *rig.Redis) {}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			const limit, perSecond = 30, 200
			window := 2 * time.Second
			redis := rig.StartRedis(t)
			g := start(t, setup{env: []string{"RATE_LIMIT_REQUESTS=30", "RATE_LIMIT_WINDOW=" + window.String(), "REDIS_URL=redis://" + redis.Addr}})
			limited, free := g.key(), g.key("--rpm", "100000000")
			g.storage(limited, "redis")

			part := away
			if c.short {
				part = 2 * time.Second
			}
			before, after := 1500*time.Millisecond, 2500*time.Millisecond
			began := time.Now()
			shots := make(chan []shot, 1)
			go func() { shots <- fire(g, limited.Key, "limited", perSecond/2, before+part+after) }()
			going := make(chan []shot, 1)
			go func() { going <- fire(g, free.Key, "free", perSecond/2, before+part+after) }()
			time.Sleep(time.Until(began.Add(before)))
			c.hurt(t, redis)
			hurt := time.Now()
			if c.gone {
				g.within(3*time.Second, "memory to take over", func() bool { return g.storageOf(limited) == "memory" })
				// Single decisions fall back before Redis as a whole is given up.
				g.within(3*time.Second, "GET /health to say so", func() bool {
					r := g.client(false).Do(g.context(), rig.Request{Method: http.MethodGet, Path: "/health"})
					return r.Status == 200 && containsAll(string(r.Body), `"status":"degraded"`, `"storage":"memory"`)
				})
			}
			time.Sleep(time.Until(hurt.Add(part)))
			c.mend(t, redis)
			mended := time.Now()
			g.within(5*time.Second, "Redis to be used again", func() bool { return g.storageOf(limited) == "redis" })
			back := time.Since(mended)

			all, others := <-shots, <-going
			noServerErrors(t, "limited", all)
			noServerErrors(t, "free", others)
			if n := statuses(others)[200]; n != len(others) {
				t.Errorf("%d of %d requests under a limit that nobody reaches: %v", n, len(others), statuses(others))
			}
			n, most := windowHolds(t, "limited", all, ofModel(g.up, "limited"), limit, window)
			t.Logf("limited: %s; %d admitted, most in a window by the upstream's clock %d", describe(all), n, most)
			t.Logf("free before: %s", describe(between(others, began, hurt)))
			t.Logf("free, first second of the fault: %s", describe(between(others, hurt, hurt.Add(time.Second))))
			t.Logf("free, rest of the fault: %s", describe(between(others, hurt.Add(time.Second), mended)))
			log := g.proc.Stderr()
			gone, joined := strings.Count(log, "rate limits: Redis is away"), strings.Count(log, "rate limits: decided by Redis")
			t.Logf("back on Redis after %s; %d lines that it is away, %d that it decides", back.Round(time.Millisecond), gone, joined)
			if joined != gone+1 || c.gone != (gone > 0) && !c.short || gone > 2 {
				t.Errorf("one line a switch: %d lines that Redis is away, %d that it decides", gone, joined)
			}
			g.balanced()
		})
	}
}

// storageOf says where a key's limits are decided now.
func (g *gateway) storageOf(k rig.NewKey) string {
	r := g.client(false).Do(g.context(), rig.Request{Method: http.MethodGet, Path: "/rate-limit", Key: k.Key})
	for _, storage := range []string{"redis", "memory"} {
		if strings.Contains(string(r.Body), `"storage":"`+storage+`"`) {
			return storage
		}
	}
	return ""
}

func (g *gateway) storage(k rig.NewKey, want string) {
	g.t.Helper()
	g.eventually("the limits to be kept in "+want, func() bool { return g.storageOf(k) == want })
}

// TestRedisAwayAtTheStart: the gateway starts, counts in memory and joins the
// Redis when it appears.
func TestRedisAwayAtTheStart(t *testing.T) {
	redis := rig.StartRedis(t)
	redis.Kill()
	g := start(t, setup{env: []string{"RATE_LIMIT_REQUESTS=5", "RATE_LIMIT_WINDOW=60s", "REDIS_URL=redis://" + redis.Addr}})
	k := g.key()
	if at := g.storageOf(k); at != "memory" {
		t.Fatalf("storage %q", at)
	}
	client := g.client(false)
	ask := func() int {
		return client.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", MaxTokens: 5}.Body()}).Status
	}
	for range 5 {
		if got := ask(); got != 200 {
			t.Fatal(got)
		}
	}
	redis.Restart()
	g.within(5*time.Second, "Redis to be used", func() bool { return g.storageOf(k) == "redis" })
	if got := ask(); got != 429 {
		t.Errorf("a second quota after the switch: %d", got)
	}
	if _, err := redis.Command("FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != 429 {
		t.Errorf("a second quota after a flush: %d", got)
	}
	g.storage(k, "redis")
	if got := ask(); got != 429 {
		t.Errorf("a second quota from the books: %d", got)
	}
	g.proc.Kill() // and the windows outlive the gateway
	g.runUp()
	if got := ask(); got != 429 {
		t.Errorf("a second quota after a restart: %d", got)
	}
	g.proc.Kill() // both gone: the books are all there is
	redis.Kill()
	redis.Restart()
	g.runUp()
	if got := ask(); got != 429 {
		t.Errorf("a second quota when gateway and Redis began anew: %d", got)
	}
	g.storage(k, "redis")
	if got := ask(); got != 429 {
		t.Errorf("a second quota from a Redis that was rebuilt: %d", got)
	}
}

// TestClosedWhenRedisIsAway: who wants refusals rather than shares gets them.
func TestClosedWhenRedisIsAway(t *testing.T) {
	redis := rig.StartRedis(t)
	g := start(t, setup{env: []string{"REDIS_URL=redis://" + redis.Addr, "LLMGW_RATELIMIT__ON_ERROR=closed"}})
	k, client := g.key(), g.client(false)
	ask := func() rig.Received {
		return client.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", MaxTokens: 5}.Body()})
	}
	g.eventually("a request to pass", func() bool { return ask().Status == 200 })
	redis.Kill()
	hits := g.up.Hits()
	for range 10 {
		wantProblem(t, "closed", ask(), 503, "gateway_unavailable")
	}
	if g.up.Hits() != hits {
		t.Error("a request reached the upstream")
	}
	redis.Restart()
	g.within(6*time.Second, "requests to pass again", func() bool { return ask().Status == 200 })
	g.balanced()
}
