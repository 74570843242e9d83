package ratelimit

import (
	"testing"
	"time"
)

func TestRestore(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{3, time.Minute}
	ago := func(d time.Duration) time.Time { return c.t.Add(-d) }
	l.Restore("a", limit, []time.Time{ago(20 * time.Second), ago(-time.Hour), ago(time.Minute), ago(50 * time.Second), ago(24 * time.Hour)})
	want(t, l.Take("a", limit), answer{Limit: limit, RetryIn: 10 * time.Second, ResetIn: time.Minute})
	c.Advance(10 * time.Second)
	d := l.Take("a", limit)
	want(t, d, answer{Allowed: true, Limit: limit, ResetIn: time.Minute})
	l.GiveBack("a", d)
	takeN(t, l, "a", limit, 1)
	want(t, l.Take("a", limit), answer{Limit: limit, RetryIn: 30 * time.Second, ResetIn: time.Minute})

	l.Restore("old", limit, []time.Time{ago(time.Hour)})
	if l.Len() != 1 {
		t.Fatalf("%d subjects, want 1", l.Len())
	}
}

func TestRestoreAddsToWhatIsHeld(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{5, time.Minute}
	takeN(t, l, "a", limit, 1)
	c.Advance(30 * time.Second)
	mine := l.Take("a", limit)
	l.Restore("a", limit, []time.Time{c.t.Add(-45 * time.Second), c.t.Add(-15 * time.Second), c.t.Add(-time.Second)})
	want(t, l.Take("a", limit), answer{Limit: limit, RetryIn: 15 * time.Second, ResetIn: time.Minute})
	l.GiveBack("a", mine)
	takeN(t, l, "a", limit, 1)
}

func TestRestoreMoreThanTheLimit(t *testing.T) {
	l, c := newLimiter(t)
	var at []time.Time
	for i := range 5000 {
		at = append(at, c.t.Add(-time.Duration(i)*time.Millisecond))
	}
	limit := Limit{1000, time.Minute}
	l.Restore("a", limit, at)
	if d := l.Peek("a", limit); d.Allowed || d.RetryIn != time.Minute-999*time.Millisecond {
		t.Fatalf("%+v", d)
	}
	if d := l.Peek("a", Limit{5000, time.Minute}); d.Allowed {
		t.Fatalf("raised: %+v", d)
	}
	if d := l.Peek("a", Limit{5001, time.Minute}); d.Remaining != 1 {
		t.Fatalf("raised further: %+v", d)
	}
}

// A day of one subject at 2 million per day must not cost 2 million times.
func TestRestoreOfALargeLimitIsSmall(t *testing.T) {
	l, c := newLimiter(t)
	var at []time.Time
	for i := range 100_000 {
		at = append(at, c.t.Add(-time.Duration(i)*800*time.Millisecond))
	}
	limit := Limit{2_000_000, 24 * time.Hour}
	l.Restore("a", limit, at)
	if got := l.Peek("a", limit).Remaining; got != 1_900_000 {
		t.Fatalf("%d left, want 1900000", got)
	}
	if got := len(l.memory.subjects["a"].requests.runs.buf); got > 128 {
		t.Fatalf("%d runs", got)
	}
}
