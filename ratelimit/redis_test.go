package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

func client(t *testing.T, addr string) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: addr, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func take(t *testing.T, l *Limiter, a Ask) Decision {
	t.Helper()
	d, err := l.Take(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Redis' clock cannot be set, so short windows: whatever is asked by whichever gateway, by the times at
// which the calls were made no window holds more than its limit.
func TestRandomAsksOfSeveralGatewaysOnRedis(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	limiters := []*Limiter{running(t, Options{Replicas: 2}, server.Addr), running(t, Options{Replicas: 2}, server.Addr)}
	for _, l := range limiters {
		eventually(t, 15*time.Second, "Redis is not used", func() bool { return l.link.Load() != nil })
	}
	var all sync.WaitGroup
	for seed := range uint64(40) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			limits := Limits{
				Requests:   Limit{1 + r.Int64N(10), time.Duration(20+r.IntN(200)) * time.Millisecond},
				Tokens:     Limit{100 + r.Int64N(900), time.Duration(20+r.IntN(200)) * time.Millisecond},
				Concurrent: 1 + r.Int64N(4),
			}
			type done struct {
				span
				used int64
			}
			var admitted []done
			var open []func()
			most := limits
			where := ""
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
				l := limiters[r.IntN(2)]
				a := Ask{ID: newID(), Subject: fmt.Sprint("key_", seed), Limits: limits, Tokens: r.Int64N(400), MinTokens: r.Int64N(50)}
				start := time.Now()
				d, err := l.Take(context.Background(), a)
				if err != nil {
					t.Error(err)
					return
				}
				if where = max(where, d.Storage); d.Storage == StorageMemory {
					// A call took longer than 50 ms on a busy machine: the bound of the package holds.
					most.Requests.Max = limits.Requests.Max + (limits.Requests.Max+1)/2
					most.Tokens.Max = limits.Tokens.Max + (limits.Tokens.Max+1)/2
					most.Concurrent = limits.Concurrent + (limits.Concurrent+1)/2
				}
				if !d.Allowed {
					time.Sleep(min(d.RetryIn, 10*time.Millisecond))
				} else {
					admitted = append(admitted, done{span{start, time.Now()}, d.Granted})
					open = append(open, func() { l.Settle(a, d, d.Granted) })
				}
				if int64(len(open)) > most.Concurrent {
					t.Errorf("seed %d: %d at the same time of %d", seed, len(open), limits.Concurrent)
				}
				for len(open) > 0 && r.IntN(2) == 0 {
					open[0]()
					open = open[1:]
				}
			}
			if where != StorageRedis {
				t.Errorf("seed %d: nothing was decided by Redis", seed)
			}
			for i, first := range admitted {
				var n, used int64
				for _, x := range admitted[i:] {
					if x.end.Sub(first.start) < limits.Requests.Window {
						n++
					}
					if x.end.Sub(first.start) < limits.Tokens.Window {
						used += x.used
					}
				}
				if n > most.Requests.Max || used > most.Tokens.Max {
					t.Errorf("seed %d: %d requests, %d tokens in one window of %+v", seed, n, used, limits)
				}
			}
		})
	}
	all.Wait()
}

// What the books know is in an empty Redis before Redis decides again, with the times it happened at.
func TestAnEmptyRedisIsRebuiltFromTheBooks(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	limits := Limits{Requests: Limit{5, time.Minute}, Tokens: Limit{1000, time.Minute}}
	large := requests(5000, time.Hour)
	var asked time.Duration
	history := func(_ context.Context, since time.Time) ([]Past, error) {
		asked = time.Since(since)
		ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
		past := []Past{
			{ID: newID(), Subject: "key_x", At: ago(20 * time.Second), Tokens: 300, Limits: limits},
			{ID: newID(), Subject: "key_x", At: ago(40 * time.Second), Tokens: 500, Limits: limits},
			{ID: newID(), Subject: "key_x", At: ago(2 * time.Minute), Tokens: 500, Limits: limits},
		}
		for range 1000 {
			past = append(past, Past{ID: newID(), Subject: "key_large", At: ago(30 * time.Minute), Limits: large})
		}
		return past, nil
	}
	l := onRedis(t, Options{History: history, LongestWindow: 90 * time.Minute}, server.Addr)
	if asked < 90*time.Minute || asked > 91*time.Minute {
		t.Errorf("asked for %v", asked)
	}
	for range 2 {
		d, err := l.Peek(t.Context(), "key_x", limits)
		if err != nil || d.Storage != StorageRedis || d.Requests.Remaining != 3 || d.Tokens.Remaining != 200 {
			t.Errorf("%+v, %v", d, err)
		}
		if d.Requests.ResetIn > 41*time.Second || d.Requests.ResetIn < 30*time.Second {
			t.Errorf("%+v", d)
		}
		if d, _ := l.Peek(t.Context(), "key_large", large); d.Requests.Remaining != 4000 {
			t.Errorf("%+v", d)
		}
		if _, err := server.Command("FLUSHALL"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "not rebuilt", func() bool {
			_, _ = l.Peek(t.Context(), "key_x", limits)
			return l.Status().Switches >= 3 && l.link.Load() != nil
		})
	}
}

