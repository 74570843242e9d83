package ratelimit

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

func TestTheSmallestExample(t *testing.T) {
	l, c := newLimiter(t)
	two := Limit{2, 10 * time.Second}
	want(t, l.Take("a", two), answer{Allowed: true, Limit: two, Remaining: 1, ResetIn: 10 * time.Second})
	c.Advance(4 * time.Second)
	want(t, l.Take("a", two), answer{Allowed: true, Limit: two, ResetIn: 10 * time.Second})
	c.Advance(5 * time.Second)
	want(t, l.Take("a", two), answer{Limit: two, RetryIn: time.Second, ResetIn: 5 * time.Second})
	c.Advance(time.Second)
	want(t, l.Take("a", two), answer{Allowed: true, Limit: two, ResetIn: 10 * time.Second})
	want(t, l.Take("a", two), answer{Limit: two, RetryIn: 4 * time.Second, ResetIn: 10 * time.Second})
}

// A client that asks every 100 ms for three minutes, with bursts around the minute: the case in which
// fixed windows and buckets let up to twice the number through.
func TestNever31InAny60Seconds(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{30, time.Minute}
	var admitted []time.Time
	for step := range 1800 {
		for range 1 + 40*(step%600/590) {
			if l.Take("key", limit).Allowed {
				admitted = append(admitted, c.t)
			}
		}
		c.Advance(100 * time.Millisecond)
	}
	for i := 30; i < len(admitted); i++ {
		if d := admitted[i].Sub(admitted[i-30]); d < time.Minute {
			t.Fatalf("31 admissions within %v", d)
		}
	}
	if len(admitted) != 90 {
		t.Fatalf("%d admissions in 3 minutes, want 90", len(admitted))
	}
}

func TestRefusalsDoNotPostpone(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{1, time.Second}
	takeN(t, l, "a", limit, 1)
	for range 1000 {
		c.Advance(999 * time.Microsecond)
		if l.Take("a", limit).Allowed {
			t.Fatal("admitted within the window")
		}
	}
	c.Advance(time.Millisecond)
	takeN(t, l, "a", limit, 1)
}

func TestSubjectsAreApart(t *testing.T) {
	l, _ := newLimiter(t)
	takeN(t, l, "a", Limit{1, time.Second}, 1)
	takeN(t, l, "b", Limit{1, time.Second}, 1)
}

func TestALimitOfNothingAdmitsNothing(t *testing.T) {
	l, _ := newLimiter(t)
	for _, limit := range []Limit{{0, time.Second}, {-1, time.Second}, {1, 0}, {1, -1}, {}} {
		want(t, l.Take("a", limit), answer{Limit: limit, RetryIn: Never})
	}
	if l.Len() != 0 {
		t.Fatalf("%d subjects held for nothing", l.Len())
	}
}

func TestPeekTakesNothing(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{2, time.Minute}
	want(t, l.Peek("a", limit), answer{Allowed: true, Limit: limit, Remaining: 2})
	if l.Len() != 0 {
		t.Fatal("Peek left a subject behind")
	}
	takeN(t, l, "a", limit, 1)
	c.Advance(time.Second)
	for range 3 {
		want(t, l.Peek("a", limit), answer{Allowed: true, Limit: limit, Remaining: 1, ResetIn: 59 * time.Second})
	}
	// A question under another limit is no change of the limit.
	l.Peek("a", Limit{1, time.Nanosecond})
	takeN(t, l, "a", limit, 1)
	want(t, l.Peek("a", limit), answer{Limit: limit, RetryIn: 59 * time.Second, ResetIn: time.Minute})
}

func TestGiveBackOncePerDecision(t *testing.T) {
	for _, requests := range []int64{3, 3000} {
		l, _ := newLimiter(t)
		limit := Limit{requests, time.Minute}
		takeN(t, l, "a", limit, int(requests)-2)
		middle := l.Take("a", limit)
		last := l.Take("a", limit)
		refused := l.Take("a", limit)
		for _, d := range []answer{{}, refused, l.Peek("a", limit), middle, middle, middle} {
			l.GiveBack("a", d)
		}
		if got := l.Peek("a", limit).Remaining; got != 1 {
			t.Fatalf("limit %d: %d left, want 1", requests, got)
		}
		l.GiveBack("a", last)
		takeN(t, l, "a", limit, 2)
		l.GiveBack("a", last) // its place was taken anew, by somebody else
		l.GiveBack("a", middle)
		if l.Take("a", limit).Allowed {
			t.Fatalf("limit %d: a place was given back twice", requests)
		}
	}
}

