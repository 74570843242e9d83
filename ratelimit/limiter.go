package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"
)

// What a decision does when Redis is configured and away.
const (
	OnErrorMemory = "memory" // this process decides, within its share of every limit
	OnErrorClosed = "closed" // nobody passes: ErrUnavailable
)

// Options configure a Limiter. The zero value is ready for use: memory only.
type Options struct {
	// Now is the clock; nil means time.Now. Only differences are used, and where its times carry a
	// monotonic reading, as those of time.Now do, a wall clock that jumps changes nothing.
	Now func() time.Time
	// MaxSubjects bounds the subjects held; 0 or less means 1,000,000. When all of them are live, a new
	// one replaces the one admitted least recently, which may then use its limits once more.
	MaxSubjects int
	// Redis is where several gateways keep their windows together; nil means memory only.
	Redis *RedisOptions
	// Replicas is the number of gateways that share the limits; where Redis is away, or there is none,
	// each may use that part of every limit. Less than 1 means 1.
	Replicas int
	// OnError is OnErrorMemory, the default, or OnErrorClosed.
	OnError string
	// History lists what the books know was admitted at or after since, by every gateway. An empty
	// Redis is rebuilt from it; nil means from what the gateways themselves remember.
	History func(ctx context.Context, since time.Time) ([]Past, error)
	// LongestWindow bounds how far back History is asked; 0 or less means 24 hours.
	LongestWindow time.Duration
	// Log gets one line when Redis goes away, and one when it is back; nil means none.
	Log *zap.Logger
}

// Past is an admission that the books know of.
type Past struct {
	ID, Subject string // as in its Ask
	At          time.Time
	Tokens      int64 // used, or held as long as it is not settled
	Limits      Limits
}

// Limiter answers asks: from Redis where one is configured and there, else from memory. All methods
// may be called from several goroutines.
type Limiter struct {
	o      Options
	memory *memory
	remote *remote              // nil = memory only
	link   atomic.Pointer[link] // nil = Redis is not trusted now
	away   chan struct{}        // holds a token when the link was given up
	status status

	// Only Run touches these.
	epoch    string // of the last link
	joined   string // the epoch that this gateway last added its memory to, and when
	joinedAt time.Time
}

// link is the trust in one Redis instance whose windows are complete.
type link struct {
	epoch   string // what the marker there must say
	breaker *gobreaker.CircuitBreaker[answered]
}

