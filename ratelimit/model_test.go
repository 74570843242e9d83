package ratelimit

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

// wallClock gives times as time.Now does, with a monotonic reading, from a wall clock that somebody sets.
type wallClock struct {
	base time.Time // from time.Now: has a monotonic reading
	run  time.Duration
	set  time.Duration // by how much the wall clock was set
}

func (c *wallClock) Now() time.Time { return withWall(c.base.Add(c.run), c.set) }

// withWall changes the wall clock's reading of a time by whole seconds and leaves the monotonic one.
// The layout is that of time.Time: a flag, 33 bits of seconds since 1885, 30 bits of nanoseconds.
func withWall(t time.Time, by time.Duration) time.Time {
	word := (*uint64)(unsafe.Pointer(&t))
	*word += uint64(int64(by/time.Second)) << 30
	return t
}

func TestWithWallSetsOnlyTheWallClock(t *testing.T) {
	now := time.Now()
	set := withWall(now, -50*365*24*time.Hour)
	if set.Sub(now) != 0 || set.Year() > now.Year()-49 {
		t.Fatalf("%v, %v", set.Sub(now), set)
	}
}

// truth is everything that was admitted to one subject and not given back.
type truth struct {
	asks []taken
}

type taken struct {
	a    Ask
	d    Decision
	at   time.Duration
	used int64
	done bool
}

func (m *truth) requests(now, window time.Duration) (n int64) {
	for _, x := range m.asks {
		if x.at > now-window {
			n++
		}
	}
	return n
}

func (m *truth) tokens(now, window time.Duration) (n int64) {
	for _, x := range m.asks {
		if x.at > now-window {
			n += x.used
		}
	}
	return n
}

func (m *truth) live() (n int64) {
	for _, x := range m.asks {
		if !x.done {
			n++
		}
	}
	return n
}

// check compares a decision with the truth: requests and places exactly, tokens within one sub-window.
func (m *truth) check(t *rapid.T, now time.Duration, a Ask, d Decision) {
	l := a.Limits
	requests, live := m.requests(now, l.Requests.Window), m.live()
	least := a.least()
	sure := m.tokens(now, l.Tokens.Window) + least
	late := m.tokens(now, l.Tokens.Window+l.Tokens.Window/subWindows) + least
	might := requests < l.Requests.Max && live < l.Concurrent && (sure <= l.Tokens.Max || least == 0)
	must := requests < l.Requests.Max && live < l.Concurrent && (late <= l.Tokens.Max || least == 0)
	if d.Allowed && !might || !d.Allowed && must {
		t.Fatalf("allowed %v; used: %d requests of %d, %d to %d tokens of %d for %d, %d of %d places: %+v",
			d.Allowed, requests, l.Requests.Max, sure-least, late-least, l.Tokens.Max, least, live, l.Concurrent, d)
	}
	if !d.Allowed {
		return
	}
	if d.Granted < least || d.Granted > max(0, a.Tokens) || d.Granted > max(0, l.Tokens.Max-(sure-least)) {
		t.Fatalf("granted %d of %d, at least %d, with %d used of %d", d.Granted, a.Tokens, least, sure-least, l.Tokens.Max)
	}
}

