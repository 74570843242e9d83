package ratelimit

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// admission and model are the plain truth: every admission that ever was and was not given back.
type admission struct {
	at int64
	d  answer
}

type model []admission

// count is the number of admissions in the window of length span that ends now.
func (m model) count(now, span int64) (n int64) {
	for _, a := range m {
		if a.at > now-span {
			n++
		}
	}
	return n
}

// check1000 tries a property 1,000 times; rapid's own default is 100.
func check1000(t *testing.T, property func(*rapid.T)) {
	for i := range 10 {
		if !t.Run(fmt.Sprint(i), func(t *testing.T) { rapid.Check(t, property) }) {
			return
		}
	}
}

// check fails when any window of the limit's length, ending at any admission made under that
// limit since index from, holds more than the limit.
func (m model) check(t *rapid.T, limit Limit, from int) {
	for i := from; i < len(m); i++ {
		if n := m[:i+1].count(m[i].at, int64(limit.Window)); n > limit.Max {
			t.Fatalf("%d admissions in one window of %v", n, limit)
		}
	}
}

func checkExact(t *rapid.T, m model, now int64, limit Limit, d answer) {
	used := m.count(now, int64(limit.Window))
	if d.Allowed != (used < limit.Max) {
		t.Fatalf("at %d under %v with %d used: %+v", now, limit, used, d)
	}
	if !d.Allowed {
		in := now + int64(d.RetryIn)
		if n := m.count(in, int64(limit.Window)); n >= limit.Max {
			t.Fatalf("RetryIn %d is too short: %d used then", d.RetryIn, n)
		}
		if n := m.count(in-1, int64(limit.Window)); n < limit.Max {
			t.Fatalf("RetryIn %d is too long: %d used just before", d.RetryIn, n)
		}
	}
	wantReset := int64(0)
	for _, a := range m {
		wantReset = max(wantReset, a.at+int64(limit.Window)-now)
	}
	if !d.Allowed && int64(d.ResetIn) != wantReset {
		t.Fatalf("ResetIn %d, want %d", d.ResetIn, wantReset)
	}
}

// With one window length per subject the limiter and the model agree on everything, whatever the
// order of takes, gifts back, changes of the number and subjects forgotten when empty.
func TestLimiterAgreesWithTheModel(t *testing.T) {
	check1000(t, func(t *rapid.T) {
		c := newClock()
		l := newPlain(t, Options{Now: c.Now})
		start := c.t
		windows := map[string]time.Duration{"a": 10, "b": 7, "c": 100}
		models := map[string]model{}
		past := map[string][]answer{}
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "subject")
			limit := Limit{rapid.Int64Range(1, 6).Draw(t, "requests"), windows[name]}
			now := int64(c.t.Sub(start))
			m := models[name]
			switch rapid.IntRange(0, 7).Draw(t, "action") {
			case 0, 1, 2, 3:
				d := l.Take(name, limit)
				checkExact(t, m, now, limit, d)
				if d.Allowed {
					if left := limit.Max - m.count(now, int64(limit.Window)) - 1; d.Remaining != left || d.ResetIn != limit.Window {
						t.Fatalf("%+v, want %d left", d, left)
					}
					m = append(m, admission{now, d})
					m.check(t, limit, len(m)-1)
					past[name] = append(past[name], d)
				}
				models[name] = m
			case 4:
				checkExact(t, m, now, limit, l.Peek(name, limit))
			case 5, 6:
				c.Advance(time.Duration(rapid.IntRange(0, 12).Draw(t, "advance")))
			case 7:
				if len(past[name]) == 0 {
					continue
				}
				// Any decision of the past, given back before or not.
				d := rapid.SampledFrom(past[name]).Draw(t, "decision")
				l.GiveBack(name, d)
				models[name] = slices.DeleteFunc(slices.Clone(m), func(a admission) bool { return a.d.place == d.place })
			}
		}
	})
}

