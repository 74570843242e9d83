package ratelimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	probeEvery  = 900 * time.Millisecond // and up to probeJitter more, so that gateways do not march in step
	probeJitter = 200 * time.Millisecond
	renewEvery  = 20 * time.Second
	slowProbe   = 25 * time.Millisecond // a write that takes longer is no return: decisions have 50 ms in all
	parcelSize  = 200                   // operations that one call tells, a few milliseconds of Redis
	askedSize   = 16                    // those that a decision carries along
	lockFor     = 10 * time.Second
	joinFor     = 2500 * time.Millisecond // in which every gateway has looked at Redis at least once
)

var (
	errBusy  = errors.New("another gateway rebuilds the windows")
	errEarly = errors.New("other gateways have not yet said what they remember")
	errSlow  = errors.New("the answers of Redis are too slow to come back to")
)

// Run looks after Redis until ctx ends, and then returns nil: it finds Redis, fills its windows, tells
// it what was decided without it and what has ended, renews the leases of concurrent places, and sees
// when Redis is no longer what it was. Without Redis there is nothing to do.
func (l *Limiter) Run(ctx context.Context) error {
	if l.remote == nil {
		<-ctx.Done()
		return nil
	}
	probe := time.NewTimer(0)
	defer probe.Stop()
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			l.lastWords(ctx)
			return nil
		case <-renew.C:
			l.memory.tellAll(false)
		case <-l.memory.journal.wake:
			l.flushOrLeave(ctx)
		case <-l.away:
			probe.Reset(0)
		case <-probe.C:
			probe.Reset(l.look(ctx))
		}
	}
}

// lastWords tells Redis what still waits, so that the places of this process are free.
func (l *Limiter) lastWords(ctx context.Context) {
	if t := l.link.Load(); t != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeBudget)
		defer cancel()
		_ = l.flush(ctx, t.epoch) // leases end by themselves
	}
}

// look checks a Redis that is trusted, or tries to return to one that is not, and says when to look again.
func (l *Limiter) look(ctx context.Context) time.Duration {
	again := probeEvery + rand.N(probeJitter) //nolint:gosec // not a secret
	if t := l.link.Load(); t != nil {
		if err := l.check(ctx, t); err != nil {
			l.status.failed(class(err))
			l.leave(t, class(err))
			return probeJitter
		}
		l.flushOrLeave(ctx)
		return again
	}
	err := l.back(ctx)
	switch {
	case err == nil:
	case errors.Is(err, errBusy), errors.Is(err, errEarly):
		return probeJitter
	case ctx.Err() == nil:
		l.status.failed(class(err))
	}
	return again
}

// check sees whether Redis is still the instance, and its windows those, that are trusted.
func (l *Limiter) check(ctx context.Context, t *link) error {
	id, err := runID(ctx, l.remote.probe)
	if err != nil {
		return err
	}
	marker, err := l.remote.probe.Get(ctx, l.remote.marker()).Result()
	switch {
	case errors.Is(err, redis.Nil), err == nil && marker != t.epoch:
		return errCold
	case err != nil:
		return err
	case !strings.HasPrefix(marker, id+":"):
		return errMoved
	}
	return l.remote.probe.PExpire(ctx, l.remote.marker(), l.markerFor()).Err()
}

// markerFor is how long the marker lives untouched: by then no window holds anything that Redis knew.
func (l *Limiter) markerFor() time.Duration { return l.o.LongestWindow + time.Hour }

// back returns to Redis: it must be fast and writable, its windows complete, and know everything that
// was decided here.
func (l *Limiter) back(ctx context.Context) error {
	id, err := runID(ctx, l.remote.probe)
	if err != nil {
		return err
	}
	if err := l.quick(ctx); err != nil {
		return err
	}
	if err := l.remote.script.Load(ctx, l.remote.probe).Err(); err != nil {
		return err
	}
	epoch, err := l.marked(ctx, id)
	if err != nil {
		return err
	}
	if epoch == "" {
		if epoch, err = l.rebuild(ctx, id); err != nil {
			return err
		}
	}
	anew := epoch != l.epoch
	l.memory.tellAll(anew)
	if anew && strings.HasSuffix(epoch, fromMemory) {
		if err := l.join(ctx, epoch); err != nil {
			return err
		}
	}
	for range 10 { // under load something new waits each time; what is left goes on its way in moments
		if err := l.flush(ctx, epoch); err != nil {
			return err
		}
		if l.memory.backlog() == 0 {
			break
		}
	}
	l.remote.runID.Store(&id)
	l.trust(epoch)
	return nil
}

// quick writes something, which tells a Redis that cannot be written to, or only slowly.
func (l *Limiter) quick(ctx context.Context) error {
	for range 3 {
		began := time.Now()
		if err := l.remote.probe.Set(ctx, l.remote.prefix+"probe", "1", lockFor).Err(); err != nil {
			return err
		}
		if time.Since(began) < slowProbe {
			return nil
		}
	}
	return errSlow
}

// join adds what this gateway remembers to windows that were rebuilt without the books, and gives the
// others time to do the same: until all have, Redis knows less than was admitted.
func (l *Limiter) join(ctx context.Context, epoch string) error {
	if l.joined != epoch {
		if !strings.Contains(epoch, l.remote.me) { // the one that rebuilt has
			if err := l.fill(ctx, epoch, false); err != nil {
				return err
			}
		}
		l.joined, l.joinedAt = epoch, time.Now()
	}
	if l.o.Replicas > 1 && time.Since(l.joinedAt) < joinFor {
		return errors.Join(errEarly, l.flush(ctx, epoch))
	}
	return nil
}

// marked is the marker, when it is one of this instance.
func (l *Limiter) marked(ctx context.Context, id string) (string, error) {
	marker, err := l.remote.probe.Get(ctx, l.remote.marker()).Result()
	if err != nil && !errors.Is(err, redis.Nil) && !wrongType(err) {
		return "", err
	}
	if strings.HasPrefix(marker, id+":") {
		return marker, nil
	}
	return "", nil
}

// flushOrLeave tells a trusted Redis what waits.
func (l *Limiter) flushOrLeave(ctx context.Context) {
	t := l.link.Load()
	if t == nil {
		return
	}
	err := l.repair(ctx)
	if err == nil {
		err = l.flush(ctx, t.epoch)
	}
	if err != nil && ctx.Err() == nil {
		l.status.failed(class(err))
		l.leave(t, class(err))
	}
}

// flush tells Redis what waits, oldest subject first.
func (l *Limiter) flush(ctx context.Context, epoch string) error {
	for range maxJournal {
		p, any := l.memory.next(parcelSize)
		if !any {
			return nil
		}
		err := l.remote.put(ctx, epoch, p, false, loose{}, loose{})
		if wrongType(err) {
			l.memory.breaks(p.s.name)
			l.memory.delivered(p, false)
			return nil // repaired when this is next in turn
		}
		l.memory.delivered(p, err == nil)
		if err != nil {
			return err
		}
	}
	return nil
}
