package ratelimit

import (
	"container/list"
	"slices"
	"time"
)

// retryConcurrent is the wait named when all concurrent places are taken: nobody knows when one ends.
const retryConcurrent = time.Second

// subject is what one subject has used, as this process knows it.
type subject struct {
	name     string
	requests window
	tokens   sums
	live     int64 // concurrent places held

	// others is what counts besides: what other replicas had used when Redis last answered, and the
	// additional weight of what this one admitted on its own while Redis was away.
	others, otherTokens     sums
	block, blockTokens      piece // the part of others that Redis told, replaced by its next answer
	weighed                 bool  // others has additional weights, not only what Redis told
	sending                 int   // operations on their way to Redis
	pending                 []*op // what Redis must still be told, oldest first
	queued                  bool  // in journal.queue
	expiry                  int64 // the windows were seen not to be empty before this time
	index                   int   // in memory.byExpiry
	element                 *list.Element
	requestSpan, tokensSpan Limit // the limits of the last Take, for dumps
}

// rule is how a decision counts.
type rule struct {
	// share is the number of gateways that each may use that part of a limit; 1 = all of it.
	share int64
	// all counts what others hold, too; without it only this process' own use counts, at weight 1.
	all bool
}

// own is the rule under which a decision of Redis is checked: whatever Redis forgot, no window holds
// more than the limit by what this process itself admitted.
func own() rule { return rule{share: 1} }

// decide answers the ask, without taking anything.
func (s *subject) decide(now int64, a *Ask, r rule) Decision {
	requests := s.decideRequests(now, a.Limits.Requests, r)
	d := Decision{Allowed: true, Requests: State{
		Limit: requests.Limit, Remaining: requests.Remaining, RetryIn: requests.RetryIn, ResetIn: requests.ResetIn,
	}}
	d.Tokens, d.Granted = s.decideTokens(now, a, r)
	d.Concurrent = s.decideConcurrent(a.Limits.Concurrent, r)
	d.settle()
	return d
}

// settle fills what follows from the three states: who refuses, and the wait.
func (d *Decision) settle() {
	d.Allowed, d.Refused, d.RetryIn = true, "", 0
	for _, s := range []struct {
		name  string
		state *State
	}{{NameRequests, &d.Requests}, {NameTokens, &d.Tokens}, {NameConcurrent, &d.Concurrent}} {
		if s.state.RetryIn > d.RetryIn {
			d.Allowed, d.Refused, d.RetryIn = false, s.name, s.state.RetryIn
		}
	}
	if !d.Allowed {
		d.Granted = 0
	}
}

func (s *subject) decideRequests(now int64, l Limit, r rule) answer {
	if r.all {
		return s.requests.decide(now, l, r.share, &s.others)
	}
	return s.requests.decide(now, l, 1, nil)
}

// least is the smallest grant that will do.
func (a *Ask) least() int64 { return max(0, min(a.MinTokens, a.Tokens)) }

// never reports whether no wait and no store could let the ask pass: a limit that admits nothing, or
// an ask that is no ask.
func (a *Ask) never() bool {
	r, t := a.Limits.Requests, a.Limits.Tokens
	return a.ID == "" || r.Max <= 0 || r.Window <= 0 || a.Limits.Concurrent < 0 ||
		t.Max < 0 || t.Max > 0 && (t.Window <= 0 || a.least() > t.Max)
}

func (s *subject) decideTokens(now int64, a *Ask, r rule) (State, int64) {
	l := a.Limits.Tokens
	state := State{Limit: l}
	switch {
	case l.Max == 0:
		return state, 0
	case l.Max < 0 || l.Window <= 0:
		state.RetryIn = Never
		return state, 0
	}
	used, reset := s.tokens.used(now, l.span()), s.tokens.emptyIn(now, l.span())
	if r.all {
		used += s.otherTokens.used(now, l.span())
		reset = max(reset, s.otherTokens.emptyIn(now, l.span()))
	}
	least := a.least()
	state.ResetIn = reset
	state.Remaining = max(0, l.Max-used) / r.share
	granted := max(0, min(a.Tokens, state.Remaining))
	if granted < least && used == 0 && least <= l.Max {
		// The share is smaller than the smallest answer: one at a time, and nothing beside it.
		granted, state.Remaining = least, least
	}
	if granted >= least {
		return state, granted
	}
	if state.RetryIn = Never; least <= l.Max {
		all := &s.tokens
		if r.all {
			all = joined(&s.tokens, &s.otherTokens)
		}
		state.RetryIn = all.leavesIn(now, l.span(), used+weight(least, r.share, l.Max)-l.Max)
	}
	return state, 0
}