// All limits together, whatever the wall clock does and wherever in the calendar.
func TestAllLimitsAgreeWithTheModel(t *testing.T) {
	starts := []time.Duration{0, 24 * time.Hour, -24 * time.Hour, 30 * 24 * time.Hour}
	check1000(t, func(t *rapid.T) {
		c := &wallClock{base: time.Now(), set: rapid.SampledFrom(starts).Draw(t, "start")}
		l, err := New(Options{Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		m := &truth{}
		limits := Limits{
			Requests:   Limit{rapid.Int64Range(1, 8).Draw(t, "requests"), time.Duration(rapid.Int64Range(1, 100).Draw(t, "window")) * time.Second},
			Tokens:     Limit{rapid.Int64Range(1, 1000).Draw(t, "tokens"), time.Duration(rapid.Int64Range(1, 100).Draw(t, "tokens window")) * time.Second},
			Concurrent: rapid.Int64Range(1, 5).Draw(t, "concurrent"),
		}
		for i := range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "action") {
			case 0, 1, 2, 3:
				a := Ask{
					ID: fmt.Sprint(i), Subject: "a", Limits: limits,
					Tokens: rapid.Int64Range(0, 600).Draw(t, "ask"), MinTokens: rapid.Int64Range(0, 200).Draw(t, "least"),
				}
				d, _ := l.Take(t.Context(), a)
				if d.RetryIn == Never && a.least() > limits.Tokens.Max {
					continue
				}
				m.check(t, c.run, a, d)
				if d.Allowed {
					m.asks = append(m.asks, taken{a: a, d: d, at: c.run, used: d.Granted})
					continue
				}
				if d.Refused != NameConcurrent && rapid.Bool().Draw(t, "wait") {
					c.run += d.RetryIn
					p, _ := l.Peek(t.Context(), "a", limits)
					if p.Requests.RetryIn > 0 || p.Tokens.Remaining < a.least() {
						t.Fatalf("waited %v in vain for %d tokens: %+v", d.RetryIn, a.least(), p)
					}
				}
			case 4, 5:
				if len(m.asks) == 0 {
					continue
				}
				x := &m.asks[rapid.IntRange(0, len(m.asks)-1).Draw(t, "which")]
				used := rapid.Int64Range(0, 800).Draw(t, "used")
				l.Settle(x.a, x.d, used)
				if !x.done {
					x.done, x.used = true, used
				}
			case 6:
				if len(m.asks) == 0 {
					continue
				}
				i := len(m.asks) - 1
				if x := m.asks[i]; !x.done {
					l.GiveBack(t.Context(), x.a, x.d)
					l.GiveBack(t.Context(), x.a, x.d)
					m.asks = m.asks[:i]
				}
			case 7, 8:
				c.run += time.Duration(rapid.Int64Range(0, 40_000).Draw(t, "advance")) * time.Millisecond
			case 9:
				jumps := []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, -(time.Duration(c.Now().Unix()) * time.Second)}
				c.set += rapid.SampledFrom(jumps).Draw(t, "jump")
			}
		}
	})
}

// Three gateways that never see Redis admit together no more than the limit, when it can be shared.
func TestSharesTogetherAreTheLimit(t *testing.T) {
	check1000(t, func(t *rapid.T) {
		c := newClock()
		replicas := rapid.IntRange(1, 5).Draw(t, "replicas")
		var all []*Limiter
		for range replicas {
			l, err := New(Options{Now: c.Now, Redis: &RedisOptions{Address: "127.0.0.1:1"}, Replicas: replicas})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, l)
		}
		limits := Limits{
			Requests: Limit{rapid.Int64Range(1, 20).Draw(t, "requests"), 10 * time.Second},
			Tokens:   Limit{rapid.Int64Range(100, 1000).Draw(t, "tokens"), 10 * time.Second},
		}
		m := &truth{}
		for i := range rapid.IntRange(1, 150).Draw(t, "steps") {
			c.Advance(time.Duration(rapid.Int64Range(0, 1000).Draw(t, "advance")) * time.Millisecond)
			now := c.t.Sub(newClock().t)
			a := Ask{ID: fmt.Sprint(i), Subject: "a", Limits: limits, Tokens: rapid.Int64Range(1, 300).Draw(t, "ask"), MinTokens: 1}
			d, err := all[rapid.IntRange(0, replicas-1).Draw(t, "which")].Take(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			if d.Allowed {
				m.asks = append(m.asks, taken{a: a, d: d, at: now, used: d.Granted})
			} else if d.RetryIn <= 0 || d.RetryIn > 11*time.Second {
				t.Fatalf("%+v", d)
			}
			if n := m.requests(now, limits.Requests.Window); n > max(limits.Requests.Max, int64(replicas)) {
				t.Fatalf("%d requests of %d by %d gateways", n, limits.Requests.Max, replicas)
			}
			if n := m.tokens(now, limits.Tokens.Window); n > limits.Tokens.Max {
				t.Fatalf("%d tokens of %d by %d gateways", n, limits.Tokens.Max, replicas)
			}
		}
	})
}
