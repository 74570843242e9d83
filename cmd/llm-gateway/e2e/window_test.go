//go:build e2e

package e2e

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestNoWindowHoldsMoreThanItsLimit sends ten times what a window lets
// through, with and without Redis, to one gateway and to three.
func TestNoWindowHoldsMoreThanItsLimit(t *testing.T) {
	const limit, perSecond = 30, 300
	window := scaled(2*time.Second, time.Minute)
	env := []string{"RATE_LIMIT_REQUESTS=30", "RATE_LIMIT_WINDOW=" + window.String()}
	check := func(t *testing.T, g *gateway, k rig.NewKey) {
		t.Helper()
		shots := fire(g, k.Key, "window", perSecond, window*13/6)
		noServerErrors(t, "load", shots)
		n, most := windowHolds(t, "load", shots, ofModel(g.up, "window"), limit, window)
		t.Logf("%s; %d admitted, most in a window by the upstream's clock %d", describe(shots), n, most)
		if n < 2*limit || n > 3*limit+5 {
			t.Errorf("%d admitted in a little more than two windows of %d", n, limit)
		}
		for _, s := range shots {
			if s.received.Status == 429 && s.received.Header.Get("Retry-After") == "" {
				t.Fatalf("429 without Retry-After: %v", s.received.Header)
			}
		}
	}
	t.Run("one gateway, memory", func(t *testing.T) {
		g := start(t, setup{env: env})
		check(t, g, g.key())
	})
	t.Run("one gateway, Redis", func(t *testing.T) {
		g := start(t, setup{env: append(env, "REDIS_URL=redis://"+rig.StartRedis(t).Addr)})
		check(t, g, g.key())
	})
	t.Run("three gateways, one Redis", func(t *testing.T) {
		f := startFleet(t, 3, env...)
		check(t, f.gateway, f.key(plenty))
	})
}

// TestWhoWaitsAsToldPasses follows the advice of a refusal to the millisecond.
func TestWhoWaitsAsToldPasses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, redis string }{{"memory", ""}, {"Redis", "redis://"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it waits for windows
			const window = 3 * time.Second
			env := []string{"RATE_LIMIT_REQUESTS=3", "RATE_LIMIT_WINDOW=" + window.String()}
			if c.redis != "" {
				env = append(env, "REDIS_URL="+c.redis+rig.StartRedis(t).Addr)
			}
			g := start(t, setup{env: env})
			k, client := g.key(), g.client(false)
			ask := func() rig.Received {
				return client.Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", MaxTokens: 5}.Body()})
			}
			for round := range 3 {
				for i := range 3 {
					r := ask()
					if r.Status != 200 || r.Header.Get("X-Ratelimit-Remaining") != strconv.Itoa(2-i) || r.Header.Get("X-Ratelimit-Limit") != "3" {
						t.Fatalf("round %d, request %d: %d %v %s", round, i, r.Status, r.Header, r.Body)
					}
					for _, name := range []string{"X-Ratelimit-Limit-Tokens", "X-Ratelimit-Remaining-Tokens", "X-Ratelimit-Reset-Tokens", "X-Ratelimit-Reset-Requests", "X-Ratelimit-Reset"} {
						if r.Header.Get(name) == "" {
							t.Errorf("no %s", name)
						}
					}
					time.Sleep(50 * time.Millisecond)
				}
				refused := ask()
				wantProblem(t, "full", refused, 429, "rate_limit_exceeded")
				ms, err := strconv.Atoi(refused.Header.Get("Retry-After-Ms"))
				if err != nil || ms < 1 || ms > int(window.Milliseconds()) || refused.Header.Get("X-Should-Retry") != "" {
					t.Fatalf("advice: %v", refused.Header)
				}
				time.Sleep(time.Until(refused.Ended.Add(time.Duration(ms) * time.Millisecond)))
				if r := ask(); r.Status != 200 {
					t.Fatalf("round %d: waited %d ms as told, and got %d %s", round, ms, r.Status, r.Body)
				}
				reset, err := time.ParseDuration(ask().Header.Get("X-Ratelimit-Reset-Requests"))
				if err != nil || reset <= 0 || reset > window {
					t.Fatalf("reset %s, %v", reset, err)
				}
				time.Sleep(reset) // and the whole limit is there again
			}
		})
	}
}

// TestLimitsBesideTheWindow: tokens per minute and running requests of a key.
func TestLimitsBesideTheWindow(t *testing.T) {
	g := start(t, setup{env: []string{"REDIS_URL=redis://" + rig.StartRedis(t).Addr}})
	client := g.client(false)
	ask := func(k rig.NewKey, c rig.Chat) rig.Received {
		return client.Do(g.context(), rig.Request{Key: k.Key, Body: c.Body()})
	}
	t.Run("concurrent", func(t *testing.T) {
		k := g.key("--concurrent", "2")
		slow := rig.Chat{Model: "slow", MaxTokens: 5, Script: rig.Script{FirstDelayMS: 1500}}
		got := make(chan rig.Received, 2)
		for range 2 {
			go func() { got <- ask(k, slow) }()
		}
		g.eventually("two requests to run", func() bool { return len(ofModel(g.up, "slow")) == 2 })
		r := ask(k, rig.Chat{Model: "third", MaxTokens: 5})
		wantProblem(t, "third", r, 429, "rate_limit_exceeded")
		if r.Header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", r.Header.Get("Retry-After"))
		}
		for range 2 {
			if r := <-got; r.Status != 200 {
				t.Errorf("%d %s", r.Status, r.Body)
			}
		}
		if r := ask(k, rig.Chat{Model: "after", MaxTokens: 5}); r.Status != 200 {
			t.Errorf("when they had ended: %d %s", r.Status, r.Body)
		}
	})
	t.Run("tokens", func(t *testing.T) {
		k := g.key("--tpm", "1000")
		// Held: its prompt's bound and 800; in the end it cost 30.
		if r := ask(k, rig.Chat{Model: "t", MaxTokens: 800, Script: rig.Script{Prompt: 10, Completion: 20}}); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		var r rig.Received
		g.eventually("the hold to be corrected", func() bool {
			r = client.Do(g.context(), rig.Request{Method: http.MethodGet, Path: "/rate-limit", Key: k.Key})
			return string(r.Body) != "" && r.Status == 200 && containsAll(string(r.Body), `"limit":1000`, `"remaining":970`, `"storage":"redis"`)
		})
		// A second of the same size fits only because of the correction.
		if r := ask(k, rig.Chat{Model: "t", MaxTokens: 800, Script: rig.Script{Prompt: 10, Completion: 790}}); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		r = ask(k, rig.Chat{Model: "t", MaxTokens: 800})
		p := wantProblem(t, "spent", r, 429, "rate_limit_exceeded")
		if p.Error.Type != "tokens" || r.Header.Get("Retry-After") == "" || r.Header.Get("X-Ratelimit-Limit-Tokens") != "1000" {
			t.Errorf("%s %v", p.Error.Type, r.Header)
		}
		r = ask(k, rig.Chat{Model: "t", MaxTokens: 2000})
		wantProblem(t, "never", r, 429, "rate_limit_exceeded")
		if r.Header.Get("X-Should-Retry") != "false" || r.Header.Get("Retry-After") != "" {
			t.Errorf("no wait helps, and yet: %v", r.Header)
		}
	})
	g.balanced()
}
