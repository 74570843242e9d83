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

// memory holds what all subjects used as this process knows it, behind one lock: a decision takes a
// fraction of a microsecond. It starts no goroutine.
type memory struct {
	now    func() time.Time
	start  time.Time
	max    int
	remote bool // there is a Redis to tell

	mu          sync.Mutex
	subjects    map[string]*subject
	byExpiry    expiryHeap
	byAdmission list.List // *subject, most recently admitted in front
	latest      int64     // the latest time handed out; time does not go back
	ops         map[string]*op
	recent      queue[*op] // admitted within the last recentFor
	journal     journal
	broken      map[string]bool // subjects whose keys in Redis are not ours
}

func newMemory(o Options) *memory {
	return &memory{
		now: o.Now, start: o.Now(), max: o.MaxSubjects, remote: o.Redis != nil,
		subjects: make(map[string]*subject), ops: make(map[string]*op), broken: make(map[string]bool),
		journal: journal{wake: make(chan struct{}, 1)},
	}
}

// take decides by what this process knows, and takes what it allows.
func (m *memory) take(a *Ask, r rule) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if o := m.ops[a.ID]; o != nil {
		return m.again(now, o, a, r)
	}
	s := m.subjects[a.Subject]
	if s == nil {
		s = &subject{}
	}
	d := s.decide(now, a, r)
	if !d.Allowed || a.never() {
		return refuseNever(d, a)
	}
	if s.element == nil {
		s = m.hold(a.Subject, now)
		s.requests.slide(now, a.Limits.Requests.span())
	}
	o := m.admit(s, now, now, a, d.Granted, r.share)
	if m.remote {
		m.tell(o)
	}
	d = d.taken()
	d.Requests.ResetIn = max(d.Requests.ResetIn, s.requests.emptyIn(now))
	d.Tokens.ResetIn = max(d.Tokens.ResetIn, s.tokens.emptyIn(now, a.Limits.Tokens.span()))
	return d
}

// refuseNever closes where a mistake would otherwise open.
func refuseNever(d Decision, a *Ask) Decision {
	if a.never() && d.Allowed {
		d.Requests.RetryIn = Never
		d.settle()
	}
	return d
}

// again answers an ask that was answered before: nothing more is taken.
func (m *memory) again(now int64, o *op, a *Ask, r rule) Decision {
	d := o.s.decide(now, a, r)
	if o.s.name != a.Subject {
		d.Requests.RetryIn = Never // an id is of one subject for ever: somebody's mistake
		d.settle()
		return d
	}
	d.Requests.RetryIn, d.Tokens.RetryIn, d.Concurrent.RetryIn = 0, 0, 0
	d.settle()
	d.Granted = o.tokens
	return d
}

// agree admits what Redis allowed, unless this process itself already admitted as much as the limit:
// then Redis forgot something, and the refusal is returned with false. The admission is dated to when
// it was asked for, which is no later than Redis dates it.
func (m *memory) agree(a *Ask, asked int64, remote answered) (Decision, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	d := remote.Decision
	if o := m.ops[a.ID]; o != nil {
		return d, true
	}
	s := m.subjects[a.Subject]
	if s == nil {
		s = m.hold(a.Subject, now)
	}
	held := *a
	held.Tokens = d.Granted
	mine := s.decide(now, &held, own())
	if !mine.Allowed {
		return mine, false
	}
	o := m.admit(s, asked, now, a, mine.Granted, 1)
	if mine.Granted < d.Granted {
		d.Granted = mine.Granted
		m.tell(o)
	}
	s.learn(now, a.Limits, remote.requests, remote.tokens)
	m.sweep(now, 2)
	return d, true
}

// heard takes notice of what Redis said without taking anything, and makes the waits that it named as
// long as this process knows them to be.
func (m *memory) heard(a *Ask, remote answered) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := remote.Decision
	s := m.subjects[a.Subject]
	if s == nil {
		return d
	}
	now := m.clock()
	s.learn(now, a.Limits, remote.requests, remote.tokens)
	if d.Allowed {
		return d
	}
	mine := s.decide(now, a, own())
	d.Requests.RetryIn = max(d.Requests.RetryIn, mine.Requests.RetryIn)
	d.Tokens.RetryIn = max(d.Tokens.RetryIn, mine.Tokens.RetryIn)
	d.settle()
	return d
}

