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
		s.t.Fatal(err)
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
func (s scriptStore) slack() time.Duration { return 100 * time.Millisecond }

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
	calls := 0
	return func() {
		if calls++; calls%50 != 0 && calls%1000 > 100 { // the long loops are looked at now and then
			return
		}
		bad, err := c.Eval(context.Background(), `local bad = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then bad[#bad + 1] = key .. ' has no TTL' end
  bad[#bad + 1] = key
end
return bad`, nil).StringSlice()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range bad {
			if !name.MatchString(key) {
				t.Fatalf("a key that must not be: %s", key)
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

// laws hold for every store.
var laws = map[string]func(t *testing.T, s store, key string){
	"the limit and not one more": func(t *testing.T, s store, key string) {
		l := requests(5, 400*time.Millisecond)
		for left := int64(4); left >= 0; left-- {
			if d := takes(t, s, key, l, 1, true); d.Requests.Remaining != left || d.Requests.Limit != l.Requests || d.Requests.ResetIn <= 0 {
				t.Fatalf("%+v, want %d left", d, left)
			}
		}
		d := takes(t, s, key, l, 3, false)
		if d.Refused != NameRequests || d.Requests.Remaining != 0 || d.Requests.ResetIn < d.RetryIn {
			t.Fatalf("%+v", d)
		}
		s.wait(d.RetryIn)
		takes(t, s, key, l, 1, true)
	},
	"retry times are true": func(t *testing.T, s store, key string) {
		l := requests(3, 300*time.Millisecond)
		for range 3 {
			takes(t, s, key, l, 1, true)
			s.wait(70 * time.Millisecond)
		}
		for range 5 {
			d := s.take(t, Ask{ID: newID(), Subject: key, Limits: l})
			if d.Allowed {
				continue
			}
			p := s.peek(t, key, l)
			near(t, s, "Peek's wait", p.RetryIn, d.RetryIn)
			s.wait(d.RetryIn)
			takes(t, s, key, l, 1, true)
		}
	},
	"sub-windows are late by at most one": func(t *testing.T, s store, key string) {
		window := 2560 * time.Millisecond // long beside the time that 1,200 asks take
		l := requests(1200, window)
		takes(t, s, key, l, 1200, true)
		d := takes(t, s, key, l, 1, false)
		if d.RetryIn > window+window/64 {
			t.Fatalf("%+v", d)
		}
		s.wait(d.RetryIn)
		takes(t, s, key, l, 1, true)
	},
	"the same id takes once": func(t *testing.T, s store, key string) {
		for i, l := range []Limits{
			requests(3, time.Minute), requests(2000, time.Minute),
			{Requests: Limit{3, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 3},
		} {
			a := Ask{ID: newID(), Subject: fmt.Sprint(key, i), Limits: l, Tokens: 60, MinTokens: 1}
			var granted int64
			if l.Tokens.Max > 0 {
				granted = 60
			}
			for range 4 {
				if d := wantAllowed(t, s.take(t, a), true); d.Granted != granted || d.Requests.Remaining != l.Requests.Max-1 {
					t.Fatalf("%+v", d)
				}
			}
			if d := s.peek(t, a.Subject, l); d.Requests.Remaining != l.Requests.Max-1 || l.Tokens.Max > 0 && d.Tokens.Remaining != 40 {
				t.Fatalf("%+v", d)
			}
		}
	},
	"given back once": func(t *testing.T, s store, key string) {
		for i, l := range []Limits{
			requests(3, time.Minute), requests(2000, time.Minute),
			{Requests: Limit{3, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 2},
		} {
			subject := fmt.Sprint(key, i)
			stays := Ask{ID: newID(), Subject: subject, Limits: l, Tokens: 10, MinTokens: 1}
			wantAllowed(t, s.take(t, stays), true)
			a := Ask{ID: newID(), Subject: subject, Limits: l, Tokens: 50, MinTokens: 1}
			d := wantAllowed(t, s.take(t, a), true)
			for range 3 {
				s.giveBack(a, d)
			}
			if l.Concurrent > 0 {
				refused := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: subject, Limits: l, Tokens: 500, MinTokens: 95}), false)
				s.giveBack(Ask{ID: newID(), Subject: subject, Limits: l}, refused)
			}
			p := s.peek(t, subject, l)
			if p.Requests.Remaining != l.Requests.Max-1 || l.Tokens.Max > 0 && p.Tokens.Remaining != 90 || l.Concurrent > 0 && p.Concurrent.Remaining != 1 {
				t.Fatalf("%d: %+v", i, p)
			}
		}
	},
	"all or nothing": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{10, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 5}
		wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 90, MinTokens: 90}), true)
		for range 5 {
			d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 90, MinTokens: 20}), false)
			if d.Refused != NameTokens || d.Granted != 0 || d.Requests.Remaining != 9 || d.Tokens.Remaining != 10 || d.Concurrent.Remaining != 4 || d.Requests.RetryIn != 0 {
				t.Fatalf("%+v", d)
			}
		}
	},
	"the longest wait answers": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{1, time.Minute}, Tokens: Limit{10, time.Hour}, Concurrent: 1}
		wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 10, MinTokens: 10}), true)
		d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 10, MinTokens: 10}), false)
		if d.Refused != NameTokens || d.RetryIn != d.Tokens.RetryIn || d.RetryIn < 59*time.Minute {
			t.Fatalf("%+v", d)
		}
		if d.Requests.RetryIn < 50*time.Second || d.Requests.RetryIn > time.Minute || d.Concurrent.RetryIn != retryConcurrent {
			t.Fatalf("%+v", d)
		}
	},
	"tokens are held and corrected": func(t *testing.T, s store, key string) {
		window := 640 * time.Millisecond
		l := Limits{Requests: Limit{100, time.Minute}, Tokens: Limit{100, window}}
		a := Ask{ID: newID(), Subject: key, Limits: l, Tokens: 80, MinTokens: 10}
		d := wantAllowed(t, s.take(t, a), true)
		b := Ask{ID: newID(), Subject: key, Limits: l, Tokens: 80, MinTokens: 10}
		if e := wantAllowed(t, s.take(t, b), true); d.Granted != 80 || e.Granted != 20 || e.Tokens.Remaining != 0 {
			t.Fatalf("granted %d and %d", d.Granted, e.Granted)
		}
		s.settle(a, d, 30)
		s.settle(a, d, 1) // once
		if p := s.peek(t, key, l); p.Tokens.Remaining != 50 && s.slack() == 0 {
			t.Fatalf("%+v", p)
		}
		c := Ask{ID: newID(), Subject: key, Limits: l, Tokens: 50, MinTokens: 10}
		e := wantAllowed(t, s.take(t, c), true)
		s.settle(c, e, 500) // more than was held: the truth is recorded
		f := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 10, MinTokens: 5}), false)
		if f.Refused != NameTokens || f.Tokens.Remaining != 0 || f.RetryIn > window+window/64+time.Microsecond {
			t.Fatalf("%+v", f)
		}
		s.wait(f.RetryIn)
		if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 100, MinTokens: 5}), true); d.Granted < 5 {
			t.Fatalf("%+v", d)
		}
	},
	"more than the limit is never granted": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{10, time.Minute}, Tokens: Limit{100, time.Minute}}
		if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 500, MinTokens: 101}), false); d.RetryIn != Never || d.Refused != NameTokens {
			t.Fatalf("%+v", d)
		}
		if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 500, MinTokens: 100}), true); d.Granted != 100 {
			t.Fatalf("%+v", d)
		}
	},
	"an ask that is no ask is refused": func(t *testing.T, s store, key string) {
		for _, l := range []Limits{{}, requests(-1, time.Second), requests(1, 0), {Requests: Limit{1, time.Second}, Concurrent: -1}, {Requests: Limit{1, time.Second}, Tokens: Limit{Max: 5}}} {
			if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l}), false); d.RetryIn != Never {
				t.Fatalf("%+v", d)
			}
		}
		wantAllowed(t, s.take(t, Ask{Subject: key, Limits: requests(1, time.Second)}), false)
	},
	"concurrent places": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{100, time.Minute}, Concurrent: 2}
		a, b := Ask{ID: newID(), Subject: key, Limits: l}, Ask{ID: newID(), Subject: key, Limits: l}
		da, db := wantAllowed(t, s.take(t, a), true), wantAllowed(t, s.take(t, b), true)
		if da.Concurrent.Remaining != 1 || db.Concurrent.Remaining != 0 {
			t.Fatalf("%+v\n%+v", da, db)
		}
		if d := takes(t, s, key, l, 2, false); d.Refused != NameConcurrent || d.RetryIn != retryConcurrent {
			t.Fatalf("%+v", d)
		}
		s.settle(a, da, 0)
		s.settle(a, da, 0)
		takes(t, s, key, l, 1, true)
		takes(t, s, key, l, 1, false)
		s.giveBack(b, db)
		s.settle(b, db, 0)
		takes(t, s, key, l, 1, true)
		takes(t, s, key, l, 1, false)
	},
	"a limit raised and lowered": func(t *testing.T, s store, key string) {
		takes(t, s, key, requests(5, time.Minute), 5, true)
		takes(t, s, key, requests(8, time.Minute), 3, true)
		takes(t, s, key, requests(5, time.Minute), 1, false)
		takes(t, s, key, requests(8, time.Minute), 1, false)
		takes(t, s, key, requests(1005, time.Minute), 997, true)
		takes(t, s, key, requests(1005, time.Minute), 1, false)
		takes(t, s, key, requests(1000, time.Minute), 1, false)
		takes(t, s, key, requests(1006, time.Minute), 1, true)
	},
	"a window shortened and lengthened": func(t *testing.T, s store, key string) {
		takes(t, s, key, requests(3, time.Minute), 3, true)
		s.wait(120 * time.Millisecond)
		takes(t, s, key, requests(3, 100*time.Millisecond), 2, true)
		takes(t, s, key, requests(5, time.Minute), 1, false)
		takes(t, s, key, requests(6, time.Minute), 1, true)
		takes(t, s, key, requests(6, time.Minute), 1, false)
	},
	"refusals do not count": func(t *testing.T, s store, key string) {
		l := requests(1, 200*time.Millisecond)
		takes(t, s, key, l, 1, true)
		d := takes(t, s, key, l, 50, false)
		s.wait(d.RetryIn)
		takes(t, s, key, l, 1, true)
	},
}
