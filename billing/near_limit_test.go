package billing

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"
)

// nearLines takes the lines about budgets that were written so far, sorted.
func nearLines(logs *observer.ObservedLogs) []string {
	var got []string
	for _, e := range logs.TakeAll() {
		if f := e.ContextMap(); f["budget"] != nil {
			got = append(got, fmt.Sprintf("%s: %s %v/%v", e.Message, f["budget"], f["used_tokens"], f["limit_tokens"]))
		}
	}
	slices.Sort(got)
	return got
}

// At 90 % of a budget one line is written, once a period, whichever charge or
// correction leads there; it is true when the charge goes far beyond.
func testOneLineAtNinetyPercent(t *testing.T, at home) {
	core, logs := observer.New(zap.WarnLevel)
	c := newClock("2026-11-23T12:00:00Z")
	o := at.options(t, c)
	o.Log = zap.New(core)
	b, k := setup(t, o, Limits{Daily: 1000, Monthly: 1 << 40, Tariff: 2500})
	other := reserve(t, b, ask(newKeyFor(t, []*Book{b}, o, Limits{Daily: 1000}).ID, 1000))
	spend := func(hold, cost int64) string {
		t.Helper()
		id := reserve(t, b, ask(k.ID, hold)).ID
		settle(t, b, id, cost, 0)
		return id
	}
	expect := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, nearLines(logs)); diff != "" {
			t.Error(diff)
		}
	}
	spend(899, 899)
	expect()
	id := spend(1, 0)
	expect()
	if err := b.Correct(t.Context(), id, Outcome{Prompt: 1, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	expect("budget nearly used: daily 900/1000")
	spend(50, 50)
	expect()
	c.Add(24 * time.Hour)
	spend(1000, 1000)
	expect("budget used up: daily 1000/1000")
	c.Add(24 * time.Hour)
	late := reserve(t, b, ask(k.ID, 100)).ID
	spend(200, 350) // from 78 % to 92 % of the tariff
	expect("budget nearly used: tariff 2300/2500")
	c.Add(24 * time.Hour)
	settle(t, b, late, 900, 0) // yesterday's budget, which is over; the tariff was said already
	expect()
	// A start says nothing of what was said before.
	b.Void(other.ID)
	shut(t, b)
	b = openBook(t, o)
	h := reserve(t, b, HoldRequest{KeyID: newKeyFor(t, []*Book{b}, o, Limits{Daily: 10}).ID, PromptBound: 1, Choices: 1})
	settle(t, b, h.ID, 13, 0)
	expect("budget used up: daily 13/10")
	h = reserve(t, b, ask(newKeyFor(t, []*Book{b}, o, Limits{}).ID, 1))
	settle(t, b, h.ID, 1, 0)
	expect()
	shut(t, b)
	mustBalance(t, o)
}

// Of many charges at once exactly one leads across, and a limit that is lowered
// afterwards says nothing.
func testParallelChargesSayItOnce(t *testing.T, at home) {
	core, logs := observer.New(zap.WarnLevel)
	o := at.options(t, newClock(testNow))
	o.Log = zap.New(core)
	b, k := setup(t, o, Limits{Daily: 1000, Monthly: 1000, Tariff: 100_000})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 10 {
				h, err := b.Reserve(context.Background(), ask(k.ID, 10))
				if err == nil {
					err = b.Settle(context.Background(), h.ID, Outcome{Prompt: 10, Provenance: Reported})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	budgets := map[any]int{}
	for _, e := range logs.TakeAll() {
		f := e.ContextMap()
		budgets[f["budget"]]++
		if used := f["used_tokens"].(int64); used < 900 || f["key_id"] != k.ID {
			t.Errorf("%s %v", e.Message, f)
		}
	}
	if diff := cmp.Diff(map[any]int{"daily": 1, "monthly": 1}, budgets); diff != "" {
		t.Error(diff)
	}
	a := openAdmin(t, o)
	few, many := int64(1050), int64(5000)
	if _, _, err := a.SetLimits(t.Context(), k.ID, LimitChange{Tariff: &few, Daily: &many, Monthly: &many}); err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle(t, b, reserve(t, b, ask(k.ID, 10)).ID, 10, 0)
	if got := nearLines(logs); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

// However a budget is used up, exactly one charge crosses, the one that leads
// from below 90 % to 90 % or above.
func TestBudget_crossesOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := budget{limit: rapid.Int64Range(1, maxLimit).Draw(t, "limit")}
		crossed := 0
		for _, n := range rapid.SliceOf(rapid.Int64Range(0, max(1, b.limit/3))).Draw(t, "charges") {
			before := percentReached(&b)
			b.figures.used += n
			if got := b.crossed(n); got != (!before && percentReached(&b)) {
				t.Fatalf("%d of %d after %d more: %v", b.figures.used, b.limit, n, got)
			} else if got {
				crossed++
			}
		}
		if want := percentReached(&b); crossed > 1 || want != (crossed == 1) {
			t.Fatalf("crossed %d times, at %d of %d", crossed, b.figures.used, b.limit)
		}
	})
}

// percentReached is used/limit >= 9/10 without a fraction; both stay below 2^61.
func percentReached(b *budget) bool {
	whole, rest := b.limit/10, b.limit%10
	return b.figures.used-9*whole >= (9*rest+9)/10
}

// Of several gateways the one says it whose charge crossed, whatever its own
// copy of the account was. Settles in a row leave the copies behind the truth.
func testOneReplicaSaysABudgetIsNearlyUsed(t *testing.T, at home) {
	core, logs := observer.New(zap.WarnLevel)
	books, o := at.replicas(t, 2, func(o *Options) { o.Log = zap.New(core) })
	k := newKeyFor(t, books, o, Limits{Daily: 1000, Monthly: 1 << 40, Tariff: 1 << 40})
	var holds []Hold
	for i := range 20 {
		holds = append(holds, reserve(t, books[i%2], ask(k.ID, 50)))
	}
	for i, h := range holds {
		settle(t, books[i%2], h.ID, 50, 0)
	}
	if diff := cmp.Diff([]string{"budget nearly used: daily 900/1000"}, nearLines(logs)); diff != "" {
		t.Error(diff)
	}
}