// drive lets one window live through the given steps and checks after each that the new limit's
// window does not hold more than the new limit, and that coarse refusals are at most one piece early.
func drive(fatalf func(string, ...any), steps []step) {
	w := window{next: 1}
	var m model
	var now int64
	var decisions []answer
	for i, s := range steps {
		now += s.advance
		if s.giveBack && len(decisions) > 0 {
			d := decisions[int(s.pick)%len(decisions)]
			w.giveBack(d.place)
			m = slices.DeleteFunc(m, func(a admission) bool { return a.d.place == d.place })
			continue
		}
		peeked := w.peek(now, s.limit)
		d := w.take(now, s.limit)
		if peeked.Allowed != d.Allowed || peeked.RetryIn != d.RetryIn {
			fatalf("step %d: Peek said %+v, Take %+v", i, peeked, d)
		}
		if !d.Allowed {
			if d.RetryIn <= 0 || s.limit.Max > 0 && s.limit.Window > 0 && !w.peek(now+int64(d.RetryIn), s.limit).Allowed {
				fatalf("step %d: waiting RetryIn did not help: %+v", i, d)
			}
			if d.RetryIn > 1 && w.peek(now+int64(d.RetryIn)-1, s.limit).Allowed {
				fatalf("step %d: RetryIn is longer than needed: %+v", i, d)
			}
			continue
		}
		m = append(m, admission{now, d})
		decisions = append(decisions, d)
		if n := m.count(now, int64(s.limit.Window)); n > s.limit.Max {
			fatalf("step %d: %d admissions in one window of %+v", i, n, s.limit)
		}
		w.slide(now, int64(s.limit.Window))
		checkBooks(fatalf, &w, int64(len(m)))
	}
}

// checkBooks compares the window's running figures with a fresh count.
func checkBooks(fatalf func(string, ...any), w *window, atLeast int64) {
	var live, all int64
	for i := range w.runs.len() {
		r := w.runs.at(i)
		all += r.n
		if i >= w.gone {
			live += r.n
		}
		if r.n < 1 || i > 0 && w.runs.at(i-1).at > r.at {
			fatalf("runs out of order or empty at %d", i)
		}
	}
	if live != w.live || all+w.losses < atLeast {
		fatalf("live %d, counted %d; held and lost %d of %d", w.live, live, all+w.losses, atLeast)
	}
}

type step struct {
	advance  int64
	limit    Limit
	giveBack bool
	pick     uint16
}

func TestNoChangeOfLimitsAdmitsTooMany(t *testing.T) {
	limits := []Limit{{3, 10}, {3, 1000}, {40, 10}, {1001, 64_000}, {1005, 640}, {2000, 1_000_000}, {1000, 64_000}, {1, 1}, {0, 5}, {5, 0}}
	check1000(t, func(t *rapid.T) {
		var steps []step
		for range rapid.IntRange(1, 12).Draw(t, "phases") {
			s := step{limit: rapid.SampledFrom(limits).Draw(t, "limit")}
			s.advance = rapid.SampledFrom([]int64{0, 1, 7, 500, 15_000}).Draw(t, "advance")
			every := rapid.IntRange(2, 9).Draw(t, "every")
			for i := range rapid.SampledFrom([]int{1, 5, 50, 1100}).Draw(t, "times") {
				s.giveBack, s.pick = i%every == every-1, uint16(i*31)
				if i > 10 {
					s.advance = min(s.advance, 7)
				}
				steps = append(steps, s)
			}
		}
		drive(t.Fatalf, steps)
	})
}

// Above 1,000: never an admission too many, and never a refusal that is more than one piece early.
func TestCoarseWindowIsConservativeByAtMostOnePiece(t *testing.T) {
	check1000(t, func(t *rapid.T) {
		limit := Limit{rapid.Int64Range(1001, 1100).Draw(t, "requests"), time.Duration(rapid.Int64Range(64, 100_000).Draw(t, "window"))}
		piece := int64(limit.Window) / subWindows
		w := window{next: 1}
		var m model
		var now int64
		for range rapid.IntRange(1, 40).Draw(t, "bursts") {
			now += rapid.Int64Range(0, int64(limit.Window)/8).Draw(t, "advance")
			for range rapid.IntRange(1, 300).Draw(t, "burst") {
				d := w.take(now, limit)
				used := m.count(now, int64(limit.Window))
				if d.Allowed && used >= limit.Max {
					t.Fatalf("at %d: %d used and one more admitted", now, used)
				}
				if !d.Allowed && m.count(now, int64(limit.Window)+piece) < limit.Max {
					t.Fatalf("at %d: refused more than one piece too early", now)
				}
				if d.Allowed {
					m = append(m, admission{now, d})
				}
			}
		}
	})
}

