package ratelimit

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// store is what the suite drives: one way to keep windows.
type store interface {
	take(t *testing.T, a Ask) Decision
	peek(t *testing.T, subject string, l Limits) Decision
	giveBack(a Ask, d Decision)
	settle(a Ask, d Decision, tokens int64)
	wait(d time.Duration)
	slack() time.Duration // by how much waits that were measured around a call may differ
}

// limiterStore is a whole limiter.
type limiterStore struct {
	l     *Limiter
	sleep func(time.Duration)
	loose time.Duration
	after func()
}

func (s limiterStore) take(t *testing.T, a Ask) Decision {
	t.Helper()
	d, err := s.l.Take(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	s.after()
	return d
}

func (s limiterStore) peek(t *testing.T, subject string, l Limits) Decision {
	t.Helper()
	d, err := s.l.Peek(t.Context(), subject, l)
	if err != nil {
		t.Fatal(err)
	}
	s.after()
	return d
}

func (s limiterStore) giveBack(a Ask, d Decision) {
	s.l.GiveBack(context.Background(), a, d)
	s.after()
}

func (s limiterStore) settle(a Ask, d Decision, n int64) {
	s.l.Settle(a, d, n)
	s.after()
}
func (s limiterStore) wait(d time.Duration) { s.sleep(d) }
func (s limiterStore) slack() time.Duration { return s.loose }

// scriptStore is the script alone, without what the limiter remembers beside it.
type scriptStore struct {
	t     *testing.T
	r     *remote
	after func()
}

func (s scriptStore) ask(t *testing.T, mode string, a Ask) Decision {
	t.Helper()
	defer s.after()
	if a.never() {
		return newMemory(Options{Now: time.Now, MaxSubjects: 1}).take(&a, own())
	}
	got, err := s.r.decide(t.Context(), mode, "epoch", &a, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Decision
}

func (s scriptStore) take(t *testing.T, a Ask) Decision { t.Helper(); return s.ask(t, "take", a) }
func (s scriptStore) peek(t *testing.T, subject string, l Limits) Decision {
	t.Helper()
	return s.ask(t, "peek", Ask{ID: "peek", Subject: subject, Limits: l})
}

func (s scriptStore) put(a Ask, p put) {
	p.id, p.limits = a.ID, a.Limits
	if err := s.r.put(context.Background(), "epoch", parcel{s: &subject{name: a.Subject}, puts: []put{p}}, false, loose{}, loose{}); err != nil {
		s.t.Error(err)
	}
	s.after()
}

func (s scriptStore) giveBack(a Ask, d Decision) {
	if d.Allowed {
		s.put(a, put{gone: true})
	}
}

func (s scriptStore) settle(a Ask, d Decision, n int64) {
	if d.Allowed {
		s.put(a, put{tokens: n})
	}
}
func (s scriptStore) wait(d time.Duration) { time.Sleep(d) }
func (s scriptStore) slack() time.Duration { return 400 * time.Millisecond }

// onRedis is a limiter on a Redis that it has found.
func onRedis(t testing.TB, o Options, addr string) *Limiter {
	t.Helper()
	l := running(t, o, addr)
	eventually(t, 10*time.Second, "the limiter did not go to Redis", func() bool { return l.link.Load() != nil })
	return l
}

func running(t testing.TB, o Options, addr string) *Limiter {
	t.Helper()
	if o.Redis == nil {
		o.Redis = &RedisOptions{}
	}
	redisOptions := *o.Redis
	redisOptions.Address = addr
	o.Redis = &redisOptions
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func eventually(t testing.TB, within time.Duration, text string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(text)
		}
	}
}

// checkKeys fails when a key has no TTL or a name with anything else in it than it may have.
func checkKeys(t *testing.T, addr string) func() {
	c := redis.NewClient(&redis.Options{Addr: addr, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = c.Close() })
	name := regexp.MustCompile(`^\{llmgw\}:(marker|probe|rebuild|(requests|pieces|tokens|concurrent):key_[A-Za-z0-9-]+|op:id-[a-z0-9-]+)$`)
	var calls atomic.Int64
	return func() {
		if n := calls.Add(1); n%20 != 0 && n > 50 { // the long loops are looked at now and then
			return
		}
		bad, err := c.Eval(context.Background(), `local bad = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then bad[#bad + 1] = key .. ' has no TTL' end
  bad[#bad + 1] = key
end
return bad`, nil).StringSlice()
		if err != nil {
			t.Error(err)
		}
		for _, key := range bad {
			if !name.MatchString(key) {
				t.Errorf("a key that must not be: %s", key)
			}
		}
	}
}

var lastID atomic.Int64

func newID() string { return fmt.Sprintf("id-%d", lastID.Add(1)) }

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
			if err := r.probe.Set(t.Context(), r.marker(), "epoch", time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			_ = r.client.Close()
			r.client = r.probe // more patient: here the script is tested, not the time a busy machine takes
			return scriptStore{t: t, r: r, after: check}
		},
		"redis": func(t *testing.T) store {
			return limiterStore{l: onRedis(t, Options{}, server.Addr), sleep: time.Sleep, loose: 400 * time.Millisecond, after: check}
		},
	}
	for _, name := range []string{"memory", "away", "script", "redis"} {
		t.Run(name, func(t *testing.T) {
			s := stores[name](t)
			for law, holds := range laws {
				t.Run(strings.ReplaceAll(law, " ", "_"), func(t *testing.T) {
					if s.slack() > 0 {
						t.Parallel() // in real time; where the clock is fake all share it
					}
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
