package billing

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func refused(t *testing.T, err error) *BudgetError {
	t.Helper()
	var b *BudgetError
	if !errors.As(err, &b) {
		t.Fatalf("error is %v, want a refusal by a budget", err)
	}
	return b
}

func testParallelReservesAdmitExactlyTheBudget(t *testing.T, at home) {
	const callers, each, fit = 200, 7, 31
	for _, l := range []Limits{{Daily: fit*each + 6}, {Monthly: fit * each}, {Tariff: fit*each + 1}} {
		for round := range 4 {
			o := at.options(t, newClock(testNow))
			b, k := setup(t, o, l)
			var admitted, denied atomic.Int64
			var wg sync.WaitGroup
			start := make(chan struct{})
			for range callers {
				wg.Go(func() {
					<-start
					_, err := b.Reserve(context.Background(), ask(k.ID, each))
					var refusal *BudgetError
					switch {
					case err == nil:
						admitted.Add(1)
					case errors.As(err, &refusal):
						denied.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			close(start)
			wg.Wait()
			if admitted.Load() != fit || denied.Load() != callers-fit {
				t.Fatalf("round %d, %+v: admitted %d, denied %d, want %d and %d", round, l, admitted.Load(), denied.Load(), fit, callers-fit)
			}
			if n := number(t, raw(t, o), "SELECT sum(held) FROM accounts"); n != fit*each {
				t.Fatalf("database holds %d, want %d", n, fit*each)
			}
			shut(t, b)
		}
	}
}

func testUnusedHoldComesBackAndOvershootIsRecorded(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{Daily: 100})
	h := reserve(t, b, ask(k.ID, 90))
	_ = refused(t, func() error { _, err := b.Reserve(context.Background(), ask(k.ID, 20)); return err }())
	settle(t, b, h.ID, 10, 20)
	if h := reserve(t, b, ask(k.ID, 70)); h.Remaining != 0 || h.Limit != 100 {
		t.Fatalf("tightest budget: limit %d, remaining %d, want 100 and 0", h.Limit, h.Remaining)
	} else {
		settle(t, b, h.ID, 70, 30)
	}
	db := raw(t, o)
	if n := number(t, db, "SELECT sum(overshoot) FROM charges"); n != 30 {
		t.Fatalf("overshoot is %d, want 30", n)
	}
	e := refused(t, func() error { _, err := b.Reserve(context.Background(), ask(k.ID, 1)); return err }())
	if *e != (BudgetError{Budget: "daily", Limit: 100, Used: 130, Held: 0, Needed: 1, ResetIn: 12 * time.Hour}) {
		t.Fatalf("refusal is %+v", *e)
	}
	mustBalance(t, o)
}

func testRefusalNamesTheLongestWait(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{Daily: 10, Monthly: 30, Tariff: 20})
	month := 7*24*time.Hour + 12*time.Hour // to 1 December
	for _, c := range []struct {
		need   int64
		budget string
		wait   time.Duration
	}{{11, "daily", 12 * time.Hour}, {21, "tariff", month}, {31, "tariff", month}} {
		e := b.Budget(k.ID, c.need)
		if e == nil || e.Budget != c.budget || e.ResetIn != c.wait {
			t.Fatalf("need %d: refusal is %+v, want %s within %s", c.need, e, c.budget, c.wait)
		}
	}
	if e := b.Budget(k.ID, 10); e != nil {
		t.Fatalf("need 10 is refused: %+v", e)
	}
}

func testHoldSize(t *testing.T, at home) {
	known := func(n int64) func() (int64, bool) { return func() (int64, bool) { return n, true } }
	unknown := func() (int64, bool) { return 0, false }
	for name, c := range map[string]struct {
		request         HoldRequest
		tokens, ceiling int64 // tokens 0 = refused
	}{
		"strict bound fits":       {HoldRequest{PromptBound: 400, Ceiling: 300, Choices: 2, PromptTokens: known(1)}, 1000, 300},
		"count fits":              {HoldRequest{PromptBound: 401, Ceiling: 300, Choices: 2, PromptTokens: known(100)}, 700, 300},
		"count above the bound":   {HoldRequest{PromptBound: 401, Ceiling: 600, Choices: 1, PromptTokens: known(900)}, 0, 0},
		"unknown vocabulary":      {HoldRequest{PromptBound: 401, Ceiling: 600, Choices: 1, PromptTokens: unknown}, 0, 0},
		"no tokenizer":            {HoldRequest{PromptBound: 401, Ceiling: 600, Choices: 1}, 0, 0},
		"default ceiling":         {HoldRequest{PromptBound: 100, DefaultCeiling: 300, Choices: 3}, 1000, 300},
		"what is left":            {HoldRequest{PromptBound: 100, DefaultCeiling: 4096, Choices: 4}, 1000, 225},
		"what is left, counted":   {HoldRequest{PromptBound: 900, DefaultCeiling: 4096, Choices: 1, PromptTokens: known(300)}, 1000, 700},
		"one for each choice":     {HoldRequest{PromptBound: 998, DefaultCeiling: 4096, Choices: 2}, 1000, 1},
		"not one for each choice": {HoldRequest{PromptBound: 999, DefaultCeiling: 4096, Choices: 2}, 0, 0},
		"no output expected":      {HoldRequest{PromptBound: 1000, Choices: 1}, 1000, 0},
		"ceiling overflows":       {HoldRequest{PromptBound: 1, Ceiling: math.MaxInt64, Choices: 2}, 0, 0},
		"prompt overflows":        {HoldRequest{PromptBound: math.MaxInt64, DefaultCeiling: 1, Choices: math.MaxInt64}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b, k := setup(t, at.options(t, newClock(testNow)), Limits{Daily: 1000})
			c.request.KeyID = k.ID
			h, err := b.Reserve(context.Background(), c.request)
			if c.tokens == 0 {
				_ = refused(t, err)
				if bal := balance(t, b, k.ID); bal.HeldToday != 0 {
					t.Fatalf("a refusal holds %d", bal.HeldToday)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Tokens != c.tokens || h.Ceiling != c.ceiling {
				t.Fatalf("hold is %d with ceiling %d, want %d and %d", h.Tokens, h.Ceiling, c.tokens, c.ceiling)
			}
		})
	}
	b, k := setup(t, at.options(t, newClock(testNow)), Limits{})
	for _, r := range []HoldRequest{{Choices: 1}, {PromptBound: 1}, {PromptBound: 1, Choices: 1, Ceiling: -1}} {
		r.KeyID = k.ID
		if _, err := b.Reserve(context.Background(), r); !errors.Is(err, ErrInvalid) {
			t.Fatalf("%+v: error is %v, want ErrInvalid", r, err)
		}
	}
}

func testPeriodsRollOver(t *testing.T, at home) {
	c := newClock("2026-11-29T23:59:00Z")
	o := at.options(t, c)
	b, k := setup(t, o, Limits{Daily: 100, Monthly: 150})
	spans := reserve(t, b, ask(k.ID, 100))
	c.Add(2 * time.Minute) // 30 November
	if e := b.Budget(k.ID, 51); e == nil || e.Budget != "monthly" || e.Held != 100 {
		t.Fatalf("refusal is %+v, want monthly with 100 held", e)
	}
	h := reserve(t, b, ask(k.ID, 50))
	if h.Day != "2026-11-30" || h.Month != "2026-11" {
		t.Fatalf("admitted in %s, %s", h.Day, h.Month)
	}
	settle(t, b, spans.ID, 40, 20) // to the day of its admission
	if bal := balance(t, b, k.ID); bal.UsedToday != 0 || bal.HeldToday != 50 || bal.UsedMonth != 60 || bal.HeldMonth != 50 {
		t.Fatalf("balance is %+v", bal)
	}
	c.Add(24 * time.Hour) // 1 December
	if e := b.Budget(k.ID, 100); e != nil {
		t.Fatalf("a new month refuses: %+v", e)
	}
	settle(t, b, h.ID, 50, 0)
	if bal := balance(t, b, k.ID); bal.UsedMonth != 0 || bal.HeldMonth != 0 || bal.Month != "2026-12" {
		t.Fatalf("balance is %+v", bal)
	}
	db := raw(t, o)
	for day, want := range map[string]int64{"2026-11-29": 60, "2026-11-30": 50} {
		if n := number(t, db, "SELECT used FROM accounts WHERE day = ?", day); n != want {
			t.Fatalf("%s: used %d, want %d", day, n, want)
		}
	}
	mustBalance(t, o)
}

func testClockJumpingBackOpensNoOldDay(t *testing.T, at home) {
	c := newClock("2026-12-01T00:30:00Z")
	o := at.options(t, c)
	b, k := setup(t, o, Limits{Daily: 100})
	settle(t, b, reserve(t, b, ask(k.ID, 100)).ID, 100, 0)
	c.Add(-time.Hour)
	check := func(b *Book) {
		t.Helper()
		e := refused(t, func() error { _, err := b.Reserve(context.Background(), ask(k.ID, 1)); return err }())
		if e.Used != 100 || e.ResetIn != 24*time.Hour+30*time.Minute {
			t.Fatalf("refusal is %+v", *e)
		}
	}
	check(b)
	shut(t, b)
	check(openBook(t, o)) // the books remember the day over a restart
	c.Add(25 * time.Hour)
	if e := b.Budget(k.ID, 100); e != nil {
		t.Fatalf("the next day refuses: %+v", e)
	}
}

func TestMonthBoundaries(t *testing.T) {
	for at, want := range map[string][2]string{
		"2026-01-31T23:59:59Z": {"2026-02-01", "2026-02-01"},
		"2028-02-28T12:00:00Z": {"2028-02-29", "2028-03-01"},
		"2026-12-31T00:00:00Z": {"2027-01-01", "2027-01-01"},
		"2026-03-29T00:30:00Z": {"2026-03-30", "2026-04-01"}, // Europe changes its clocks
	} {
		p := periodOf(newClock(at).Now())
		if got := [2]string{p.dayEnd.Format(dayLayout), p.monthEnd.Format(dayLayout)}; got != want {
			t.Errorf("%s: ends %v, want %v", at, got, want)
		}
	}
}
