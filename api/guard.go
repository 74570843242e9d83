package api

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The guard of the info routes is generous: it is for loops that have run wild.
// The routes never count toward the limits of a key.
const (
	guardRate  = 20 // requests per second and key
	guardBurst = 60
	guardIdle  = time.Minute
	guardSweep = 1000 // entries from which idle ones are dropped
)

// guard holds one bucket for each key that asked of late.
type guard struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	limiter *rate.Limiter
	used    time.Time
}

func newGuard(now func() time.Time) *guard {
	return &guard{now: now, buckets: map[string]*bucket{}}
}

// wait is how long the key has to wait, 0 = it may ask now.
func (g *guard) wait(keyID string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	b := g.buckets[keyID]
	if b == nil {
		g.sweep(now)
		b = &bucket{limiter: rate.NewLimiter(guardRate, guardBurst)}
		g.buckets[keyID] = b
	}
	b.used = now
	r := b.limiter.ReserveN(now, 1)
	delay := r.DelayFrom(now)
	if delay > 0 {
		r.CancelAt(now) // a refusal costs nothing
	}
	return delay
}

// sweep forgets keys that have been quiet for so long that their bucket is full
// again: keys are finitely many, but need not all be in memory.
func (g *guard) sweep(now time.Time) {
	if len(g.buckets) < guardSweep || now.Sub(g.swept) < guardIdle {
		return
	}
	g.swept = now
	for id, b := range g.buckets {
		if now.Sub(b.used) > guardIdle {
			delete(g.buckets, id)
		}
	}
}
