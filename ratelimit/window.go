package ratelimit

import "time"

const (
	exactUpTo  = 1000 // requests per window up to which every admission keeps its own time
	subWindows = 64   // pieces of the window within which admissions share a time, above that
	manyRuns   = 2048 // runs of one subject beyond which those of equal time are sealed together
)

// window is what one subject was admitted so far. Times are nanoseconds on one clock that never goes
// back; the caller sees to that. The zero value with next set to 1 or more is an empty window.
//
// The runs are sorted by time. Those that have left the window stay in the ring until their room is
// needed, because a longer window may ask for them again.
type window struct {
	runs ring
	next int64 // place number of the next admission; never 0, never used twice

	span    int64 // the window length that gone and live belong to
	longest int64 // the longest window this subject was taken under
	gone    int   // runs at the old end of the ring that have left the window
	live    int64 // admissions in all other runs

	lost   int64 // time of the latest admission that is no longer in the ring
	losses int64 // how many those are
}

// answer is what a window says to one question, true at the moment it was given.
type answer struct {
	Allowed bool
	Limit   Limit // the limit that was asked about

	// Remaining is the number of admissions left in the window that ends now, after this answer.
	Remaining int64
	// RetryIn is 0 when allowed, else the time until one admission would pass.
	RetryIn time.Duration
	// ResetIn is the time until everything that counts has left the window.
	ResetIn time.Duration

	place int64 // what giveBack undoes; 0 is nothing
}

// peek says what take would say, without taking. It works on a copy: nothing it notes in there
// (the ring's buffer is only read) may outlive the question.
func (w window) peek(now int64, limit Limit) answer {
	return w.decide(now, limit, 1, nil)
}

// take admits once if the limit lets it.
func (w *window) take(now int64, limit Limit) answer {
	d := w.decide(now, limit, 1, nil)
	if !d.Allowed {
		w.longest = max(w.longest, limit.span())
		return d
	}
	d.place = w.admit(now, now, limit)
	d.Remaining--
	d.ResetIn = w.emptyIn(now)
	return d
}

// decide answers for an admission of the given weight. Besides what the window holds, everything in
// others counts, which may be nil.
func (w *window) decide(now int64, limit Limit, weight int64, others *sums) answer {
	d := answer{Limit: limit, RetryIn: Never}
	if limit.Window <= 0 {
		return d
	}
	w.slide(now, limit.span())
	d.ResetIn = w.emptyIn(now)
	if others != nil {
		d.ResetIn = max(d.ResetIn, others.emptyIn(now, w.span))
	}
	if limit.Max <= 0 {
		return d
	}
	used := w.live
	if w.lossesCount(now) {
		used += w.losses
	}
	if others != nil {
		used += others.used(now, w.span)
	}
	weight = min(weight, limit.Max)
	d.Remaining = max(0, limit.Max-used) / weight
	if d.Remaining > 0 {
		d.Allowed, d.RetryIn = true, 0
		return d
	}
	d.RetryIn = w.leavesIn(now, used+weight-limit.Max, others)
	return d
}

// slide brings gone and live up to date. It costs what has left since the last call, or everything
// held when the window's length has changed.
func (w *window) slide(now, span int64) {
	if span != w.span {
		w.span, w.gone, w.live = span, 0, 0
		for i := range w.runs.len() {
			w.live += w.runs.at(i).n
		}
	}
	for w.gone < w.runs.len() && !w.inside(w.runs.at(w.gone).at, now) {
		w.live -= w.runs.at(w.gone).n
		w.gone++
	}
}

// inside reports whether an admission at the given time counts now: the window is open at its old end.
func (w *window) inside(at, now int64) bool { return at > now-w.span }

func (w *window) lossesCount(now int64) bool { return w.losses > 0 && w.inside(w.lost, now) }

// until is the time from now to the moment when an admission at the given time leaves the window.
func (w *window) until(at, now int64) time.Duration { return time.Duration(w.span - (now - at)) }

// leavesIn is the time until k of those that count, the oldest, have left the window.
func (w *window) leavesIn(now, k int64, others *sums) time.Duration {
	at := now - w.span
	leave := func(t, n int64) { at, k = max(at, t), k-n }
	if w.lossesCount(now) {
		leave(w.lost, w.losses)
	}
	var rest []piece
	if others != nil {
		if rest = others.pieces; others.lost.n > 0 && w.inside(others.lost.at, now) {
			leave(others.lost.at, others.lost.n)
		}
	}
	for i := w.gone; k > 0; {
		for len(rest) > 0 && !w.inside(rest[0].at, now) {
			rest = rest[1:]
		}
		switch {
		case len(rest) > 0 && (i == w.runs.len() || rest[0].at < w.runs.at(i).at):
			leave(rest[0].at, rest[0].n)
			rest = rest[1:]
		case i < w.runs.len():
			leave(w.runs.at(i).at, w.runs.at(i).n)
			i++
		default:
			return w.until(at, now)
		}
	}
	return w.until(at, now)
}

// latest is the time of the newest admission, and whether there was any.
func (w *window) latest() (at int64, any bool) {
	if w.runs.len() > 0 {
		return w.runs.newest().at, true
	}
	return w.lost, w.losses > 0
}

func (w *window) emptyIn(now int64) time.Duration {
	at, any := w.latest()
	if !any || !w.inside(at, now) {
		return 0
	}
	return w.until(at, now)
}

// emptyAt is the time from which the window is empty even under the longest length it was taken under.
func (w *window) emptyAt() int64 {
	at, any := w.latest()
	if !any {
		return 0
	}
	return at + w.longest
}

