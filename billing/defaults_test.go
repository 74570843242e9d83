package billing

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// The next decision goes by the new defaults; what is held stays held, and a
// limit of a key's own is its own.
func testDefaultsCanBeExchanged(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	own, _ := createKey(t, o, Limits{Daily: 50, Monthly: 50, Tariff: 50})
	b, k := setup(t, o, Limits{})
	held := reserve(t, b, ask(k.ID, 100))
	lower := Limits{Tariff: 60, Daily: 90, Monthly: 70}
	if err := b.SetDefaults(lower); err != nil {
		t.Fatal(err)
	}
	var refused *BudgetError
	if _, err := b.Reserve(t.Context(), ask(k.ID, 1)); !errors.As(err, &refused) || refused.Held != 100 {
		t.Errorf("one token beyond the new defaults: %v", err)
	}
	if got := b.Effective(k); got != lower {
		t.Errorf("effective limits %+v, want %+v", got, lower)
	}
	if got := b.Standing(k.ID); got.Remaining != -40 || got.Limit != 60 {
		t.Errorf("standing %+v, want 40 beyond the tariff of 60", got)
	}
	if b.Budget(k.ID, 1) == nil {
		t.Error("no budget would refuse a token")
	}
	b.Void(reserve(t, b, ask(own.ID, 50)).ID)
	settle(t, b, held.ID, 100, 0)
	for _, bad := range []Limits{{}, {Tariff: 1, Daily: 1}, {Tariff: 1, Daily: -1, Monthly: 1}} {
		if err := b.SetDefaults(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if got := b.Effective(k); got != lower {
		t.Errorf("after refused ones %+v", got)
	}

	// Exchanged under load, each decision goes by one of them.
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range int64(200) {
			if err := b.SetDefaults(Limits{Tariff: 100 + i, Daily: 100 + i, Monthly: 100 + i}); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 50 {
			if h, err := b.Reserve(context.Background(), ask(k.ID, 1)); err == nil {
				b.Void(h.ID)
			}
			if limits := b.Effective(k); limits != lower && (limits.Tariff != limits.Daily || limits.Daily != limits.Monthly) {
				t.Errorf("half of the one and half of the other: %+v", limits)
			}
		}
	})
	wg.Wait()
	flush(t, b)
	shut(t, b)
	mustBalance(t, o)
}