// New makes a limiter. It starts no goroutine and needs no Redis to be there: without Run, and until
// Run has found Redis, memory decides. Errors are about the options only.
func New(o Options) (*Limiter, error) {
	if o.OnError == "" {
		o.OnError = OnErrorMemory
	}
	if o.OnError != OnErrorMemory && o.OnError != OnErrorClosed {
		return nil, fmt.Errorf("rate limits: on error %q: want %q or %q", o.OnError, OnErrorMemory, OnErrorClosed)
	}
	if o.Redis != nil && o.Redis.Address == "" {
		return nil, errors.New("rate limits: Redis without an address")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxSubjects <= 0 {
		o.MaxSubjects = defaultMaxSubjects
	}
	if o.LongestWindow <= 0 {
		o.LongestWindow = 24 * time.Hour
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.Replicas = max(1, o.Replicas)
	l := &Limiter{o: o, memory: newMemory(o), away: make(chan struct{}, 1)}
	l.status.since = o.Now()
	if o.Redis != nil {
		l.remote = newRemote(*o.Redis)
	}
	return l, nil
}

// Take admits the ask over all limits of its subject, in one step, or refuses it and takes nothing.
// It waits for Redis no longer than 50 ms, whatever ctx says, so that an admission that Redis has
// counted is not forgotten here. The error is ErrUnavailable, and only under OnErrorClosed.
func (l *Limiter) Take(ctx context.Context, a Ask) (Decision, error) {
	trusted := l.link.Load()
	if l.remote == nil || a.never() {
		return l.said(l.memory.take(&a, l.here()), trusted), nil
	}
	if trusted == nil {
		return l.alone(&a, false)
	}
	asked, p := l.memory.ask(&a)
	got, err := l.ask(ctx, trusted, "take", &a, p)
	if err != nil {
		return l.alone(&a, true)
	}
	if !got.Allowed {
		return l.said(l.memory.heard(&a, got), trusted), nil
	}
	d, agreed := l.memory.agree(&a, asked, got)
	if !agreed {
		l.memory.undo(&a)
	} else if l.link.Load() != trusted {
		l.memory.tellID(a.ID) // the windows may have been rebuilt without this one
	}
	return l.said(d, trusted), nil
}

// Peek says what Take would say of an ask of no tokens, and takes nothing. Remaining does not count
// the admission asked about. The error is as that of Take.
func (l *Limiter) Peek(ctx context.Context, subject string, limits Limits) (Decision, error) {
	a := Ask{ID: "peek", Subject: subject, Limits: limits}
	trusted := l.link.Load()
	if l.remote == nil || a.never() {
		return l.said(l.memory.peek(subject, &a, l.here()), trusted), nil
	}
	if trusted != nil {
		_, p := l.memory.ask(&a)
		if got, err := l.ask(ctx, trusted, "peek", &a, p); err == nil {
			return l.said(l.memory.heard(&a, got), trusted), nil
		}
	}
	if l.o.OnError == OnErrorClosed {
		return Decision{}, ErrUnavailable
	}
	return l.said(l.memory.peek(subject, &a, l.share()), nil), nil
}

// GiveBack undoes the Take that returned the decision: a later check refused. It does nothing when the
// decision took nothing, when it was given back before, and for an ask without tokens and concurrent
// requests that is more than 10 s old. Here the place is free at once, for other gateways in moments.
func (l *Limiter) GiveBack(_ context.Context, a Ask, d Decision) {
	if d.Allowed {
		l.memory.giveBack(&a)
	}
}

// Settle ends the admission that the decision allowed: its concurrent place is free, and what it held
// of the tokens becomes the number that was used, even if that is more. It waits for nothing; Redis
// learns of it in moments. A second call does nothing.
func (l *Limiter) Settle(a Ask, d Decision, tokens int64) {
	if d.Allowed && a.Limits.bounds() {
		l.memory.settle(&a, tokens)
	}
}

// Restore adds admissions that were found in the books, for a start: in any order, those that have
// left their window are ignored, those in the future count as now. They add to what is held already
// and cannot be given back, so call it once, before the first Take.
func (l *Limiter) Restore(past []Past) { l.memory.restore(past) }

// Close ends the connections to Redis. Run must have returned.
func (l *Limiter) Close() error {
	if l.remote == nil {
		return nil
	}
	return l.remote.close()
}

func (l *Limiter) share() rule { return rule{share: int64(l.o.Replicas), all: true} }

// here is the rule for what memory decides by itself: its share where no Redis is configured, and the
// whole limit for an ask that no wait would help.
func (l *Limiter) here() rule {
	if l.remote == nil {
		return l.share()
	}
	return rule{share: 1, all: true}
}

// alone decides without Redis; sent says that Redis may have counted the ask all the same.
func (l *Limiter) alone(a *Ask, sent bool) (Decision, error) {
	if l.o.OnError == OnErrorClosed {
		if sent {
			l.memory.undo(a)
		}
		return Decision{}, ErrUnavailable
	}
	d := l.memory.take(a, l.share())
	if sent && !d.Allowed {
		l.memory.undo(a)
	}
	return l.said(d, nil), nil
}

func (l *Limiter) said(d Decision, by *link) Decision {
	if d.Storage = StorageMemory; by != nil {
		d.Storage = StorageRedis
		l.status.byRedis.Add(1)
	} else {
		l.status.byMemory.Add(1)
	}
	return d
}

// ask asks Redis, telling it in the same call what it must know of the subject.
func (l *Limiter) ask(ctx context.Context, trusted *link, mode string, a *Ask, p parcel) (answered, error) {
	got, err := trusted.breaker.Execute(func() (answered, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callBudget)
		defer cancel()
		got, err := l.remote.decide(ctx, mode, trusted.epoch, a, p.puts)
		if err != nil {
			l.status.failed(class(err))
		}
		return got, err
	})
	if len(p.ops) > 0 {
		l.memory.delivered(p, err == nil)
	}
	switch {
	case err == nil:
	case class(err) == classEmpty:
		l.leave(trusted, classEmpty)
	case wrongType(err):
		l.memory.breaks(a.Subject)
	}
	return got, err
}

// trust begins to believe the windows of an epoch.
func (l *Limiter) trust(epoch string) {
	t := &link{epoch: epoch}
	t.breaker = gobreaker.NewCircuitBreaker[answered](gobreaker.Settings{
		Interval: 10 * time.Second, BucketPeriod: time.Second,
		Timeout: time.Hour, // not by asking users' requests: Run finds Redis again
		ReadyToTrip: func(c gobreaker.Counts) bool {
			most := uint32(5)
			if last := l.status.last(); last != classTimeout && last != classOther {
				most = 2 // Redis itself said no: it will say so again
			}
			return c.ConsecutiveFailures >= most || c.Requests >= 50 && c.TotalFailures*5 >= c.Requests
		},
		IsExcluded: wrongType, // one subject's keys, not Redis
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				l.leave(t, l.status.last())
			}
		},
	})
	l.epoch = epoch
	l.link.Store(t)
	l.status.switched(l.o.Now())
	l.o.Log.Info("rate limits: decided by Redis")
}

