package billing

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func isInUse(err error) bool { return errors.Is(err, ErrInUse) }

func mustPrice(t testing.TB, o Options, prices ...Price) []Price {
	t.Helper()
	_, added, err := openAdmin(t, o).AddPrices(context.Background(), "USD", prices)
	if err != nil {
		t.Fatal(err)
	}
	return added
}

func money(m Money) *Money { return &m }

// Prices are only ever added, begin now or later, and are of one currency.
func testPricesAreNeverRewritten(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	a := openAdmin(t, o)
	ctx := t.Context()
	mini := Price{Model: "gpt-4o*", Rates: Rates{Input: money(5), Output: money(7)}}
	if added := mustPrice(t, o, mini, mini); len(added) != 1 || added[0].ID != 1 || !added[0].ValidFrom.Equal(c.Now()) {
		t.Fatalf("added %+v", added)
	}
	for name, bad := range map[string]struct {
		currency string
		price    Price
		says     string
	}{
		"past":        {"USD", Price{Model: "m", ValidFrom: c.Now().Add(-time.Second), Rates: mini.Rates}, "begins in the past"},
		"currency":    {"EUR", mini, "the books are in USD"},
		"no currency": {"usd", mini, "three capital letters"},
		"no model":    {"USD", Price{Rates: mini.Rates}, "a model is"},
		"too dear":    {"USD", Price{Model: "m", Rates: Rates{Input: money(maxPrice + 1)}}, "from 0 to 100000"},
		"no basis":    {"USD", Price{Model: "m", Rates: Rates{Reasoning: money(1)}}, "input or output"},
	} {
		good := Price{Model: "other", Rates: mini.Rates}
		if _, _, err := a.AddPrices(ctx, bad.currency, []Price{good, bad.price}); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrCurrency) || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	later := mini
	later.ValidFrom, later.Output = c.Now().Add(time.Hour), money(9)
	mustPrice(t, o, later)
	c.Add(30 * time.Minute)
	mustPrice(t, o, Price{Model: "gpt-4o*"}, Price{Model: "gpt-4o-mini", Rates: Rates{Input: money(1)}})
	l, err := a.Prices(ctx)
	if err != nil || l.Currency != "USD" || len(l.Prices) != 4 {
		t.Fatalf("%+v, %v", l, err)
	}
	id := func(model string, at time.Time) int64 {
		if p := newPriceList(l.Prices).at(model, at); p != nil {
			return p.ID
		}
		return 0
	}
	start := c.Now().Add(-30 * time.Minute)
	got := []int64{
		id("gpt-4o-mini", start), id("gpt-4o", start.Add(time.Minute)), id("gpt-4o", c.Now()), id("gpt-4o-mini", c.Now()),
		id("gpt-4o", start.Add(2*time.Hour)), id("gpt-4o", start.Add(-1)),
	}
	if diff := cmp.Diff([]int64{1, 1, 0, 4, 2, 0}, got); diff != "" {
		t.Error(diff)
	}
	history, err := a.Changes(ctx, ChangeQuery{})
	if err != nil || len(history) != 4 || history[3].Action != "set-price" || history[3].Subject != "gpt-4o*" ||
		string(history[3].Detail) != `{"after":{"id":1,"currency":"USD","valid_from":"2026-11-23T12:00:00Z","input":"0.000000005","output":"0.000000007"}}` {
		t.Errorf("history is %+v, %v: %s", history, err, history[len(history)-1].Detail)
	}
	if in := l.InForce(c.Now()); len(in) != 1 || in[0].ID != 4 {
		t.Errorf("in force are %+v", in)
	}
}

