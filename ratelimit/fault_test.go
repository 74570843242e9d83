package ratelimit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// span is one call: an admission happened somewhere within it.
type span struct{ start, end time.Time }

// crowd asks limiters for one subject, all the time, and remembers every admission.
type crowd struct {
	t       testing.TB
	limit   Limit
	subject string
	books   *books

	mu       sync.Mutex
	admitted []span
	took     []time.Duration
	stop     context.CancelFunc
	done     sync.WaitGroup
}

func newCrowd(t testing.TB, subject string, limit Limit, b *books, limiters ...*Limiter) *crowd {
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{t: t, limit: limit, subject: subject, books: b, stop: cancel}
	for _, l := range limiters {
		for range 3 {
			c.done.Go(func() { c.ask(ctx, l) })
		}
	}
	t.Cleanup(c.end)
	return c
}

func (c *crowd) end() {
	c.stop()
	c.done.Wait()
}

func (c *crowd) ask(ctx context.Context, l *Limiter) {
	for ctx.Err() == nil {
		a := Ask{ID: newID(), Subject: c.subject, Limits: Limits{Requests: c.limit}}
		start := time.Now()
		d, err := l.Take(ctx, a)
		end := time.Now()
		if err != nil {
			c.t.Errorf("Take: %v", err)
			return
		}
		c.mu.Lock()
		c.took = append(c.took, end.Sub(start))
		if d.Allowed {
			c.books.add(Past{ID: a.ID, Subject: a.Subject, At: end, Limits: a.Limits})
			c.admitted = append(c.admitted, span{start, end})
		}
		c.mu.Unlock()
		l.Settle(a, d, 0)
		time.Sleep(3 * time.Millisecond)
	}
}

// most is the largest number of admissions that certainly happened within one window.
func (c *crowd) most() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(c.admitted)
	slices.SortFunc(all, func(a, b span) int { return a.start.Compare(b.start) })
	for i, first := range all {
		inside := 0
		for _, x := range all[i:] {
			if x.start.Sub(first.start) >= c.limit.Window {
				break
			}
			if x.end.Sub(first.start) < c.limit.Window {
				inside++
			}
		}
		n = max(n, inside)
	}
	return n
}

// slowest is the time that 99 in 100 calls did not exceed, and the longest.
func (c *crowd) slowest() (p99, longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.took)
	return c.took[len(c.took)*99/100], c.took[len(c.took)-1]
}

func (c *crowd) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.admitted)
}

// fault is one way in which Redis fails and comes back.
type fault struct {
	name     string
	inject   func(*scene)
	heal     func(*scene)
	switches bool // memory must have taken over
	nobooks  bool // the gateways' own memory must do
}

type scene struct {
	t     *testing.T
	redis *rig.Redis
	proxy *rig.Proxy
}

func (s *scene) command(line string) {
	if _, err := s.redis.Command(line); err != nil {
		s.t.Errorf("%s: %v", line, err)
	}
}

func commands(lines ...string) func(*scene) {
	return func(s *scene) {
		for _, line := range lines {
			s.command(line)
		}
	}
}

func faults() []fault {
	nothing := func(*scene) {}
	return []fault{
		{"killed and restarted empty", func(s *scene) { s.redis.Kill() }, func(s *scene) { s.redis.Restart() }, true, false},
		{"stopped", func(s *scene) { s.redis.Pause() }, func(s *scene) { s.redis.Resume() }, true, false},
		{"flushed", commands("FLUSHALL"), nothing, true, false},
		{"flushed without books", commands("FLUSHALL"), nothing, true, true},
		{"restarted empty without books", func(s *scene) { s.redis.Kill() }, func(s *scene) { s.redis.Restart() }, true, true},
		{"readonly", commands("REPLICAOF 127.0.0.1 1"), commands("REPLICAOF NO ONE"), true, false},
		{"out of memory", commands("CONFIG SET maxmemory 1"), commands("CONFIG SET maxmemory 0"), true, false},
		{"script flushed", commands("SCRIPT FLUSH"), nothing, false, false},
		{"password set", commands("CONFIG SET requirepass secret", "AUTH secret\r\nCLIENT KILL TYPE normal SKIPME yes"), commands("AUTH secret\r\nCONFIG SET requirepass \"\""), true, false},
		{"wrong type", commands("SET {one}:requests:key_x text", "SET {three}:requests:key_x text"), nothing, false, false},
		{"marker of a wrong type", commands("DEL {one}:marker {three}:marker", "LPUSH {one}:marker text", "LPUSH {three}:marker text"), nothing, true, false},
		{"slow", func(s *scene) { s.proxy.Slow(80 * time.Millisecond) }, func(s *scene) { s.proxy.Pass() }, true, false},
		{"black hole", func(s *scene) { s.proxy.Hole() }, func(s *scene) { s.proxy.Pass() }, true, false},
		{"refused", func(s *scene) { s.proxy.Refuse() }, func(s *scene) { s.proxy.Pass() }, true, false},
		{"connections cut", func(s *scene) { s.proxy.Cut() }, nothing, false, false},
		{"flapping", func(s *scene) {
			for range 3 {
				s.proxy.Refuse()
				time.Sleep(300 * time.Millisecond)
				s.proxy.Pass()
				time.Sleep(300 * time.Millisecond)
			}
		}, nothing, true, false},
	}
}