func TestRetryInIsTrueToTheNanosecond(t *testing.T) {
	l, c := newLimiter(t)
	limit := Limit{3, time.Minute}
	for _, wait := range []time.Duration{0, 3 * time.Second, 777} {
		c.Advance(wait)
		takeN(t, l, "a", limit, 1)
	}
	for range 10 {
		d := l.Take("a", limit)
		c.Advance(d.RetryIn - 1)
		if l.Take("a", limit).Allowed {
			t.Fatal("1 ns less than RetryIn was enough")
		}
		c.Advance(1)
		takeN(t, l, "a", limit, 1)
	}
}

func TestASlowSubjectStaysSmall(t *testing.T) {
	w := window{next: 1}
	for i := range int64(10_000) {
		w.take(i*int64(time.Second), Limit{1000, 2 * time.Second})
	}
	if got := len(w.runs.buf); got > smallestRing {
		t.Fatalf("room for %d runs, want %d", got, smallestRing)
	}
}

func TestALargeLimitStaysSmall(t *testing.T) {
	w := window{next: 1}
	for i := range int64(200_000) {
		w.take(i*int64(time.Millisecond), Limit{60_000, time.Minute})
	}
	if got := len(w.runs.buf); got > 2*subWindows {
		t.Fatalf("room for %d runs, want at most %d", got, 2*subWindows)
	}
}

func TestABurstLeavesNoLargeBuffer(t *testing.T) {
	w := window{next: 1}
	limit := Limit{1000, time.Second}
	for i := range int64(1000) {
		w.take(i, limit)
	}
	for i := range int64(100) {
		w.take((i+2)*int64(time.Second), limit)
	}
	if got := len(w.runs.buf); got > 64 {
		t.Fatalf("room for %d runs after a burst", got)
	}
}

// Every second admission is given back: the run of one piece is cut into as many runs as stay.
func TestManyGiftsBackStayBounded(t *testing.T) {
	w := window{next: 1}
	limit := Limit{1_000_000, time.Hour}
	var kept int64
	for range 20_000 {
		w.take(0, limit)
		d := w.take(0, limit)
		w.take(0, limit)
		kept += 2
		w.giveBack(d.place)
		w.giveBack(d.place)
	}
	if got := len(w.runs.buf); got > manyRuns {
		t.Fatalf("room for %d runs", got)
	}
	if got := w.peek(0, limit).Remaining; got != limit.Max-kept {
		t.Fatalf("%d left, want %d", got, limit.Max-kept)
	}
}

func TestLengtheningCountsWhatWasDropped(t *testing.T) {
	w := window{next: 1}
	for i := range int64(100) {
		w.take(i*10, Limit{1, 10})
	}
	if d := w.take(1000, Limit{50, 1000}); d.Allowed {
		t.Fatal("99 of the last 1000 ns were forgotten")
	}
	if d := w.take(2001, Limit{50, 1000}); !d.Allowed {
		t.Fatal("what has left the longer window still counts")
	}
}

func FuzzWindow(f *testing.F) {
	f.Add([]byte{0, 0, 3, 10, 1, 0, 3, 10, 128, 1, 3, 200})
	f.Add([]byte("\x05\x01\x00\x40\x05\x02\xff\x40\x80\x00\x00\x00\x01\x01\x01\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var steps []step
		for ; len(data) >= 4 && len(steps) < 4000; data = data[4:] {
			s := step{
				advance:  int64(data[0]&0x7f) * int64(data[0]&0x7f),
				giveBack: data[0]&0x80 != 0,
				pick:     uint16(data[1]),
				limit:    Limit{int64(data[2]), time.Duration(data[3])},
			}
			if data[2] > 200 {
				s.limit = Limit{1000 + int64(data[2]), time.Duration(data[3]) * 1000}
			}
			for range 1 + data[1]/4 {
				steps = append(steps, s)
			}
		}
		drive(t.Fatalf, steps)
	})
}
