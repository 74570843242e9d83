package ratelimit

import (
	"slices"
	"time"
)

// piece is an amount that counts as used at one time.
type piece struct {
	at int64 // nanoseconds; nothing of the amount was used later
	n  int64
}

// sums is an amount used over time, in pieces sorted by time. Amounts may be corrected where they
// stand. The zero value is empty. Pieces that have left the longest window are kept as one number, as
// a window does with its losses, for the case that a longer window asks for them.
type sums struct {
	pieces  []piece
	longest int64 // the longest window that was asked about, in nanoseconds
	lost    piece
}

// used is the amount in the window of length span that ends now.
func (s *sums) used(now, span int64) int64 {
	var n int64
	for i := len(s.pieces) - 1; i >= 0 && s.pieces[i].at > now-span; i-- {
		n += s.pieces[i].n
	}
	if s.lost.n > 0 && s.lost.at > now-span {
		n += s.lost.n
	}
	return n
}

// leavesIn is the time until at least k of what counts has left the window.
func (s *sums) leavesIn(now, span, k int64) time.Duration {
	var wait int64
	if s.lost.n > 0 && s.lost.at > now-span {
		k -= s.lost.n
		wait = s.lost.at + span - now
	}
	for _, p := range s.pieces {
		if k <= 0 {
			break
		}
		if p.at > now-span {
			k -= p.n
			wait = p.at + span - now
		}
	}
	return time.Duration(wait)
}

// emptyIn is the time until nothing counts any more.
func (s *sums) emptyIn(now, span int64) time.Duration {
	return time.Duration(max(0, s.latest()+span-now))
}

// latest is the time of the newest amount; with none, one so old that no window holds it.
func (s *sums) latest() int64 {
	at := int64(-1 << 62)
	if s.lost.n > 0 {
		at = s.lost.at
	}
	if len(s.pieces) > 0 {
		at = max(at, s.pieces[len(s.pieces)-1].at)
	}
	return at
}

// emptyAt is the time from which nothing counts even under the longest window asked about.
func (s *sums) emptyAt() int64 { return s.latest() + s.longest }

// add notes an amount used now, or more exactly within the piece of length width that the newest
// piece ends or a new one begins, and returns the time under which correct finds it.
func (s *sums) add(now, width, span, n int64) int64 {
	s.longest = max(s.longest, span)
	s.forget(now, span)
	at := now + width - 1
	for i := len(s.pieces) - 1; i >= 0 && s.pieces[i].at > at; i-- {
		// A longer piece was begun before; all of it happened by now.
		s.pieces[i].at = at
	}
	if last := len(s.pieces) - 1; last >= 0 && s.pieces[last].at >= now {
		s.pieces[last].n += n
		return s.pieces[last].at
	}
	s.pieces = append(s.pieces, piece{at: at, n: n})
	return at
}

// put notes an amount of an earlier time, dated up to width-1 later.
func (s *sums) put(at, width, span, n int64) {
	s.longest = max(s.longest, span)
	i, _ := s.find(at)
	if i < len(s.pieces) && s.pieces[i].at < at+width {
		s.pieces[i].n += n
		return
	}
	s.pieces = slices.Insert(s.pieces, i, piece{at: at + width - 1, n: n})
}

// correct changes the amount noted under a time, and drops the piece when nothing is left of it. Where
// the piece is gone, because it was empty or a shortened window has dated it anew, more is noted anew
// and less is let be: that counts too much rather than too little.
func (s *sums) correct(at, by int64) {
	i, found := s.find(at)
	switch {
	case !found && by > 0:
		s.pieces = slices.Insert(s.pieces, i, piece{at: at, n: by})
	case found:
		if s.pieces[i].n += by; s.pieces[i].n <= 0 {
			s.pieces = slices.Delete(s.pieces, i, i+1)
		}
	}
}

// find is the index of the first piece that is not before the time, and whether it is of that time.
func (s *sums) find(at int64) (int, bool) {
	return slices.BinarySearchFunc(s.pieces, at, func(p piece, at int64) int {
		switch {
		case p.at < at:
			return -1
		case p.at > at:
			return 1
		}
		return 0
	})
}

// forget makes one number of what has left the window of length span.
func (s *sums) forget(now, span int64) {
	gone := 0
	for gone < len(s.pieces) && s.pieces[gone].at <= now-span {
		s.lost = piece{at: s.pieces[gone].at, n: s.lost.n + s.pieces[gone].n} // the latest so far: they are sorted
		gone++
	}
	if gone > 0 {
		s.pieces = append(s.pieces[:0], s.pieces[gone:]...)
	}
}