// books know every admission of a crowd, as soon as it was made.
type books struct {
	mu   sync.Mutex
	past []Past
}

func (b *books) add(p Past) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.past = append(b.past, p)
}

func (b *books) history(_ context.Context, since time.Time) ([]Past, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.past), func(p Past) bool { return p.At.Before(since) }), nil
}

// Whatever happens to Redis: no call fails or waits long, no window holds more than the bound, and
// Redis decides again soon, granting no second quota.
func TestFaults(t *testing.T) {
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := &scene{t: t, redis: rig.StartRedis(t)}
			s.proxy = rig.StartProxy(t, s.redis.Addr)
			ones, threes := &books{}, &books{}
			options := func(prefix string, replicas int, b *books) Options {
				o := Options{Redis: &RedisOptions{Prefix: prefix}, Replicas: replicas, History: b.history, LongestWindow: time.Minute}
				if f.nobooks {
					o.History = nil
				}
				return o
			}
			single := running(t, options("one", 1, ones), s.proxy.Addr)
			var three []*Limiter
			for range 3 {
				three = append(three, running(t, options("three", 3, threes), s.proxy.Addr))
			}
			all := append(slices.Clone(three), single)
			trusted := func() bool {
				return !slices.ContainsFunc(all, func(l *Limiter) bool { return l.link.Load() == nil })
			}
			eventually(t, 15*time.Second, "Redis is not used", trusted)
			limit := Limit{21, 500 * time.Millisecond}
			one, many := newCrowd(t, "key_x", limit, ones, single), newCrowd(t, "key_x", limit, threes, three...)
			time.Sleep(500 * time.Millisecond)
			f.inject(s)
			time.Sleep(1200 * time.Millisecond)
			during := one.count()
			f.heal(s)
			healed := time.Now()
			eventually(t, 15*time.Second, "Redis is back and not used", trusted)
			back := time.Since(healed)
			time.Sleep(700 * time.Millisecond)
			one.end()
			many.end()

			if during < 21 || one.count() <= during {
				t.Errorf("only %d admissions until Redis was back, %d in all", during, one.count())
			}
			if n := one.most(); int64(n) > limit.Max {
				t.Errorf("one gateway: %d in one window of %d", n, limit.Max)
			}
			if n, bound := many.most(), limit.Max+2*7; int64(n) > bound {
				t.Errorf("three gateways: %d in one window, the bound is %d", n, bound)
			}
			if back > 5*time.Second {
				t.Errorf("back after %v", back)
			}
			p99, longest := one.slowest()
			if longest > time.Second {
				t.Errorf("a call took %v", longest)
			}
			status := single.Status()
			if status.Decisions[StorageRedis] == 0 || f.switches && status.Switches < 3 || status.Dropped != 0 {
				t.Errorf("%+v", status)
			}
			t.Logf("one gateway: most %d of %d, three: most %d; p99 %v, longest %v; back after %v; errors %v, switches %d",
				one.most(), limit.Max, many.most(), p99, longest, back, status.RedisErrors, status.Switches)
		})
	}
}

func TestRedisIsNotThereAtStart(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	server.Kill()
	core, logs := observer.New(zap.InfoLevel)
	l := running(t, Options{Log: zap.New(core)}, server.Addr)
	limit := Limit{10, 3 * time.Second}
	c := newCrowd(t, "key_x", limit, &books{}, l)
	time.Sleep(time.Second)
	if s := l.Status(); s.Storage != StorageMemory || !s.Configured || s.LastError != classRefused || s.Decisions[StorageMemory] == 0 {
		t.Errorf("%+v", s)
	}
	server.Restart()
	eventually(t, 5*time.Second, "Redis is there and not used", func() bool { return l.link.Load() != nil })
	time.Sleep(time.Second)
	c.end()
	if n := c.most(); n != 10 {
		t.Errorf("%d in one window", n)
	}
	if logs.Len() > 4 {
		t.Errorf("%d log lines: %v", logs.Len(), logs.All())
	}
}

func TestClosedRefusesWithoutRedis(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	l := onRedis(t, Options{OnError: OnErrorClosed}, server.Addr)
	limits := requests(5, time.Minute)
	if d, err := l.Take(t.Context(), Ask{ID: newID(), Subject: "key_x", Limits: limits}); err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	server.Kill()
	for range 10 {
		if d, err := l.Take(t.Context(), Ask{ID: newID(), Subject: "key_x", Limits: limits}); !errors.Is(err, ErrUnavailable) || d.Allowed {
			t.Fatal(d, err)
		}
		if _, err := l.Peek(t.Context(), "key_x", limits); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
	}
}
