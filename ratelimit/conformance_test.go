package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

func TestConformance(t *testing.T) {
	server := rig.StartRedis(t)
	check := checkKeys(t, server.Addr)
	fake := func(o Options) store {
		c := newClock()
		o.Now = c.Now
		l, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return limiterStore{l: l, sleep: c.Advance, after: func() {}}
	}
	stores := map[string]func(*testing.T) store{
		"memory": func(*testing.T) store { return fake(Options{}) },
		"away":   func(*testing.T) store { return fake(Options{Redis: &RedisOptions{Address: "127.0.0.1:1"}}) },
		"script": func(t *testing.T) store {
			r := newRemote(RedisOptions{Address: server.Addr})
			t.Cleanup(func() { _ = r.close() })
			if err := r.client.Set(t.Context(), r.marker(), "epoch", time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			return scriptStore{t: t, r: r, after: check}
		},
		"redis": func(t *testing.T) store {
			return limiterStore{l: onRedis(t, Options{}, server.Addr), sleep: time.Sleep, loose: 100 * time.Millisecond, after: check}
		},
	}
	for _, name := range []string{"memory", "away", "script", "redis"} {
		t.Run(name, func(t *testing.T) {
			s := stores[name](t)
			for law, holds := range laws {
				t.Run(strings.ReplaceAll(law, " ", "_"), func(t *testing.T) {
					holds(t, s, "key_"+strings.ReplaceAll(law, " ", "-")+"-"+name)
				})
			}
		})
	}
}

func requests(n int64, w time.Duration) Limits { return Limits{Requests: Limit{n, w}} }

func wantAllowed(t *testing.T, d Decision, allowed bool) Decision {
	t.Helper()
	if d.Allowed != allowed {
		t.Fatalf("allowed %v, want %v: %+v", d.Allowed, allowed, d)
	}
	if !allowed && (d.RetryIn <= 0 || d.Refused == "") || allowed && (d.RetryIn != 0 || d.Refused != "") {
		t.Fatalf("a decision that contradicts itself: %+v", d)
	}
	return d
}

// takes asks n times and wants the same answer each time.
func takes(t *testing.T, s store, subject string, l Limits, n int, allowed bool) (last Decision) {
	t.Helper()
	for range n {
		last = wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: subject, Limits: l}), allowed)
	}
	return last
}

func near(t *testing.T, s store, what string, got, want time.Duration) {
	t.Helper()
	if got > want+time.Microsecond || got < want-s.slack() {
		t.Fatalf("%s %v, want %v, at most %v less", what, got, want, s.slack())
	}
}
