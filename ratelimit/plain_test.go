package ratelimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fakeClock has no monotonic reading: its times are plain numbers.
type fakeClock struct{ t time.Time }

func newClock() *fakeClock                   { return &fakeClock{time.Date(2025, 3, 9, 1, 0, 0, 0, time.UTC)} }
func (c *fakeClock) Now() time.Time          { return c.t }
func (c *fakeClock) Advance(d time.Duration) { c.t = c.t.Add(d) }

// fataler is what a test and a property have in common.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// plain is a limiter asked about requests alone, without names for the operations: its answers say
// which they were by their place.
type plain struct {
	*Limiter
	n atomic.Int64
}

func newPlain(t fataler, o Options) *plain {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return &plain{Limiter: l}
}

func newLimiter(t fataler) (*plain, *fakeClock) {
	t.Helper()
	c := newClock()
	return newPlain(t, Options{Now: c.Now}), c
}

func asAnswer(d Decision, place int64) answer {
	s := d.Requests
	if !d.Allowed {
		place = 0
	}
	return answer{Allowed: d.Allowed, Limit: s.Limit, Remaining: s.Remaining, RetryIn: s.RetryIn, ResetIn: s.ResetIn, place: place}
}

func (p *plain) Take(name string, limit Limit) answer {
	n := p.n.Add(1)
	d, err := p.Limiter.Take(context.Background(), Ask{ID: fmt.Sprint(n), Subject: name, Limits: Limits{Requests: limit}})
	if err != nil {
		panic(err)
	}
	return asAnswer(d, n)
}

func (p *plain) Peek(name string, limit Limit) answer {
	d, err := p.Limiter.Peek(context.Background(), name, Limits{Requests: limit})
	if err != nil {
		panic(err)
	}
	return asAnswer(d, 0)
}

func (p *plain) GiveBack(name string, a answer) {
	p.Limiter.GiveBack(context.Background(), Ask{ID: fmt.Sprint(a.place), Subject: name}, Decision{Allowed: a.Allowed})
}

func (p *plain) Restore(name string, limit Limit, at []time.Time) {
	past := make([]Past, len(at))
	for i, t := range at {
		past[i] = Past{ID: fmt.Sprint("past", i), Subject: name, At: t, Limits: Limits{Requests: limit}}
	}
	p.Limiter.Restore(past)
}

func (p *plain) Len() int { return p.Status().Subjects }

func want(t *testing.T, got, want answer) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(answer{})); diff != "" {
		t.Fatalf("answer (-want +got):\n%s", diff)
	}
}

func takeN(t *testing.T, l *plain, name string, limit Limit, n int) {
	t.Helper()
	for i := range n {
		if d := l.Take(name, limit); !d.Allowed {
			t.Fatalf("admission %d of %d was refused: %+v", i+1, n, d)
		}
	}
}
