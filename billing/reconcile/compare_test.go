package reconcile

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// somewhere draws rows of few days and models, so that they meet.
func somewhere() *rapid.Generator[[]Row] {
	n := rapid.Int64Range(0, 3)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Row {
		return Row{
			Day:        rapid.SampledFrom([]string{"2026-11-01", "2026-11-02"}).Draw(t, "day"),
			Model:      rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "model"),
			Figures:    Figures{n.Draw(t, "prompt"), n.Draw(t, "completion"), n.Draw(t, "cached"), n.Draw(t, "requests")},
			Unreported: Figures{Prompt: n.Draw(t, "unreported")},
		}
	}), 0, 8)
}

func anyStated(t *rapid.T) Stated {
	return Stated{Cached: rapid.Bool().Draw(t, "cached"), Requests: rapid.Bool().Draw(t, "requests")}
}

func sumOf(rows []Row, stated Stated) (f Figures) {
	for _, r := range rows {
		f = f.Plus(stated.only(r.Figures))
	}
	return f
}

func TestCompare_withItselfFindsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := somewhere().Draw(t, "rows")
		mixed := rapid.Permutation(rows).Draw(t, "mixed")
		got := Compare(rows, mixed, anyStated(t))
		if len(got.Differences) > 0 || got.Provider != got.Books {
			t.Fatalf("%+v", got)
		}
	})
}

func TestCompare_sumOfDifferencesIsDifferenceOfSums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		provider, books, stated := somewhere().Draw(t, "provider"), somewhere().Draw(t, "books"), anyStated(t)
		got := Compare(provider, books, stated)
		var deltas, unreported Figures
		for _, d := range got.Differences {
			deltas = deltas.Plus(d.Delta)
			unreported = unreported.Plus(d.Unreported)
			if d.Delta == (Figures{}) || d.Delta != d.Books.Minus(d.Provider) {
				t.Fatalf("no difference: %+v", d)
			}
			if (d.Finding == Missing) != (d.Books == Figures{}) || (d.Finding == Extra) != (d.Provider == Figures{}) {
				t.Fatalf("wrong finding: %+v", d)
			}
		}
		if want := sumOf(books, stated).Minus(sumOf(provider, stated)); deltas != want {
			t.Fatalf("differences sum up to %+v, want %+v", deltas, want)
		}
		if got.Books != sumOf(books, stated) || got.Provider != sumOf(provider, stated) || unreported.Prompt > got.Unreported.Prompt {
			t.Fatalf("sums of %+v", got)
		}
		if !slices.IsSortedFunc(got.Differences, func(a, b Difference) int {
			return place{a.Day, a.Model}.compare(place{b.Day, b.Model})
		}) {
			t.Fatal("not in order")
		}
	})
}

func TestCompare_theOtherWayRound(t *testing.T) {
	other := map[Finding]Finding{Missing: Extra, Extra: Missing, Different: Different}
	rapid.Check(t, func(t *rapid.T) {
		a, b, stated := somewhere().Draw(t, "a"), somewhere().Draw(t, "b"), anyStated(t)
		there, back := Compare(a, b, stated), Compare(b, a, stated)
		if there.Equal != back.Equal || len(there.Differences) != len(back.Differences) {
			t.Fatalf("%+v\n%+v", there, back)
		}
		for i, d := range there.Differences {
			e := back.Differences[i]
			if d.Day != e.Day || d.Model != e.Model || d.Finding != other[e.Finding] || d.Delta.Plus(e.Delta) != (Figures{}) {
				t.Fatalf("%+v\n%+v", d, e)
			}
		}
	})
}

// Neither folding, nor names, nor the split by models changes what was used.
func TestSum_losesNothing(t *testing.T) {
	all := Stated{Cached: true, Requests: true}
	rapid.Check(t, func(t *rapid.T) {
		rows := somewhere().Draw(t, "rows")
		for _, folded := range [][]Row{Sum(rows), Rename(rows, map[string]string{"a": "b", "": "c"}), WithoutModels(rows), Within(rows, "0", "9")} {
			if sumOf(folded, all) != sumOf(rows, all) {
				t.Fatalf("%+v of %+v", folded, rows)
			}
		}
		if days := WithoutModels(rows); len(days) > 2 {
			t.Fatalf("%d days", len(days))
		}
		for _, r := range Within(rows, "2026-11-02", "2026-11-02") {
			if r.Day != "2026-11-02" {
				t.Fatal(r.Day)
			}
		}
	})
}

func TestCompare_examples(t *testing.T) {
	provider := []Row{
		{Day: "2026-11-01", Model: "same", Figures: Figures{10, 5, 4, 1}},
		{Day: "2026-11-01", Model: "none", Figures: Figures{}},
		{Day: "2026-11-01", Model: "lost", Figures: Figures{1, 2, 0, 1}},
		{Day: "2026-11-02", Model: "Case", Figures: Figures{Prompt: 9}},
		{Day: "2026-11-02", Model: "other", Figures: Figures{100, 50, 40, 3}},
	}
	books := []Row{
		{Day: "2026-11-01", Model: "same", Figures: Figures{10, 5, 0, 1}},
		{Day: "2026-11-02", Model: "case", Figures: Figures{Prompt: 9}},
		{Day: "2026-11-02", Model: "other", Figures: Figures{90, 50, 0, 2}, Unreported: Figures{Prompt: 7, Cached: 1}},
		{Day: "2026-11-02", Model: "other", Figures: Figures{Prompt: 1}},
	}
	want := Report{
		Differences: []Difference{
			{Day: "2026-11-01", Model: "lost", Finding: Missing, Provider: Figures{1, 2, 0, 1}, Delta: Figures{-1, -2, 0, -1}},
			{Day: "2026-11-02", Model: "Case", Finding: Missing, Provider: Figures{Prompt: 9}, Delta: Figures{Prompt: -9}},
			{Day: "2026-11-02", Model: "case", Finding: Extra, Books: Figures{Prompt: 9}, Delta: Figures{Prompt: 9}},
			{
				Day: "2026-11-02", Model: "other", Finding: Different, Provider: Figures{100, 50, 0, 3}, Books: Figures{91, 50, 0, 2},
				Delta: Figures{-9, 0, 0, -1}, Unreported: Figures{Prompt: 7},
			},
		},
		Equal:    1,
		Provider: Figures{120, 57, 0, 5}, Books: Figures{110, 55, 0, 3}, Unreported: Figures{Prompt: 7},
	}
	if diff := cmp.Diff(want, Compare(provider, books, Stated{Requests: true})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