func TestGiveBackAfterTheSubjectWasForgotten(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{1, time.Second}
	old := l.Take("a", limit)
	c.Advance(time.Second)
	if l.Len() != 0 {
		t.Fatal("an empty subject is held")
	}
	l.GiveBack("a", old)
	takeN(t, l, "a", limit, 1)
	l.GiveBack("a", old)
	if l.Take("a", limit).Allowed {
		t.Fatal("the decision of a forgotten window undid a later one")
	}
}

func TestGiveBackOfTheOnlyAdmissionForgetsTheSubject(t *testing.T) {
	l, _ := newLimiter(t)
	l.GiveBack("a", l.Take("a", Limit{1, time.Hour}))
	if l.Len() != 0 {
		t.Fatal("an empty subject is held")
	}
}

func TestLimitLoweredAndRaised(t *testing.T) {
	l, c := newLimiter(t)
	minute := func(n int64) Limit { return Limit{n, time.Minute} }
	takeN(t, l, "a", minute(10), 10)
	c.Advance(10 * time.Second)
	takeN(t, l, "a", minute(20), 10)
	// 20 in the window, 5 allowed: all of the first ten and six of the second must leave.
	want(t, l.Take("a", minute(5)), answer{Limit: minute(5), RetryIn: time.Minute, ResetIn: time.Minute})
	want(t, l.Take("a", minute(15)), answer{Limit: minute(15), RetryIn: 50 * time.Second, ResetIn: time.Minute})
	want(t, l.Take("a", minute(25)), answer{Allowed: true, Limit: minute(25), Remaining: 4, ResetIn: time.Minute})
}

func TestWindowShortenedAndLengthened(t *testing.T) {
	l, c := newLimiter(t)
	takeN(t, l, "a", Limit{3, time.Minute}, 3)
	c.Advance(10 * time.Second)
	takeN(t, l, "a", Limit{3, 10 * time.Second}, 2)
	long := Limit{6, time.Minute}
	want(t, l.Take("a", long), answer{Allowed: true, Limit: long, ResetIn: time.Minute})
	want(t, l.Take("a", long), answer{Limit: long, RetryIn: 50 * time.Second, ResetIn: time.Minute})
}

func TestCrossing1000KeepsCount(t *testing.T) {
	l, c := newLimiter(t)
	takeN(t, l, "a", Limit{1000, time.Minute}, 1000)
	c.Advance(time.Second)
	takeN(t, l, "a", Limit{1500, time.Minute}, 500)
	big := Limit{1500, time.Minute}
	if d := l.Take("a", big); d.Allowed || d.RetryIn != 59*time.Second {
		t.Fatalf("after raising: %+v", d)
	}
	small := Limit{1000, time.Minute}
	if d := l.Take("a", small); d.Allowed || d.RetryIn < 59*time.Second || d.RetryIn > time.Minute+time.Second {
		t.Fatalf("after lowering: %+v", d)
	}
	c.Advance(59 * time.Second)
	takeN(t, l, "a", small, 500)
	if l.Take("a", small).Allowed {
		t.Fatal("1001 within a minute")
	}
}

func TestAClockThatGoesBackGrantsNothing(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{1, time.Minute}
	takeN(t, l, "a", limit, 1)
	for _, jump := range []time.Duration{-time.Hour, -24 * time.Hour, 24*time.Hour + 59*time.Minute} {
		c.Advance(jump)
		if d := l.Take("a", limit); d.Allowed || d.RetryIn != time.Minute {
			t.Fatalf("after %v: %+v", jump, d)
		}
	}
}

func TestMaxSubjectsForgetsTheLeastRecentlyAdmitted(t *testing.T) {
	c := newClock()
	l := newPlain(t, Options{Now: c.Now, MaxSubjects: 3})
	limit := Limit{2, time.Hour}
	for _, name := range []string{"a", "b", "c", "a"} {
		takeN(t, l, name, limit, 1)
		c.Advance(time.Second)
	}
	takeN(t, l, "d", limit, 1)
	if l.Len() != 3 {
		t.Fatalf("%d subjects held, want 3", l.Len())
	}
	for name, left := range map[string]int64{"a": 0, "b": 2, "c": 1, "d": 1} {
		if got := l.Peek(name, limit).Remaining; got != left {
			t.Errorf("%s has %d left, want %d", name, got, left)
		}
	}
}