// weight is what n counts for when every gateway may use only its share of the limit.
func weight(n, share, limit int64) int64 {
	if n > limit/share {
		return max(n, limit)
	}
	return n * share
}

// joined is two sums as one.
func joined(a, b *sums) *sums {
	all := slices.Concat(a.pieces, b.pieces)
	for _, lost := range []piece{a.lost, b.lost} {
		if lost.n > 0 {
			all = append(all, lost)
		}
	}
	slices.SortFunc(all, func(a, b piece) int { return int(max(-1, min(1, a.at-b.at))) })
	return &sums{pieces: all}
}

func (s *subject) decideConcurrent(limit int64, r rule) State {
	state := State{Limit: Limit{Max: limit}}
	if limit == 0 {
		return state
	}
	if limit < 0 {
		state.RetryIn = Never
		return state
	}
	if r.all {
		limit = max(1, limit/r.share)
	}
	if state.Remaining = max(0, limit-s.live); state.Remaining == 0 {
		state.RetryIn = retryConcurrent
	}
	return state
}

// taken is the decision after what it allows has been taken.
func (d Decision) taken() Decision {
	d.Requests.Remaining = max(0, d.Requests.Remaining-1)
	d.Tokens.Remaining = max(0, d.Tokens.Remaining-d.Granted)
	d.Concurrent.Remaining = max(0, d.Concurrent.Remaining-1)
	return d
}

// emptyAt is the time from which no window holds anything.
func (s *subject) emptyAt() int64 {
	if s.live > 0 || len(s.pending) > 0 {
		return 1 << 62
	}
	return max(s.requests.emptyAt(), s.tokens.emptyAt(), s.others.emptyAt(), s.otherTokens.emptyAt())
}

// learn notes what others have used, given what all have by the answer of Redis.
func (s *subject) learn(now int64, l Limits, requests, tokens int64) {
	s.weighAnew(now)
	s.requests.slide(now, l.Requests.span())
	mine := s.requests.live
	if s.requests.lossesCount(now) {
		mine += s.requests.losses
	}
	s.others.replace(&s.block, now, l.Requests.span(), requests-mine)
	if l.Tokens.Max > 0 {
		s.otherTokens.replace(&s.blockTokens, now, l.Tokens.span(), tokens-s.tokens.used(now, l.Tokens.span()))
	}
}

// weighAnew takes away the additional weight of what Redis was told: its answers count that now.
func (s *subject) weighAnew(now int64) {
	if !s.weighed || s.sending > 0 {
		return
	}
	s.weighed = false
	s.others, s.block = sums{longest: s.others.longest}, piece{}
	s.otherTokens, s.blockTokens = sums{longest: s.otherTokens.longest}, piece{}
	for _, o := range s.pending {
		if !o.gone && !o.left(now) {
			s.weigh(o, now)
		}
	}
}

// weigh adds the additional weight of an admission that Redis does not know of.
func (s *subject) weigh(o *op, now int64) {
	l := o.limits
	if o.extra > 0 {
		o.extraAt = s.others.add(now, l.Requests.width(), l.Requests.span(), o.extra)
		s.weighed = true
	}
	if o.extraTokens > 0 {
		o.extraTokensAt = s.otherTokens.add(now, l.Tokens.piece(), l.Tokens.span(), o.extraTokens)
		s.weighed = true
	}
}

// replace exchanges one amount for another that is known now.
func (s *sums) replace(old *piece, now, span, n int64) {
	if old.n == 0 && n <= 0 {
		return
	}
	s.correct(old.at, -old.n)
	*old = piece{}
	if n > 0 {
		*old = piece{at: s.add(now, 1, span, n), n: n}
	}
}