// A request is held and charged at the price of its admission, whatever comes
// between, and a charge stays as it is.
func testAChargeKeepsThePriceOfItsAdmission(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b, k := setup(t, o, Limits{})
	first := mustPrice(t, o, Price{Model: "m", Rates: Rates{
		Input: money(2_000_000), CachedRead: money(1_000_000), CacheWrite: money(3_000_000), AudioInput: money(9_000_000),
		Output: money(5_000_000), Reasoning: money(7_000_000), AudioOutput: money(11_000_000),
	}})[0]
	refresh(t, b)
	r := ask(k.ID, 100)
	r.Ceiling = 10
	h := reserve(t, b, r)
	if h.Price != first.ID || h.Cost != 100*9+10*11 {
		t.Fatalf("held at the dearest kinds: %+v", h)
	}
	c.Add(time.Minute)
	mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: money(1_000_000_000)}})
	refresh(t, b)
	out := Outcome{
		Prompt: 100, Cached: 40, CacheWrite: 20, AudioPrompt: 10, Completion: 50, Reasoning: 30, AudioCompletion: 5,
		Provenance: Reported,
	}
	if err := b.Settle(t.Context(), h.ID, out); err != nil {
		t.Fatal(err)
	}
	want := Money(30*2 + 40*1 + 20*3 + 10*9 + 15*5 + 30*7 + 5*11)
	if bal := balance(t, b, k.ID); bal.SpentMonth != want || bal.ReservedMonth != 0 {
		t.Errorf("spent %s, want %s", bal.SpentMonth, want)
	}
	out.Completion, out.Reasoning = 60, 40
	if err := b.Correct(t.Context(), h.ID, out); err != nil {
		t.Fatal(err)
	}
	before := out
	before.Completion, before.Reasoning = 50, 30
	if beyond := h.CostBeyond(before, out); h.CostOf(before) != want || beyond != 10*7 {
		t.Errorf("the hold says %s and %s for the correction", h.CostOf(before), beyond)
	}
	if bal := balance(t, b, k.ID); bal.SpentMonth != want+10*7 {
		t.Errorf("a correction has the charge's price: spent %s, want %s", bal.SpentMonth, want+10*7)
	}
	next := reserve(t, b, r)
	if next.Price != 2 {
		t.Errorf("the next request has price %d", next.Price)
	}
	mustBalance(t, o)
	// The past at other prices, and at its own: the same to the unit.
	a := openAdmin(t, o)
	if keys, err := a.Keys(t.Context()); err != nil || keys[0].SpentMonth != want+10*7 || keys[0].Reserved != next.Cost {
		t.Errorf("%+v, %v", keys, err)
	}
	for name, c := range map[string]struct {
		prices []Price
		want   Money
	}{
		"its own":   {[]Price{first}, want + 10*7},
		"tenfold":   {[]Price{{Model: "*", Rates: Rates{Input: money(10_000_000), Output: money(10_000_000)}}}, 10 * 160},
		"not yet":   {[]Price{{Model: "*", ValidFrom: c.Now(), Rates: first.Rates}}, 0},
		"exact one": {[]Price{{Model: "*", Rates: first.Rates}, {Model: "m", Rates: Rates{Output: money(1_000_000)}}}, 60},
	} {
		s, err := a.Simulate(t.Context(), c.prices, UsageQuery{})
		if err != nil || len(s.Rows) != 1 {
			t.Fatalf("%s: %+v, %v", name, s, err)
		}
		want := SimulatedRow{Requests: 1, TotalTokens: 160, Charged: want + 10*7, Simulated: c.want, Difference: c.want - want - 10*7}
		if c.want == 0 {
			want.UnpricedRequests = 1
		}
		if diff := cmp.Diff(want, s.Total); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		want.KeyID, want.Model = k.ID, "m"
		if diff := cmp.Diff(want, s.Rows[0]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	usage, err := a.Usage(t.Context(), UsageQuery{})
	if err != nil || usage.Total.Cost != want+10*7 || usage.Total.UnpricedRequests != 0 {
		t.Errorf("usage is %+v, %v", usage.Total, err)
	}
}

// A model without a price is metered without money, and that is said.
func testAModelWithoutAPriceIsMeteredOnly(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{Money: 1})
	settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 10, 20)
	usage, err := openAdmin(t, o).Usage(t.Context(), UsageQuery{})
	if err != nil || usage.Total.Cost != 0 || usage.Total.UnpricedRequests != 1 || usage.Total.TotalTokens != 30 {
		t.Errorf("usage is %+v, %v", usage.Total, err)
	}
}

// Callers at the same time get exactly the money there is.
func testParallelReservesSpendExactlyTheMoney(t *testing.T, at home) {
	const callers, each, fit = 200, 7, 31
	o := at.options(t, newClock(testNow))
	mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: money(1_500_000)}}) // 7 tokens: 10.5, rounded up to 11
	b, k := setup(t, o, Limits{Money: fit*11 + 10})
	var admitted, denied atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			_, err := b.Reserve(context.Background(), ask(k.ID, each))
			var refusal *BudgetError
			switch {
			case err == nil:
				admitted.Add(1)
			case errors.As(err, &refusal) && refusal.Budget == BudgetMoney && refusal.Needed == 11:
				denied.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if admitted.Load() != fit || denied.Load() != callers-fit {
		t.Fatalf("admitted %d, denied %d, want %d and %d", admitted.Load(), denied.Load(), fit, callers-fit)
	}
	if n := number(t, raw(t, o), "SELECT sum(reserved) FROM accounts"); n != fit*11 {
		t.Fatalf("database holds %d, want %d", n, fit*11)
	}
	// A request without a ceiling takes what the money allows.
	k2, _ := createKey(t, o, Limits{Money: 100})
	mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: money(1_000_000), Output: money(2_000_000)}})
	refresh(t, b)
	r := ask(k2.ID, 20)
	r.Choices, r.DefaultCeiling = 2, 4096
	if h := reserve(t, b, r); h.Ceiling != 20 || h.Cost != 100 || h.Tokens != 60 {
		t.Fatalf("held %+v", h)
	}
	shut(t, b)
	mustBalance(t, o)
}

