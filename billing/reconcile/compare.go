package reconcile

import (
	"cmp"
	"maps"
	"slices"
)

// Figures are what was used: tokens, and requests.
type Figures struct {
	Prompt     int64 `json:"prompt_tokens"` // cached ones included
	Completion int64 `json:"completion_tokens"`
	Cached     int64 `json:"cached_tokens"` // part of Prompt
	Requests   int64 `json:"requests"`
}

// Plus is the sum of both.
func (f Figures) Plus(g Figures) Figures {
	return Figures{f.Prompt + g.Prompt, f.Completion + g.Completion, f.Cached + g.Cached, f.Requests + g.Requests}
}

// Minus is what f has more than g.
func (f Figures) Minus(g Figures) Figures {
	return Figures{f.Prompt - g.Prompt, f.Completion - g.Completion, f.Cached - g.Cached, f.Requests - g.Requests}
}

// Stated says which figures an export holds beside the tokens of prompts and
// completions. Others are not compared.
type Stated struct{ Cached, Requests bool }

func (s Stated) only(f Figures) Figures {
	if !s.Cached {
		f.Cached = 0
	}
	if !s.Requests {
		f.Requests = 0
	}
	return f
}

// Row is what was used of one model on one UTC day.
type Row struct {
	Day   string // "2006-01-02"
	Model string // "" = not named
	Figures
	// Unreported is the part of the figures that the provider did not state
	// itself. Only the books have it.
	Unreported Figures
}

// Sum folds rows of the same day and model, and orders them.
func Sum(rows []Row) []Row {
	sums := map[place]Row{}
	for _, r := range rows {
		at := place{r.Day, r.Model}
		s := sums[at]
		sums[at] = Row{r.Day, r.Model, s.Plus(r.Figures), s.Unreported.Plus(r.Unreported)}
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b Row) int {
		return place{a.Day, a.Model}.compare(place{b.Day, b.Model})
	})
}

// Within are the rows of the days from first to last, both included.
func Within(rows []Row, first, last string) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Day < first || r.Day > last })
}

// Rename gives models other names and folds those that become one.
func Rename(rows []Row, names map[string]string) []Row {
	rows = slices.Clone(rows)
	for i := range rows {
		if name, ok := names[rows[i].Model]; ok {
			rows[i].Model = name
		}
	}
	return Sum(rows)
}

// WithoutModels folds the models of each day.
func WithoutModels(rows []Row) []Row {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Model = ""
	}
	return Sum(rows)
}

// Finding says what is wrong with a day and model.
type Finding string

// What can be wrong.
const (
	Missing   Finding = "missing"   // the provider has it, the books have not
	Extra     Finding = "extra"     // the books have it, the provider has not
	Different Finding = "different" // both have it, with other figures
)

// Difference is a day and model on which provider and books do not agree.
// Figures that were not compared are 0.
type Difference struct {
	Day, Model      string
	Finding         Finding
	Provider, Books Figures
	Delta           Figures // Books less Provider
	Unreported      Figures // part of Books
}

// Report is the outcome of a comparison.
type Report struct {
	Differences     []Difference // by day and model
	Equal           int          // days and models that agree
	Provider, Books Figures      // sums of all, of what was compared
	Unreported      Figures      // part of Books
}

type place struct{ day, model string }

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.day, q.day), cmp.Compare(p.model, q.model))
}

// Compare holds the books against a provider's figures, by day and model. A row
// without any figure counts as none.
func Compare(provider, books []Row, stated Stated) Report {
	pairs := map[place]*Difference{}
	at := func(r Row) *Difference {
		p := place{r.Day, r.Model}
		if pairs[p] == nil {
			pairs[p] = &Difference{Day: r.Day, Model: r.Model}
		}
		return pairs[p]
	}
	for _, r := range provider {
		d := at(r)
		d.Provider = d.Provider.Plus(stated.only(r.Figures))
	}
	for _, r := range books {
		d := at(r)
		d.Books = d.Books.Plus(stated.only(r.Figures))
		d.Unreported = d.Unreported.Plus(stated.only(r.Unreported))
	}
	var report Report
	for _, p := range slices.SortedFunc(maps.Keys(pairs), place.compare) {
		d := pairs[p]
		report.Provider = report.Provider.Plus(d.Provider)
		report.Books = report.Books.Plus(d.Books)
		report.Unreported = report.Unreported.Plus(d.Unreported)
		d.Delta = d.Books.Minus(d.Provider)
		switch (Figures{}) {
		case d.Delta:
			if d.Books != (Figures{}) {
				report.Equal++
			}
			continue
		case d.Books:
			d.Finding = Missing
		case d.Provider:
			d.Finding = Extra
		default:
			d.Finding = Different
		}
		report.Differences = append(report.Differences, *d)
	}
	return report
}
