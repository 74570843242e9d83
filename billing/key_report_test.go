package billing

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func report(t *testing.T, b *Book, keyID, from, to string) KeyReport {
	t.Helper()
	r, err := b.Report(t.Context(), keyID, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A key's report is its own, by UTC days and months, whatever the other keys do.
func testReportOfAKey(t *testing.T, at home) {
	c := newClock("2026-01-30T12:00:00Z")
	o := at.options(t, c)
	a, _ := createKey(t, o, Limits{})
	other, _ := createKey(t, o, Limits{})
	b := openBook(t, o)
	spend := func(keyID string, prompt, completion int64, p Provenance) string {
		t.Helper()
		h := reserve(t, b, ask(keyID, 1000))
		if err := b.Settle(t.Context(), h.ID, Outcome{Prompt: prompt, Completion: completion, Provenance: p}); err != nil {
			t.Fatal(err)
		}
		return h.ID
	}
	if r := report(t, b, a.ID, "2026-01-01", "2026-01-30"); !r.LastCharge.IsZero() || len(r.Days) != 0 || r.Today != (DayUsage{Day: "2026-01-30"}) {
		t.Errorf("before any use: %+v", r)
	}
	spend(a.ID, 1, 2, Reported)
	c.Add(36*time.Hour - time.Millisecond) // 2026-01-31T23:59:59.999
	id := spend(a.ID, 10, 20, Reported)
	spend(other.ID, 500, 500, Reported)
	held := reserve(t, b, ask(a.ID, 70))
	c.Add(time.Millisecond) // the next month
	spend(a.ID, 100, 200, Estimated)
	if err := b.Correct(t.Context(), id, Outcome{Prompt: 10, Completion: 25, Provenance: Reported}); err != nil { // of January
		t.Fatal(err)
	}
	last := c.Now()
	flush(t, b)

	got := report(t, b, a.ID, "2026-01-03", "2026-02-01")
	month := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	want := KeyReport{
		KeyAccount: KeyAccount{
			Today: DayUsage{Day: "2026-02-01", Tokens: 300, Requests: 1}, Month: DayUsage{Day: "2026-02", Tokens: 300, Requests: 1},
			DayResetAt: last.AddDate(0, 0, 1), MonthResetAt: month, LastCharge: last,
		},
		From: "2026-01-03", To: "2026-02-01",
		Days: []DayUsage{
			{Day: "2026-02-01", Tokens: 300, Requests: 1},
			{Day: "2026-01-31", Tokens: 35, Held: 70, Requests: 1},
			{Day: "2026-01-30", Tokens: 3, Requests: 1},
		},
		Total:      DayUsage{Tokens: 338, Held: 70, Requests: 3},
		Provenance: map[Provenance]UsagePart{Reported: {TotalTokens: 38, Requests: 2}, Estimated: {TotalTokens: 300, Requests: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r := report(t, b, a.ID, "2026-01-31", "2026-01-31"); r.Total.Tokens != 35 || len(r.Days) != 1 || r.Month.Tokens != 300 {
		t.Errorf("one day: %+v", r)
	}
	if r := report(t, b, other.ID, "2026-01-01", "2026-02-01"); r.Total.Tokens != 1000 || r.Month.Tokens != 0 {
		t.Errorf("the other key: %+v", r)
	}
	b.Void(held.ID)
	flush(t, b)
	if acc, err := b.Account(t.Context(), a.ID); err != nil || acc.Month.Held != 0 || acc.Month.Tokens != 300 {
		t.Errorf("%v, %+v", err, acc)
	}
	for _, days := range [][2]string{{"2026-02-01", "2026-01-31"}, {"2025-01-01", "2026-01-02"}, {"yesterday", "2026-01-31"}, {"2026-01-31", "2026-02-30"}} {
		if _, err := b.Report(t.Context(), a.ID, days[0], days[1]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", days, err)
		}
	}
	shut(t, b)
	mustBalance(t, o)
}

// What an Admin of the same process changed holds at once after a refresh.
func testRefreshSeesChangesAtOnce(t *testing.T, at home) {
	o := at.options(t, nil)
	b, _ := setup(t, o, Limits{})
	a := openAdmin(t, o)
	for range 20 {
		k, secret, err := a.CreateKey(t.Context(), NewKey{})
		if err == nil {
			err = b.Refresh(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Lookup(secret); err != nil || got.ID != k.ID {
			t.Fatalf("%v, %v", got.ID, err)
		}
		if _, err := a.Revoke(t.Context(), k.ID); err != nil {
			t.Fatal(err)
		}
		if err := b.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Lookup(secret); !errors.Is(err, ErrRevokedKey) {
			t.Fatal(err)
		}
	}
}

// At 90 % of a budget one line is written, once a period.
func testOneLineAtNinetyPercent(t *testing.T, at home) {
	core, logs := observer.New(zap.WarnLevel)
	c := newClock("2026-11-23T12:00:00Z")
	o := at.options(t, c)
	o.Log = zap.New(core)
	b, k := setup(t, o, Limits{Daily: 1000, Monthly: 1 << 40, Tariff: 2500})
	spend := func(n int64) {
		t.Helper()
		settle(t, b, reserve(t, b, ask(k.ID, n)).ID, n, 0)
	}
	expect := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range logs.TakeAll() {
			f := e.ContextMap()
			got = append(got, fmt.Sprintf("%s %s %v/%v", e.Message, f["budget"], f["used_tokens"], f["limit_tokens"]))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	spend(899)
	expect()
	spend(1)
	expect("budget nearly used daily 900/1000")
	spend(50)
	expect()
	c.Add(24 * time.Hour)
	spend(1000)
	expect("budget used up daily 1000/1000")
	c.Add(24 * time.Hour)
	spend(350)
	expect("budget nearly used tariff 2300/2500")
}