// leave ends the trust in a link, once.
func (l *Limiter) leave(t *link, reason string) {
	if !l.link.CompareAndSwap(t, nil) {
		return
	}
	l.status.switched(l.o.Now())
	l.o.Log.Warn("rate limits: Redis is away", zap.String("class", reason), zap.String("on_error", l.o.OnError), zap.Int("replicas", l.o.Replicas))
	if reason == classEmpty {
		select {
		case l.away <- struct{}{}:
		default:
		}
	}
}

// Status is how a limiter is doing.
type Status struct {
	Storage    string           // StorageMemory or StorageRedis: who decides now
	Configured bool             // there is a Redis to use
	Since      time.Time        // of Storage
	LastError  string           // the class of the last Redis error, "" = none so far
	Switches   int64            // between the storages
	Decisions  map[string]int64 // by storage
	// RedisErrors counts failed calls by class: "refused", "timeout", "readonly", "loading", "oom",
	// "noscript", "empty", "auth", "other".
	RedisErrors map[string]int64
	Subjects    int   // held in memory
	Dropped     int64 // admissions and corrections that Redis was never told, because too many waited
}

// Status says how the limiter is doing now.
func (l *Limiter) Status() Status {
	s := l.status.read()
	s.Storage, s.Configured = StorageMemory, l.remote != nil
	if l.link.Load() != nil {
		s.Storage = StorageRedis
	}
	s.Subjects, s.Dropped = l.memory.count(), l.memory.droppedOps()
	return s
}

// status is what Status counts.
type status struct {
	byMemory, byRedis atomic.Int64

	mu       sync.Mutex
	since    time.Time
	latest   string
	switches int64
	errors   map[string]int64
}

func (s *status) failed(class string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.errors == nil {
		s.errors = make(map[string]int64)
	}
	s.errors[class]++
	s.latest = class
}

func (s *status) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest
}

func (s *status) switched(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.switches++
	s.since = at
}

func (s *status) read() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{
		Since: s.since, LastError: s.latest, Switches: s.switches, RedisErrors: make(map[string]int64, len(s.errors)),
		Decisions: map[string]int64{StorageMemory: s.byMemory.Load(), StorageRedis: s.byRedis.Load()},
	}
	for class, n := range s.errors {
		out.RedisErrors[class] = n
	}
	return out
}
