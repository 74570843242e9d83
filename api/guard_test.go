package api

import (
	"strconv"
	"testing"
	"time"
)

func TestGuard_refillsAndKeepsKeysApart(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	g := newGuard(func() time.Time { return now })
	allowed := func(key string) (n int) {
		for g.wait(key) == 0 {
			n++
		}
		return n
	}
	if n := allowed("one"); n != guardBurst {
		t.Errorf("%d at once, want %d", n, guardBurst)
	}
	if wait := g.wait("one"); wait != time.Second/guardRate {
		t.Errorf("wait %s: a refusal must not make the next wait longer", wait)
	}
	if n := allowed("two"); n != guardBurst {
		t.Errorf("the other key: %d, want %d", n, guardBurst)
	}
	now = now.Add(time.Second)
	if n := allowed("one"); n != guardRate {
		t.Errorf("%d after a second, want %d", n, guardRate)
	}
}

// Memory is for keys that ask now: who has been quiet for long is forgotten,
// who has not keeps an empty bucket.
func TestGuard_forgetsIdleKeys(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	g := newGuard(func() time.Time { return now })
	for i := range 3 * guardSweep {
		g.wait(strconv.Itoa(i))
	}
	now = now.Add(2 * guardIdle)
	for g.wait("0") == 0 {
		continue
	}
	now = now.Add(time.Millisecond)
	g.wait("new")
	if len(g.buckets) != 2 {
		t.Errorf("%d buckets, want those of the two keys that asked of late", len(g.buckets))
	}
	if g.wait("0") == 0 {
		t.Error("a key that asked of late was forgotten")
	}
}
