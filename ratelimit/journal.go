package ratelimit

import "time"

const (
	maxJournal = 100_000          // operations that Redis may still have to be told, and recent ones
	recentFor  = 10 * time.Second // Redis may have lost what it was told this recently
)

// op is one admission while something about it may still change, or Redis may have to be told.
type op struct {
	id     string
	s      *subject
	at     int64 // when it was admitted, on the limiter's clock
	place  int64 // in the window of requests; 0 when it was given back
	limits Limits
	tokens int64 // held, and after Settle used
	piece  int64 // where the tokens stand

	// What it weighs beyond itself because it was admitted while Redis was away, and where.
	extra, extraTokens     int64
	extraAt, extraTokensAt int64

	open, live     bool // not settled; holds a concurrent place
	gone           bool // given back, or Redis may have admitted it although the answer was a refusal
	recent         bool // in memory.recent
	pending        bool // in subject.pending
	sending        bool // on its way to Redis
	told           bool // Redis knows of it, in some state
	changedOnRoute bool
}

// bounds reports whether the end of the request matters to any limit.
func (l *Limits) bounds() bool { return l.Tokens.Max > 0 || l.Concurrent > 0 }

// left reports whether it counts in no window any more: neither its request nor its tokens, which
// stand at the end of their piece, up to a piece after the admission.
func (o *op) left(now int64) bool {
	r, t := o.limits.Requests, o.limits.Tokens
	return now-o.at >= max(r.span()+r.width(), t.span()+t.piece())
}

// admit takes what was decided: the caller has asked the windows. share is how many gateways the
// admission stands for until Redis knows of it.
func (m *memory) admit(s *subject, asked, now int64, a *Ask, granted, share int64) *op {
	l := a.Limits
	o := &op{id: a.ID, s: s, at: asked, limits: l, tokens: granted, open: l.bounds()}
	s.requestSpan = l.Requests
	o.place = s.requests.admit(asked, now, l.Requests)
	o.extra = weight(1, share, l.Requests.Max) - 1
	if l.Tokens.Max > 0 {
		s.tokensSpan = l.Tokens
		o.piece = s.tokens.add(now, l.Tokens.piece(), l.Tokens.span(), granted)
		o.extraTokens = weight(granted, share, l.Tokens.Max) - granted
	}
	s.weigh(o, now)
	if l.Concurrent > 0 {
		o.live = true
		s.live++
	}
	m.ops[o.id] = o
	o.recent = true
	m.recent.push(o)
	m.forgetRecent(now)
	if s.element != nil {
		m.byAdmission.MoveToFront(s.element)
	}
	m.sweep(now, 2)
	return o
}

// giveBack undoes an admission and reports whether there was one to undo.
func (m *memory) giveBack(a *Ask) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.ops[a.ID]
	if o == nil || o.place == 0 {
		return
	}
	o.s.requests.giveBack(o.place)
	o.place = 0
	o.s.tokens.correct(o.piece, -o.tokens)
	m.weighOne(o)
	m.free(o)
	o.open, o.gone = false, true
	delete(m.ops, o.id)
	if m.remote {
		m.tell(o)
	}
	m.shrunk(o.s)
}

// settle ends an admission with the number of tokens that were used.
func (m *memory) settle(a *Ask, tokens int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.ops[a.ID]
	if o == nil || !o.open {
		return
	}
	o.open = false
	news := o.live
	m.free(o)
	if tokens = max(0, tokens); o.limits.Tokens.Max > 0 && tokens != o.tokens {
		news = true
		if o.piece > m.latest-o.limits.Tokens.span() { // as long as it counts, not as long as it should
			o.s.tokens.correct(o.piece, tokens-o.tokens)
		}
		if o.extraTokens > 0 && !o.told {
			extra := tokens * (o.extraTokens / max(1, o.tokens))
			o.s.otherTokens.correct(o.extraTokensAt, extra-o.extraTokens)
			o.extraTokens = extra
		}
		o.tokens = tokens
	}
	if news && m.remote {
		m.tell(o)
	}
	m.shrunk(o.s)
	m.release(o)
}

// free ends an admission's hold of a concurrent place.
func (m *memory) free(o *op) {
	if o.live {
		o.live = false
		o.s.live--
	}
}

// weighOne takes away what an admission weighed beyond itself.
func (m *memory) weighOne(o *op) {
	if o.told {
		return // weighAnew does, at the next answer
	}
	if o.extra > 0 {
		o.s.others.correct(o.extraAt, -o.extra)
	}
	if o.extraTokens > 0 {
		o.s.otherTokens.correct(o.extraTokensAt, -o.extraTokens)
	}
	o.extra, o.extraTokens = 0, 0
}