func TestFullPrefersAnEmptySubjectToALiveOne(t *testing.T) {
	c := newClock()
	l := newPlain(t, Options{Now: c.Now, MaxSubjects: 100})
	takeN(t, l, "oldest", Limit{1, time.Hour}, 1)
	for i := range 99 {
		takeN(t, l, fmt.Sprint(i), Limit{1, time.Second}, 1)
	}
	c.Advance(time.Second)
	takeN(t, l, "new", Limit{1, time.Hour}, 1)
	if l.Peek("oldest", Limit{1, time.Hour}).Allowed {
		t.Fatal("a live subject was forgotten while 99 were empty")
	}
}

func TestEmptySubjectsAreForgottenInPassing(t *testing.T) {
	l, c := newLimiter(t)
	for i := range 1000 {
		takeN(t, l, fmt.Sprint(i), Limit{5, time.Second}, 1+i%5)
	}
	c.Advance(time.Second)
	takeN(t, l, "x", Limit{10_000, time.Hour}, 501)
	if got := len(l.memory.subjects); got != 1 {
		t.Fatalf("%d subjects held, want 1", got)
	}
}

func TestParallelTakesAdmitExactlyTheLimit(t *testing.T) {
	l := newPlain(t, Options{})
	limit := Limit{500, time.Hour}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				name := fmt.Sprint(i % 4)
				d := l.Take(name, limit)
				switch {
				case d.Allowed && i%7 == 0:
					l.GiveBack(name, d)
				case d.Allowed:
					admitted.Add(1)
				}
				l.Peek(name, limit)
				l.Len()
			}
		})
	}
	wg.Wait()
	var left int64
	for i := range 4 {
		left += l.Peek(fmt.Sprint(i), limit).Remaining
	}
	if got := admitted.Load() + left; got != 4*limit.Max {
		t.Fatalf("admitted + left = %d, want %d", got, 4*limit.Max)
	}
}

// Gateways that share nothing but the books keep their shares.
func TestWithoutRedisEachReplicaHasItsShare(t *testing.T) {
	l, err := New(Options{Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	admitted := 0
	for i := range 40 {
		d, err := l.Take(t.Context(), Ask{ID: fmt.Sprint(i), Subject: "a", Limits: Limits{Requests: Limit{30, time.Minute}}})
		if err != nil {
			t.Fatal(err)
		}
		if d.Allowed {
			admitted++
		}
	}
	if admitted != 10 {
		t.Errorf("%d of 30 admitted by one of three", admitted)
	}
}

// Tokens held stand at the end of their sub-window and count a little longer than the request does.
// What is given up in that time is free at once.
func TestSettledBetweenTheWindowAndItsLastPiece(t *testing.T) {
	c := newClock()
	l, err := New(Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	limits := Limits{Requests: Limit{1, 64 * time.Second}, Tokens: Limit{1, 64 * time.Second}}
	first := Ask{ID: "first", Subject: "a", Limits: limits, Tokens: 1, MinTokens: 1}
	d := take(t, l, first)
	c.Advance(64 * time.Second)
	if _, err := l.Peek(t.Context(), "a", limits); err != nil { // somebody looks: the limiter knows the time
		t.Fatal(err)
	}
	l.Settle(first, d, 0)
	wantAllowed(t, take(t, l, Ask{ID: "next", Subject: "a", Limits: limits, Tokens: 1, MinTokens: 1}), true)
}

// The same in Redis, told of a settlement that old.
func TestScriptSettledBetweenTheWindowAndItsLastPiece(t *testing.T) {
	r := newRemote(RedisOptions{Address: rig.StartRedis(t).Addr})
	t.Cleanup(func() { _ = r.close() })
	if err := r.probe.Set(t.Context(), r.marker(), "epoch", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	_ = r.client.Close()
	r.client = r.probe
	s := scriptStore{t: t, r: r, after: func() {}}
	limits := Limits{Requests: Limit{2, time.Hour}, Tokens: Limit{1, time.Hour}}
	first := Ask{ID: "first", Subject: "a", Limits: limits, Tokens: 1, MinTokens: 1}
	wantAllowed(t, s.take(t, first), true)
	s.put(first, put{age: int64(time.Hour + time.Second), tokens: 0})
	wantAllowed(t, s.take(t, Ask{ID: "next", Subject: "a", Limits: limits, Tokens: 1, MinTokens: 1}), true)
}
