package ratelimit

import (
	"fmt"
	"testing"
	"time"
)

// laws hold for every store. Their windows are long beside the pauses of a busy
// machine, since some stores run in real time.
var laws = map[string]func(t *testing.T, s store, key string){
	"the limit and not one more": func(t *testing.T, s store, key string) {
		l := requests(5, 2*time.Second)
		for left := int64(4); left >= 0; left-- {
			if d := takes(t, s, key, l, 1, true); d.Requests.Remaining != left || d.Requests.Limit != l.Requests || d.Requests.ResetIn <= 0 {
				t.Fatalf("%+v, want %d left", d, left)
			}
		}
		d := takes(t, s, key, l, 3, false)
		if d.Refused != NameRequests || d.Requests.Remaining != 0 || d.Requests.ResetIn < d.RetryIn {
			t.Fatalf("%+v", d)
		}
		s.wait(d.RetryIn)
		takes(t, s, key, l, 1, true)
	},
	"retry times are true": func(t *testing.T, s store, key string) {
		l := requests(3, 1500*time.Millisecond)
		for range 3 {
			takes(t, s, key, l, 1, true)
			s.wait(300 * time.Millisecond)
		}
		for range 5 {
			d := s.take(t, Ask{ID: newID(), Subject: key, Limits: l})
			if d.Allowed {
				continue
			}
			p := s.peek(t, key, l)
			near(t, s, "Peek's wait", p.RetryIn, d.RetryIn)
			s.wait(d.RetryIn)
			takes(t, s, key, l, 1, true)
		}
	},
	"sub-windows are late by at most one": func(t *testing.T, s store, key string) {
		window := 6400 * time.Millisecond // long beside the time that the asks take
		l := requests(1001, window)
		takes(t, s, key, l, 1001, true)
		d := takes(t, s, key, l, 1, false)
		if d.RetryIn > window+window/64 {
			t.Fatalf("%+v", d)
		}
		s.wait(d.RetryIn)
		takes(t, s, key, l, 1, true)
	},
	"the same id takes once": func(t *testing.T, s store, key string) {
		for i, l := range []Limits{
			requests(3, time.Minute), requests(2000, time.Minute),
			{Requests: Limit{3, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 3},
		} {
			a := Ask{ID: newID(), Subject: fmt.Sprint(key, i), Limits: l, Tokens: 60, MinTokens: 1}
			var granted int64
			if l.Tokens.Max > 0 {
				granted = 60
			}
			for range 4 {
				if d := wantAllowed(t, s.take(t, a), true); d.Granted != granted || d.Requests.Remaining != l.Requests.Max-1 {
					t.Fatalf("%+v", d)
				}
			}
			if d := s.peek(t, a.Subject, l); d.Requests.Remaining != l.Requests.Max-1 || l.Tokens.Max > 0 && d.Tokens.Remaining != 40 {
				t.Fatalf("%+v", d)
			}
		}
	},
	"given back once": func(t *testing.T, s store, key string) {
		for i, l := range []Limits{
			requests(3, time.Minute), requests(2000, time.Minute),
			{Requests: Limit{3, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 2},
		} {
			subject := fmt.Sprint(key, i)
			stays := Ask{ID: newID(), Subject: subject, Limits: l, Tokens: 10, MinTokens: 1}
			wantAllowed(t, s.take(t, stays), true)
			a := Ask{ID: newID(), Subject: subject, Limits: l, Tokens: 50, MinTokens: 1}
			d := wantAllowed(t, s.take(t, a), true)
			for range 3 {
				s.giveBack(a, d)
			}
			if l.Concurrent > 0 {
				refused := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: subject, Limits: l, Tokens: 500, MinTokens: 95}), false)
				s.giveBack(Ask{ID: newID(), Subject: subject, Limits: l}, refused)
			}
			p := s.peek(t, subject, l)
			if p.Requests.Remaining != l.Requests.Max-1 || l.Tokens.Max > 0 && p.Tokens.Remaining != 90 || l.Concurrent > 0 && p.Concurrent.Remaining != 1 {
				t.Fatalf("%d: %+v", i, p)
			}
		}
	},
	"all or nothing": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{10, time.Minute}, Tokens: Limit{100, time.Minute}, Concurrent: 5}
		wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 90, MinTokens: 90}), true)
		for range 5 {
			d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 90, MinTokens: 20}), false)
			if d.Refused != NameTokens || d.Granted != 0 || d.Requests.Remaining != 9 || d.Tokens.Remaining != 10 || d.Concurrent.Remaining != 4 || d.Requests.RetryIn != 0 {
				t.Fatalf("%+v", d)
			}
		}
	},
	"the longest wait answers": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{1, time.Minute}, Tokens: Limit{10, time.Hour}, Concurrent: 1}
		wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 10, MinTokens: 10}), true)
		d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 10, MinTokens: 10}), false)
		if d.Refused != NameTokens || d.RetryIn != d.Tokens.RetryIn || d.RetryIn < 59*time.Minute {
			t.Fatalf("%+v", d)
		}
		if d.Requests.RetryIn < 50*time.Second || d.Requests.RetryIn > time.Minute || d.Concurrent.RetryIn != retryConcurrent {
			t.Fatalf("%+v", d)
		}
	},
	"tokens are held and corrected": func(t *testing.T, s store, key string) {
		window := 3200 * time.Millisecond
		l := Limits{Requests: Limit{100, time.Minute}, Tokens: Limit{100, window}}
		a := Ask{ID: newID(), Subject: key, Limits: l, Tokens: 80, MinTokens: 10}
		d := wantAllowed(t, s.take(t, a), true)
		b := Ask{ID: newID(), Subject: key, Limits: l, Tokens: 80, MinTokens: 10}
		if e := wantAllowed(t, s.take(t, b), true); d.Granted != 80 || e.Granted != 20 || e.Tokens.Remaining != 0 {
			t.Fatalf("granted %d and %d", d.Granted, e.Granted)
		}
		s.settle(a, d, 30)
		s.settle(a, d, 1) // once
		if p := s.peek(t, key, l); p.Tokens.Remaining != 50 && s.slack() == 0 {
			t.Fatalf("%+v", p)
		}
		c := Ask{ID: newID(), Subject: key, Limits: l, Tokens: 50, MinTokens: 10}
		e := wantAllowed(t, s.take(t, c), true)
		s.settle(c, e, 500) // more than was held: the truth is recorded
		f := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 10, MinTokens: 5}), false)
		if f.Refused != NameTokens || f.Tokens.Remaining != 0 || f.RetryIn > window+window/64+time.Microsecond {
			t.Fatalf("%+v", f)
		}
		s.wait(f.RetryIn)
		if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 100, MinTokens: 5}), true); d.Granted < 5 {
			t.Fatalf("%+v", d)
		}
	},
	"more than the limit is never granted": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{10, time.Minute}, Tokens: Limit{100, time.Minute}}
		if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 500, MinTokens: 101}), false); d.RetryIn != Never || d.Refused != NameTokens {
			t.Fatalf("%+v", d)
		}
		if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l, Tokens: 500, MinTokens: 100}), true); d.Granted != 100 {
			t.Fatalf("%+v", d)
		}
	},
	"an ask that is no ask is refused": func(t *testing.T, s store, key string) {
		for _, l := range []Limits{{}, requests(-1, time.Second), requests(1, 0), {Requests: Limit{1, time.Second}, Concurrent: -1}, {Requests: Limit{1, time.Second}, Tokens: Limit{Max: 5}}} {
			if d := wantAllowed(t, s.take(t, Ask{ID: newID(), Subject: key, Limits: l}), false); d.RetryIn != Never {
				t.Fatalf("%+v", d)
			}
		}
		wantAllowed(t, s.take(t, Ask{Subject: key, Limits: requests(1, time.Second)}), false)
	},
	"concurrent places": func(t *testing.T, s store, key string) {
		l := Limits{Requests: Limit{100, time.Minute}, Concurrent: 2}
		a, b := Ask{ID: newID(), Subject: key, Limits: l}, Ask{ID: newID(), Subject: key, Limits: l}
		da, db := wantAllowed(t, s.take(t, a), true), wantAllowed(t, s.take(t, b), true)
		if da.Concurrent.Remaining != 1 || db.Concurrent.Remaining != 0 {
			t.Fatalf("%+v\n%+v", da, db)
		}
		if d := takes(t, s, key, l, 2, false); d.Refused != NameConcurrent || d.RetryIn != retryConcurrent {
			t.Fatalf("%+v", d)
		}
		s.settle(a, da, 0)
		s.settle(a, da, 0)
		takes(t, s, key, l, 1, true)
		takes(t, s, key, l, 1, false)
		s.giveBack(b, db)
		s.settle(b, db, 0)
		takes(t, s, key, l, 1, true)
		takes(t, s, key, l, 1, false)
	},
	"a limit raised and lowered": func(t *testing.T, s store, key string) {
		takes(t, s, key, requests(5, time.Minute), 5, true)
		takes(t, s, key, requests(8, time.Minute), 3, true)
		takes(t, s, key, requests(5, time.Minute), 1, false)
		takes(t, s, key, requests(8, time.Minute), 1, false)
		takes(t, s, key, requests(1005, time.Minute), 997, true)
		takes(t, s, key, requests(1005, time.Minute), 1, false)
		takes(t, s, key, requests(1000, time.Minute), 1, false)
		takes(t, s, key, requests(1006, time.Minute), 1, true)
	},
	"a window shortened and lengthened": func(t *testing.T, s store, key string) {
		takes(t, s, key, requests(3, time.Minute), 3, true)
		s.wait(1100 * time.Millisecond)
		takes(t, s, key, requests(3, time.Second), 2, true)
		takes(t, s, key, requests(5, time.Minute), 1, false)
		takes(t, s, key, requests(6, time.Minute), 1, true)
		takes(t, s, key, requests(6, time.Minute), 1, false)
	},
	"refusals do not count": func(t *testing.T, s store, key string) {
		l := requests(1, 2*time.Second)
		takes(t, s, key, l, 1, true)
		d := takes(t, s, key, l, 20, false)
		s.wait(d.RetryIn)
		takes(t, s, key, l, 1, true)
	},
}