// A server that comes back with what it had a while ago is another instance.
func TestARestartWithAnOldSnapshotGrantsNothing(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	l := onRedis(t, Options{}, server.Addr)
	limits := requests(10, time.Minute)
	ask := func(n int, allowed bool) {
		t.Helper()
		for range n {
			if d := take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits}); d.Allowed != allowed {
				t.Fatalf("%+v", d)
			}
		}
	}
	ask(4, true)
	if _, err := server.Command("SAVE"); err != nil {
		t.Fatal(err)
	}
	ask(4, true)
	server.Kill()
	ask(1, true)
	server.Restart()
	eventually(t, 5*time.Second, "not back", func() bool { return l.link.Load() != nil })
	if d, _ := l.Peek(t.Context(), "key_x", limits); d.Storage != StorageRedis || d.Requests.Remaining != 1 {
		t.Fatalf("%+v", d)
	}
	ask(1, true)
	ask(5, false)
}

// Redis' clock jumps back by an hour: what happened before seems to be in the future.
func TestTimesInTheFutureLockNobodyOut(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	l := onRedis(t, Options{}, server.Addr)
	c := client(t, server.Addr)
	later := func(d time.Duration) float64 { return float64(time.Now().Add(d).UnixMicro()) }
	c.ZAdd(t.Context(), "{llmgw}:requests:key_x", redis.Z{Score: later(time.Hour), Member: "a"}, redis.Z{Score: later(2 * time.Hour), Member: "b"})
	c.HSet(t.Context(), "{llmgw}:pieces:key_x", fmt.Sprintf("%.0f", later(time.Hour)), 1)
	c.HSet(t.Context(), "{llmgw}:tokens:key_x", fmt.Sprintf("%.0f", later(time.Hour)), 70)
	c.ZAdd(t.Context(), "{llmgw}:concurrent:key_x", redis.Z{Score: later(time.Hour), Member: "a"})
	limits := Limits{Requests: Limit{3, 200 * time.Millisecond}, Tokens: Limit{100, 200 * time.Millisecond}, Concurrent: 2}
	a := Ask{ID: newID(), Subject: "key_x", Limits: limits, Tokens: 50, MinTokens: 50}
	d := take(t, l, a)
	if d.Allowed || d.RetryIn > 210*time.Millisecond || d.Requests.RetryIn == 0 || d.Tokens.RetryIn == 0 || d.Concurrent.Remaining != 1 {
		t.Fatalf("%+v", d)
	}
	time.Sleep(d.RetryIn)
	if d := take(t, l, a); !d.Allowed {
		t.Fatalf("%+v", d)
	}
	if at := c.ZScore(t.Context(), "{llmgw}:concurrent:key_x", "a").Val(); at > later(leaseFor) {
		t.Errorf("a lease of %v", time.Until(time.UnixMicro(int64(at))))
	}
}

// The places of a gateway that died come back, those of one that lives do not.
func TestLeasesAreRenewedAndEnd(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	l, other := onRedis(t, Options{}, server.Addr), onRedis(t, Options{}, server.Addr)
	c := client(t, server.Addr)
	limits := Limits{Requests: Limit{100, time.Minute}, Concurrent: 2}
	mine, dead := Ask{ID: newID(), Subject: "key_x", Limits: limits}, Ask{ID: newID(), Subject: "key_x", Limits: limits}
	held := take(t, l, mine)
	take(t, other, dead)
	if d := take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits}); d.Refused != NameConcurrent {
		t.Fatalf("%+v", d)
	}
	over := float64(time.Now().UnixMicro())
	for _, id := range []string{mine.ID, dead.ID} {
		c.ZAdd(t.Context(), "{llmgw}:concurrent:key_x", redis.Z{Score: over, Member: id})
	}
	l.memory.tellAll(false)
	eventually(t, 5*time.Second, "not renewed", func() bool {
		return c.ZScore(t.Context(), "{llmgw}:concurrent:key_x", mine.ID).Val() > over+50e6
	})
	if d := take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits}); !d.Allowed || d.Concurrent.Remaining != 0 {
		t.Fatalf("%+v", d)
	}
	l.Settle(mine, held, 0)
	eventually(t, 5*time.Second, "Settle did not reach Redis", func() bool {
		_, err := c.ZScore(t.Context(), "{llmgw}:concurrent:key_x", mine.ID).Result()
		return errors.Is(err, redis.Nil)
	})
}

