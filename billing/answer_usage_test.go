package billing

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

func testUsageByAnswer(t *testing.T, at home) {
	c := newClock("2026-11-28T12:00:00Z")
	o := at.options(t, c)
	b, k := setup(t, o, Limits{})
	ctx := context.Background()
	charge := func(model string, outcome Outcome) string {
		t.Helper()
		r := ask(k.ID, 100)
		r.Model = model
		h := reserve(t, b, r)
		if err := b.Settle(ctx, h.ID, outcome); err != nil {
			t.Fatal(err)
		}
		return h.ID
	}
	charge("gpt", Outcome{Prompt: 99, Provenance: Reported}) // before the days that are asked for
	c.Add(24 * time.Hour)
	id := charge("gpt", Outcome{Prompt: 10, Completion: 2, Cached: 4, Provenance: Reported, AnswerModel: "gpt-2026"})
	charge("gpt", Outcome{Prompt: 3, Completion: 4, Provenance: Estimated})
	charge("auto", Outcome{Prompt: 5, Completion: 6, Provenance: Reported, AnswerModel: "gpt-2026"})
	c.Add(24 * time.Hour)
	if err := b.Correct(ctx, id, Outcome{Prompt: 10, Completion: 12, Cached: 4, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	charge("gpt", Outcome{Prompt: 7, Completion: 8, Provenance: Aborted})
	c.Add(24 * time.Hour)
	charge("gpt", Outcome{Prompt: 99, Provenance: Reported})

	a := openAdmin(t, o)
	got, err := a.UsageByAnswer(ctx, "2026-11-29", "2026-11-30")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(x, y AnswerUsage) int {
		return cmp.Or(cmp.Compare(x.Day, y.Day), cmp.Compare(x.Model, y.Model), cmp.Compare(x.PromptTokens, y.PromptTokens))
	})
	want := []AnswerUsage{
		{"2026-11-29", "gpt", Estimated, 3, 4, 0, 1},
		{"2026-11-29", "gpt-2026", Reported, 5, 6, 0, 1},
		{"2026-11-29", "gpt-2026", Reported, 10, 12, 4, 1},
		{"2026-11-30", "gpt", Aborted, 7, 8, 0, 1},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, days := range [][2]string{{"2026-11-31", "2026-12-01"}, {"2026-11-01", ""}} {
		if _, err := a.UsageByAnswer(ctx, days[0], days[1]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", days, err)
		}
	}
}