// peek says what take would say now, and takes nothing.
func (m *memory) peek(name string, a *Ask, r rule) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	s := m.subjects[name]
	if s == nil {
		return (&subject{}).decide(now, a, r)
	}
	saved := s.requests // its running figures belong to the limit of the last Take
	defer func() { s.requests = saved }()
	return s.decide(now, a, r)
}

// restore adds an admission of the past.
func (m *memory) restore(past []Past) {
	m.mu.Lock()
	defer m.mu.Unlock()
	wall := m.now()
	now := m.since(wall)
	type admissions struct {
		limit Limit
		times []int64
	}
	requests := map[string]*admissions{}
	var order []string
	for _, p := range past {
		age := int64(max(0, wall.Sub(p.At)))
		r, t := p.Limits.Requests, p.Limits.Tokens
		if r.Window > 0 && age < r.span() {
			of := requests[p.Subject]
			if of == nil {
				of = &admissions{}
				requests[p.Subject] = of
				order = append(order, p.Subject)
			}
			of.limit = Limit{Max: max(of.limit.Max, r.Max), Window: max(of.limit.Window, r.Window)}
			of.times = append(of.times, now-age)
		}
		if p.Tokens > 0 && t.Max > 0 && t.Window > 0 && age < t.span() {
			s := m.holdOf(p.Subject, now)
			s.tokens.put(now-age, t.piece(), t.span(), p.Tokens)
			s.tokensSpan = t
		}
	}
	for _, name := range order {
		of := requests[name]
		slices.Sort(of.times)
		s := m.holdOf(name, now)
		s.requests.restore(now, of.limit, of.times)
		s.requestSpan = of.limit
		m.byAdmission.MoveToFront(s.element)
	}
	m.sweep(now, 2)
}

// count is the number of subjects held. Some may be empty and not yet forgotten.
func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(m.clock(), 1000)
	return len(m.subjects)
}

// clock is the time since the limiter's start in nanoseconds, and never goes back.
func (m *memory) clock() int64 { return m.since(m.now()) }

func (m *memory) since(t time.Time) int64 {
	m.latest = max(m.latest, int64(t.Sub(m.start)))
	return m.latest
}

func (m *memory) holdOf(name string, now int64) *subject {
	if s := m.subjects[name]; s != nil {
		return s
	}
	return m.hold(name, now)
}

// hold makes a subject with empty windows, and room for it.
func (m *memory) hold(name string, now int64) *subject {
	if len(m.subjects) >= m.max {
		m.makeRoom(now)
	}
	// The name may be a piece of something larger that should not stay in memory because of it.
	s := &subject{name: strings.Clone(name), requests: window{next: 1}, expiry: now}
	m.subjects[s.name] = s
	s.element = m.byAdmission.PushFront(s)
	heap.Push(&m.byExpiry, s)
	return s
}

// makeRoom forgets an empty subject or, when there is none, the one admitted least recently.
func (m *memory) makeRoom(now int64) {
	for held := len(m.subjects); m.byExpiry[0].expiry <= now; {
		m.sweep(now, 1)
		if len(m.subjects) < held {
			return
		}
	}
	m.forget(m.byAdmission.Back().Value.(*subject))
}

// sweep looks at no more than most of the subjects that may have become empty, and forgets those that have.
func (m *memory) sweep(now int64, most int) {
	for ; most > 0 && len(m.byExpiry) > 0; most-- {
		s := m.byExpiry[0]
		if s.expiry > now {
			return
		}
		if s.expiry = s.emptyAt(); s.expiry > now {
			heap.Fix(&m.byExpiry, 0)
			continue
		}
		m.forget(s)
	}
}

// shrunk notes that a subject may have become empty earlier than it seemed.
func (m *memory) shrunk(s *subject) {
	if s.element == nil {
		return
	}
	s.expiry = s.emptyAt()
	heap.Fix(&m.byExpiry, s.index)
	m.sweep(m.clock(), 2)
}

// forget lets go of a subject. Operations that are still open keep it to themselves.
func (m *memory) forget(s *subject) {
	heap.Remove(&m.byExpiry, s.index)
	m.byAdmission.Remove(s.element)
	delete(m.subjects, s.name)
	s.element = nil
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
