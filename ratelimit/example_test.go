package ratelimit

import (
	"testing"
	"time"
)

func TestTheExampleOfThePackage(t *testing.T) {
	c := newClock()
	l, err := New(Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	limits := Limits{Requests: Limit{2, 10 * time.Second}, Tokens: Limit{100, time.Minute}}
	start := c.t
	ask := func(second int, tokens, least int64) (Ask, Decision) {
		c.t = start.Add(time.Duration(second) * time.Second)
		a := Ask{ID: newID(), Subject: "key_x", Limits: limits, Tokens: tokens, MinTokens: least}
		return a, take(t, l, a)
	}
	a, first := ask(0, 80, 80)
	if first.Granted != 80 || first.Requests.Remaining != 1 || first.Tokens.Remaining != 20 {
		t.Fatalf("%+v", first)
	}
	if _, d := ask(1, 80, 50); d.Refused != NameTokens || d.RetryIn.Round(100*time.Millisecond) != 59900*time.Millisecond {
		t.Fatalf("%+v", d)
	}
	c.Advance(time.Second)
	l.Settle(a, first, 30)
	if d, _ := l.Peek(t.Context(), "key_x", limits); d.Requests.Remaining != 1 || d.Tokens.Remaining != 70 {
		t.Fatalf("%+v", d)
	}
	if _, d := ask(4, 80, 50); d.Granted != 70 || d.Requests.Remaining != 0 || d.Tokens.Remaining != 0 {
		t.Fatalf("%+v", d)
	}
	if _, d := ask(9, 0, 0); d.Refused != NameRequests || d.RetryIn != time.Second {
		t.Fatalf("%+v", d)
	}
	if _, d := ask(10, 0, 0); !d.Allowed {
		t.Fatalf("%+v", d)
	}
}
