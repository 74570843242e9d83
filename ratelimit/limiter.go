package ratelimit

import (
	"container/heap"
	"container/list"
	"slices"
	"strings"
	"sync"
	"time"
)

const defaultMaxSubjects = 1_000_000

// Options configure a Limiter. The zero value is ready for use.
type Options struct {
	// Now is the clock; nil means time.Now. Only differences are used, and where its times carry a
	// monotonic reading, as those of time.Now do, a wall clock that jumps changes nothing.
	Now func() time.Time
	// MaxSubjects bounds the subjects held; 0 or less means 1,000,000. When all of them are live, a new
	// one replaces the one admitted least recently, which may then use its limit once more.
	MaxSubjects int
}

// Limiter holds the windows of all subjects in memory, behind one lock: a decision takes a fraction
// of a microsecond. It starts no goroutine. All methods may be called from several goroutines.
type Limiter struct {
	now   func() time.Time
	start time.Time
	max   int

	mu          sync.Mutex
	subjects    map[string]*subject
	byExpiry    expiryHeap
	byAdmission list.List // *subject, most recently admitted in front
	latest      int64     // the latest time handed out; time does not go back
	nextPlace   int64     // above every place of every forgotten window
}

// subject is one window and its places in the limiter's two orders.
type subject struct {
	name    string
	window  window
	expiry  int64 // the window was seen not to be empty before this time; it may have grown since
	index   int   // in byExpiry
	element *list.Element
}

// New makes an empty limiter.
func New(o Options) *Limiter {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxSubjects <= 0 {
		o.MaxSubjects = defaultMaxSubjects
	}
	return &Limiter{
		now:       o.Now,
		start:     o.Now(),
		max:       o.MaxSubjects,
		subjects:  make(map[string]*subject),
		nextPlace: 1,
	}
}

// Take admits the subject once if the limit lets it, in one step. A refusal takes nothing.
func (l *Limiter) Take(name string, limit Limit) Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	s := l.subjects[name]
	if s == nil {
		d := l.emptyWindow().peek(now, limit)
		if !d.Allowed {
			return d
		}
		s = l.hold(name, now)
	}
	d := s.window.take(now, limit)
	if d.Allowed {
		l.byAdmission.MoveToFront(s.element)
	}
	l.sweep(now, 2)
	return d
}

// Peek says what Take would say now, and takes nothing. Remaining does not count the admission asked about.
func (l *Limiter) Peek(name string, limit Limit) Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock()
	if s := l.subjects[name]; s != nil {
		return s.window.peek(now, limit)
	}
	return l.emptyWindow().peek(now, limit)
}

// GiveBack undoes the Take that returned the decision, for the same subject: a later check refused. A
// second call with the same decision, or one with a decision that took nothing, does nothing. When
// places are taken and given back thousands of times within one window of more than 1,000 requests,
// older ones may stay taken until they leave the window.
func (l *Limiter) GiveBack(name string, d Decision) {
	if d.place == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.subjects[name]
	if s == nil {
		return
	}
	s.window.giveBack(d.place)
	s.expiry = s.window.emptyAt()
	heap.Fix(&l.byExpiry, s.index)
	l.sweep(l.clock(), 2)
}

// Restore adds admissions that were found in the books: in any order, those that have left the window
// are ignored, those in the future count as now. They add to what is held already and cannot be given
// back; so call it once, at start. When there may be more subjects than MaxSubjects, restore the one
// admitted least recently first.
func (l *Limiter) Restore(name string, limit Limit, at []time.Time) {
	if limit.Window <= 0 || len(at) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	wall := l.now()
	now := l.since(wall)
	times := make([]int64, 0, len(at))
	for _, t := range at {
		if age := max(0, wall.Sub(t)); age < limit.Window {
			times = append(times, now-int64(age))
		}
	}
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	s := l.subjects[name]
	if s == nil {
		s = l.hold(name, now)
	}
	s.window.restore(now, limit, times)
	l.byAdmission.MoveToFront(s.element)
	l.sweep(now, 2)
}

// Len is the number of subjects held. Some may be empty and not yet forgotten.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(l.clock(), 1000)
	return len(l.subjects)
}

// clock is the time since the limiter's start in nanoseconds, and never goes back.
func (l *Limiter) clock() int64 { return l.since(l.now()) }

func (l *Limiter) since(t time.Time) int64 {
	l.latest = max(l.latest, int64(t.Sub(l.start)))
	return l.latest
}

func (l *Limiter) emptyWindow() window { return window{next: l.nextPlace} }

// hold makes a subject with an empty window, and room for it.
func (l *Limiter) hold(name string, now int64) *subject {
	if len(l.subjects) >= l.max {
		l.makeRoom(now)
	}
	// The name may be a piece of something larger that should not stay in memory because of it.
	s := &subject{name: strings.Clone(name), window: l.emptyWindow(), expiry: now}
	l.subjects[s.name] = s
	s.element = l.byAdmission.PushFront(s)
	heap.Push(&l.byExpiry, s)
	return s
}

// makeRoom forgets an empty subject or, when there is none, the one admitted least recently.
func (l *Limiter) makeRoom(now int64) {
	for held := len(l.subjects); l.byExpiry[0].expiry <= now; {
		l.sweep(now, 1)
		if len(l.subjects) < held {
			return
		}
	}
	l.forget(l.byAdmission.Back().Value.(*subject))
}

// sweep looks at no more than most of the subjects that may have become empty, and forgets those that have.
func (l *Limiter) sweep(now int64, most int) {
	for ; most > 0 && len(l.byExpiry) > 0; most-- {
		s := l.byExpiry[0]
		if s.expiry > now {
			return
		}
		if s.expiry = s.window.emptyAt(); s.expiry > now {
			heap.Fix(&l.byExpiry, 0)
			continue
		}
		l.forget(s)
	}
}

// forget also sees to it that a decision of the forgotten window never fits a later one.
func (l *Limiter) forget(s *subject) {
	l.nextPlace = max(l.nextPlace, s.window.next)
	heap.Remove(&l.byExpiry, s.index)
	l.byAdmission.Remove(s.element)
	delete(l.subjects, s.name)
}

// expiryHeap orders subjects by expiry, soonest first.
type expiryHeap []*subject

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].expiry < h[j].expiry }
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push appends a *subject; only container/heap calls it.
func (h *expiryHeap) Push(x any) {
	s := x.(*subject)
	s.index = len(*h)
	*h = append(*h, s)
}

// Pop removes the last *subject; only container/heap calls it.
func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