// A price that an operator adds reaches an open book by itself.
func testPricesReachAnOpenBook(t *testing.T, at home) {
	o := at.options(t, nil)
	b, k := setup(t, o, Limits{})
	mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: money(1_000_000)}})
	eventually(t, "the book knows the price", func() bool {
		h := reserve(t, b, ask(k.ID, 1))
		b.Void(h.ID)
		return h.Price == 1
	})
}

func refresh(t testing.TB, b *Book) {
	t.Helper()
	if err := b.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// Where models without a price are refused, nothing is held for them.
func testModelsWithoutAPriceCanBeRefused(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	o.RefuseUnpriced = true
	b, k := setup(t, o, Limits{})
	if _, err := b.Reserve(t.Context(), ask(k.ID, 50)); !errors.Is(err, ErrUnpriced) {
		t.Fatalf("reserve: %v", err)
	}
	mustPrice(t, o, Price{Model: "m*", Rates: Rates{Input: money(0)}})
	refresh(t, b)
	settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 1, 2)
	mustPrice(t, o, Price{Model: "m*"})
	refresh(t, b)
	if _, err := b.Reserve(t.Context(), ask(k.ID, 50)); !errors.Is(err, ErrUnpriced) {
		t.Fatalf("a price that ended: %v", err)
	}
	b.SetRefuseUnpriced(false)
	b.Void(reserve(t, b, ask(k.ID, 50)).ID)
	flush(t, b)
	mustBalance(t, o)
}

// An answer that cost more than it held takes the money below nothing. What costs
// money is refused then, and what costs none is not.
func testWhatCostsNothingNeedsNoMoney(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: money(1_000_000)}}, Price{Model: "free", Rates: Rates{Input: money(0)}})
	b, k := setup(t, o, Limits{Money: 20, Daily: 1000})
	settle(t, b, reserve(t, b, ask(k.ID, 20)).ID, 30, 0)
	if bal := balance(t, b, k.ID); bal.SpentMonth != 30 {
		t.Fatalf("spent %s", bal.SpentMonth)
	}
	_, err := b.Reserve(t.Context(), ask(k.ID, 1))
	if e := refused(t, err); e.Budget != BudgetMoney || e.Needed != 1 || e.Used != 30 {
		t.Errorf("refused with %+v", e)
	}
	for _, model := range []string{"free", "without a price"} {
		for given, want := range map[int64]int64{10: 10, 0: 1000 - 30 - 100} { // without a ceiling, what the day's tokens allow
			r := ask(k.ID, 100)
			r.Model, r.Ceiling, r.DefaultCeiling = model, given, 4096
			h, err := b.Reserve(t.Context(), r)
			if err != nil || h.Cost != 0 || h.Ceiling != want {
				t.Errorf("%s, ceiling %d: held %+v, %v", model, given, h, err)
			}
			b.Void(h.ID)
		}
	}
	flush(t, b)
	mustBalance(t, o)
}

// A model costs what the books say that its name costs, also where a client wrote
// more than they can keep.
func testAModelCostsWhatItsNameInTheBooksCosts(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	o.RefuseUnpriced = true
	p := mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: money(1_000_000)}})[0]
	b, k := setup(t, o, Limits{})
	for _, name := range []string{"m\x00", "\xffm"} {
		r := ask(k.ID, 10)
		r.Model = name
		h := reserve(t, b, r)
		if h.Price != p.ID || h.Cost != 10 {
			t.Errorf("%q: held %+v", name, h)
		}
		settle(t, b, h.ID, 10, 0)
	}
	s, err := openAdmin(t, o).Simulate(t.Context(), []Price{{Model: "m", Rates: p.Rates}}, UsageQuery{})
	if err != nil || s.Total.Charged != 20 || s.Total.Difference != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	mustBalance(t, o)
}