// release forgets an admission that nobody will ask about.
func (m *memory) release(o *op) {
	if !o.open && !o.recent && !o.pending && !o.sending && m.ops[o.id] == o {
		delete(m.ops, o.id)
	}
}

func (m *memory) forgetRecent(now int64) {
	for m.recent.len() > 0 {
		o := m.recent.first()
		if m.recent.len() <= maxJournal && o.at > now-int64(recentFor) {
			return
		}
		m.recent.pop()
		o.recent = false
		m.release(o)
	}
}

// journal is what Redis must still be told.
type journal struct {
	queue   queue[*subject] // those with pending operations
	pending int
	dropped int64
	wake    chan struct{} // holds a token when there is something new
}

// tell puts an admission on the list of what Redis must learn.
func (m *memory) tell(o *op) {
	if o.sending {
		o.changedOnRoute = true
		return
	}
	if !o.pending {
		o.pending = true
		o.s.pending = append(o.s.pending, o)
		if m.journal.pending++; m.journal.pending > maxJournal {
			m.dropOldest()
		}
	}
	if !o.s.queued && len(o.s.pending) > 0 {
		o.s.queued = true
		m.journal.queue.push(o.s)
	}
	select {
	case m.journal.wake <- struct{}{}:
	default:
	}
}

// undo has Redis undo what it may have admitted, although the answer was a refusal.
func (m *memory) undo(a *Ask) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if m.ops[a.ID] != nil {
		return
	}
	m.tell(&op{id: a.ID, s: m.holdOf(a.Subject, now), at: now, limits: a.Limits, gone: true})
}

func (m *memory) dropOldest() {
	for m.journal.queue.len() > 0 {
		s := m.journal.queue.first()
		if len(s.pending) == 0 {
			m.journal.queue.pop()
			s.queued = false
			continue
		}
		o := s.pending[0]
		s.pending = s.pending[1:]
		m.journal.pending--
		if o.open || !o.left(m.latest) {
			m.journal.dropped++
		}
		o.pending = false
		m.release(o)
		return
	}
}

// parcel is what one call tells Redis about one subject.
type parcel struct {
	s    *subject
	ops  []*op
	puts []put
}

// pack takes up to most operations of a subject off the list, as they stand now.
func (m *memory) pack(s *subject, now int64, most int) parcel {
	p := parcel{s: s}
	for len(s.pending) > 0 && len(p.ops) < most {
		o := s.pending[0]
		s.pending[0] = nil
		s.pending = s.pending[1:]
		o.pending = false
		m.journal.pending--
		if !o.live && o.limits.Concurrent == 0 && o.left(now) {
			m.release(o) // Redis need not hear of it any more
			continue
		}
		o.sending = true
		s.sending++
		p.ops = append(p.ops, o)
		p.puts = append(p.puts, o.put(now))
	}
	if len(s.pending) == 0 {
		s.pending = nil
	}
	return p
}

// delivered ends the way of a parcel. What was not told, or changed meanwhile, is told again.
func (m *memory) delivered(p parcel, told bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range p.ops {
		o.sending = false
		p.s.sending--
		o.told = o.told || told
		if !told || o.changedOnRoute {
			o.changedOnRoute = false
			m.tell(o)
			continue
		}
		m.release(o)
	}
	m.shrunk(p.s)
}

// next packs what the subject that waits longest has to tell; false when there is nothing.
func (m *memory) next(most int) (parcel, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	for m.journal.queue.len() > 0 {
		s := m.journal.queue.pop()
		s.queued = false
		p := m.pack(s, now, most)
		if len(s.pending) > 0 {
			s.queued = true
			m.journal.queue.push(s)
		}
		if len(p.ops) > 0 {
			return p, true
		}
		m.shrunk(s)
	}
	return parcel{}, false
}

// tellAll puts on the list what Redis may have lost: every recent admission and every concurrent
// place. With recent false only the places, whose leases must be renewed.
func (m *memory) tellAll(recent bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgetRecent(m.clock())
	for _, o := range m.ops {
		if o.live || recent && o.recent && o.place != 0 {
			m.tell(o)
		}
	}
}

// backlog is the number of operations that Redis has not been told.
func (m *memory) backlog() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.journal.pending
}

// queue is first in, first out.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }
func (q *queue[T]) first() T { return q.items[q.head] }
func (q *queue[T]) push(x T) { q.items = append(q.items, x) }

func (q *queue[T]) pop() T {
	x := q.items[q.head]
	var none T
	q.items[q.head] = none
	if q.head++; q.head*2 >= len(q.items) {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return x
}