// It counts goroutines, so it does not run beside others.
func TestSettleWaitsForNothingAndTheQueueIsBounded(t *testing.T) {
	before := runtime.NumGoroutine()
	l, err := New(Options{Redis: &RedisOptions{Address: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	limits := Limits{Requests: Limit{1 << 40, time.Hour}, Tokens: Limit{1 << 40, time.Hour}, Concurrent: 1 << 40}
	for i := range maxJournal + 500 {
		a := Ask{ID: fmt.Sprint(i), Subject: fmt.Sprint("key_", i%10), Limits: limits, Tokens: 10}
		l.Settle(a, take(t, l, a), 5)
	}
	if s := l.Status(); s.Dropped != 500 || l.memory.backlog() != maxJournal || len(l.memory.ops) > 2*maxJournal {
		t.Errorf("%+v, %d waiting, %d held", s, l.memory.backlog(), len(l.memory.ops))
	}
	if n := runtime.NumGoroutine(); n > before+20 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func TestParseRedisURL(t *testing.T) {
	t.Parallel()
	o, err := ParseRedisURL("redis://user:pass@host:1234/3")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(RedisOptions{Address: "host:1234", Username: "user", Password: "pass", DB: 3}, o); diff != "" {
		t.Error(diff)
	}
	if o, err = ParseRedisURL("rediss://:pass@host"); err != nil || o.TLS == nil || o.TLS.ServerName != "host" || o.Address != "host:6379" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, url := range []string{"", "hunter2", "http://hunter2@host", "redis://:hunter2@host/x", "redis://:hunter2@ho st", "redis://:hunter2%zz@host", "unix://hunter2", "redis://:hunter2@host/0?what=ever"} {
		if _, err := ParseRedisURL(url); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{OnError: "open"}, {Redis: &RedisOptions{}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

// With Redis gone for good nothing piles up: no goroutines, no connections.
func TestNothingPilesUpWithoutRedis(t *testing.T) {
	server := rig.StartRedis(t)
	proxy := rig.StartProxy(t, server.Addr)
	l := onRedis(t, Options{}, proxy.Addr)
	proxy.Hole()
	var samples []int
	for range 6 {
		for i := range 200 {
			take(t, l, Ask{ID: newID(), Subject: fmt.Sprint("key_", i), Limits: requests(5, time.Second)})
		}
		time.Sleep(300 * time.Millisecond)
		samples = append(samples, runtime.NumGoroutine())
	}
	if slices.Max(samples[3:]) > samples[1]+30 {
		t.Errorf("goroutines: %v", samples)
	}
}

// Keys of ours are gone although the marker is there, as after an eviction: what this gateway itself
// admitted it still counts, and Redis' admission is undone.
func TestWhatRedisForgotIsKnownHere(t *testing.T) {
	t.Parallel()
	server := rig.StartRedis(t)
	l := onRedis(t, Options{}, server.Addr)
	c := client(t, server.Addr)
	limits := Limits{Requests: Limit{5, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 10}
	for range 3 {
		take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits, Tokens: 30, MinTokens: 30})
	}
	forget := func() {
		c.Del(t.Context(), "{llmgw}:requests:key_x", "{llmgw}:tokens:key_x", "{llmgw}:concurrent:key_x")
	}
	forget()
	if d := take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits, Tokens: 30, MinTokens: 30}); d.Refused != NameTokens {
		t.Fatalf("%+v", d)
	}
	if d := take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits, Tokens: 30, MinTokens: 5}); !d.Allowed || d.Granted != 10 {
		t.Fatalf("%+v", d)
	}
	take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits})
	forget()
	if d := take(t, l, Ask{ID: newID(), Subject: "key_x", Limits: limits}); d.Refused != NameRequests || d.RetryIn < 50*time.Second {
		t.Fatalf("%+v", d)
	}
	eventually(t, 5*time.Second, "not undone", func() bool { return c.ZCard(t.Context(), "{llmgw}:requests:key_x").Val() == 0 })
}
