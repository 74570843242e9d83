package billing

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// Whatever ended a request is in the report, on the day of its admission.
func testReportTellsHowEverythingEnded(t *testing.T, at home) {
	c := newClock("2028-02-28T23:59:59.9Z")
	o := at.options(t, c)
	b, k := setup(t, o, Limits{})
	for n, p := range map[int64]Provenance{1: Reported, 10: Estimated, 100: Aborted} {
		if err := b.Settle(t.Context(), reserve(t, b, ask(k.ID, 1000)).ID, Outcome{Prompt: n, Completion: n, Provenance: p}); err != nil {
			t.Fatal(err)
		}
	}
	seen := reserve(t, b, ask(k.ID, 1000))
	b.Checkpoint(seen.ID, Progress{PromptTokens: 500, CompletionTokens: 501})
	reserve(t, b, ask(k.ID, 1000)) // no trace of an answer
	flush(t, b)
	o = at.crash(t, b, o)
	c.Add(time.Second) // the leap day
	b = openBook(t, o)
	r := report(t, b, k.ID, "2028-02-28", "2028-02-29")
	want := map[Provenance]UsagePart{
		Reported: {2, 1}, Estimated: {20, 1}, Aborted: {200, 1}, Recovered: {1001, 1}, Expired: {0, 1},
	}
	if diff := cmp.Diff(want, r.Provenance); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]DayUsage{{Day: "2028-02-28", Tokens: 1223, Requests: 5}}, r.Days); diff != "" {
		t.Error(diff)
	}
	if !r.LastCharge.Equal(c.Now()) || r.Today != (DayUsage{Day: "2028-02-29"}) || r.Month.Tokens != 1223 {
		t.Errorf("%+v", r.KeyAccount)
	}
	shut(t, b)
	mustBalance(t, o)
}

// Questions end with who asked them, and do not wait for who writes.
func testReportsEndWithTheirContext(t *testing.T, at home) {
	b, k := setup(t, at.options(t, newClock(testNow)), Limits{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Report(gone, k.ID, "2026-11-01", "2026-11-23"); !errors.Is(err, context.Canceled) {
		t.Errorf("report: %v", err)
	}
	if _, err := b.Account(gone, k.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("account: %v", err)
	}
	if _, err := b.Usage(gone, UsageQuery{KeyRef: k.ID}); !errors.Is(err, context.Canceled) {
		t.Errorf("usage: %v", err)
	}
	if err := b.Refresh(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("refresh: %v", err)
	}
}