// admit notes one admission that was asked for at the given time, whatever the limit says, and returns
// its place number. The newest run is joined when it ends within width of that time, so an admission
// is dated at most width-1 too late.
func (w *window) admit(asked, now int64, limit Limit) int64 {
	w.longest = max(w.longest, limit.span())
	if limit.span() != w.span || asked <= now-w.span {
		asked = now
	}
	width := limit.width()
	at, place := asked+width-1, w.next
	w.next++
	if w.runs.len() > 0 {
		newest := w.runs.newest()
		if newest.at > max(at, now+width-1) {
			w.endRuns(now)
		} else if newest.at >= asked && (width > 1 || newest.at == asked) {
			at = newest.at
			if newest.first != 0 && newest.first+newest.n == place {
				newest.n++
				w.live++
				return place
			}
		}
	}
	w.makeRoom()
	i := w.runs.len()
	for i > w.gone && w.runs.at(i-1).at > at {
		i--
	}
	w.runs.insert(i, run{at: at, first: place, n: 1})
	w.live++
	return place
}

// endRuns dates runs that reach into the future to now, which is true of all admissions so far. It is
// needed when pieces have become shorter, to keep the runs sorted.
func (w *window) endRuns(now int64) {
	for i := w.runs.len() - 1; i >= 0 && w.runs.at(i).at > now; i-- {
		w.runs.at(i).at = now
	}
}

// makeRoom makes the ring able to take one more run, and lets go of a buffer that a burst left behind.
func (w *window) makeRoom() {
	size := len(w.runs.buf)
	if size >= 64 && w.runs.len()-w.gone < size/8 {
		for w.runs.len() > size/8 {
			w.lose()
		}
		w.runs.resize(size / 4)
	}
	if !w.runs.full() {
		return
	}
	if w.gone > 0 {
		w.lose()
		return
	}
	if w.runs.len() >= manyRuns && w.seal() {
		return
	}
	w.runs.grow()
}

// lose drops the oldest run, which must have left the window, and keeps its number and time.
func (w *window) lose() {
	w.countLost(w.runs.at(0).at, w.runs.at(0).n)
	w.runs.dropOldest()
	w.gone--
}

func (w *window) countLost(at, n int64) {
	if w.losses == 0 || at > w.lost {
		w.lost = at
	}
	w.losses += n
}

// seal joins runs of the same time, and reports whether that freed any room. Given back places leave
// such runs; without a bound, taking and giving back in turn would cost a run for each admission
// that stays. What is sealed counts on, but can no longer be given back. No run may be gone. The
// newest run, where those are that may yet be given back, stays as it is.
func (w *window) seal() bool {
	kept := 0
	for i := 1; i < w.runs.len(); i++ {
		last, x := w.runs.at(kept), *w.runs.at(i)
		if x.at == last.at && i < w.runs.len()-1 {
			last.n += x.n
			last.first = 0
			continue
		}
		kept++
		*w.runs.at(kept) = x
	}
	freed := kept+1 < w.runs.len()
	w.runs.n = kept + 1
	return freed
}

// giveBack undoes one admission. A place that was given back, forgotten or sealed is no longer found
// and nothing happens, which makes giving back idempotent.
func (w *window) giveBack(place int64) {
	i, found := w.find(place)
	if !found {
		return
	}
	r := w.runs.at(i)
	if end := r.first + r.n; r.first < place && place+1 < end && w.runs.full() {
		w.makeRoom() // for the second half; this may move or seal the run
		if i, found = w.find(place); !found {
			return
		}
	}
	if i >= w.gone {
		w.live--
	}
	w.takeOut(i, place)
}

// find looks from the newest run on: a place is given back soon or never.
func (w *window) find(place int64) (i int, found bool) {
	for i = w.runs.len() - 1; i >= 0; i-- {
		if r := w.runs.at(i); r.first != 0 && r.first <= place && place < r.first+r.n {
			return i, true
		}
	}
	return 0, false
}

// takeOut removes one place from run i, which it may end, shorten or split.
func (w *window) takeOut(i int, place int64) {
	r := w.runs.at(i)
	end := r.first + r.n
	switch {
	case r.n == 1:
		w.runs.remove(i)
		if i < w.gone {
			w.gone--
		}
	case place == r.first:
		r.first++
		r.n--
	case place+1 == end:
		r.n--
	default:
		r.n = place - r.first
		w.runs.insert(i+1, run{at: r.at, first: place + 1, n: end - place - 1})
		if i < w.gone {
			w.gone++
		}
	}
}

// restore adds admissions of earlier times, sorted and none later than now. They cannot be given back.
// Those that cannot matter under a limit of this size are kept as a number.
func (w *window) restore(now int64, limit Limit, at []int64) {
	span := limit.span()
	w.longest = max(w.longest, span)
	for len(at) > 0 && at[0] <= now-span {
		at = at[1:]
	}
	if extra := int64(len(at)) - max(limit.Max, exactUpTo); extra > 0 {
		w.countLost(at[extra-1], extra)
		at = at[extra:]
	}
	old := w.runs
	w.runs = ring{}
	w.span = 0 // count anew at the next question
	w.gone, w.live = 0, 0
	next, width := 0, limit.width()
	for _, t := range at {
		for ; next < old.len() && old.at(next).at <= t; next++ {
			w.add(*old.at(next))
		}
		if n := w.runs.len(); n > 0 && w.runs.newest().first == 0 && t <= w.runs.newest().at {
			w.runs.newest().n++
			continue
		}
		w.add(run{at: t + width - 1, n: 1})
	}
	for ; next < old.len(); next++ {
		w.add(*old.at(next))
	}
}

// add appends a run, dated no earlier than the one before it.
func (w *window) add(r run) {
	if w.runs.len() > 0 {
		r.at = max(r.at, w.runs.newest().at)
	}
	if w.runs.full() {
		w.runs.grow()
	}
	w.runs.push(r)
}
