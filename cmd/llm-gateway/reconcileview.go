package main

import (
	"fmt"
	"strings"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/billing/reconcile"
)

// reconciled is the outcome of one comparison.
type reconciled struct {
	reconcile.Report
	run        *reconcileRun
	export     *reconcile.Export
	provenance map[billing.Provenance]int64 // requests that were not reported
}

// verdict is an error when books and export do not agree.
func (r *reconciled) verdict() error {
	if len(r.Differences) == 0 {
		return nil
	}
	n := r.counts()
	return fmt.Errorf("the books and the export do not agree: %d missing, %d extra, %d different (days and models that agree: %d)",
		n[reconcile.Missing], n[reconcile.Extra], n[reconcile.Different], r.Equal)
}

func (r *reconciled) counts() map[reconcile.Finding]int {
	n := map[reconcile.Finding]int{}
	for i := range r.Differences {
		n[r.Differences[i].Finding]++
	}
	return n
}

// compared are the figures that were compared, by the names of the document.
func (r *reconciled) compared() []string {
	names := []string{"prompt_tokens", "completion_tokens"}
	if r.export.Stated.Cached {
		names = append(names, "cached_tokens")
	}
	if r.export.Stated.Requests {
		names = append(names, "requests")
	}
	return names
}

func figure(f reconcile.Figures, name string) int64 {
	switch name {
	case "prompt_tokens":
		return f.Prompt
	case "completion_tokens":
		return f.Completion
	case "cached_tokens":
		return f.Cached
	}
	return f.Requests
}

// figuresView are figures by name; those that were not compared are left out.
func (r *reconciled) figuresView(f reconcile.Figures) map[string]int64 {
	view := map[string]int64{}
	for _, name := range r.compared() {
		view[name] = figure(f, name)
	}
	return view
}

// percent is a difference in per cent of the provider's figure; there is none
// where that is 0.
func percent(delta, provider int64) (float64, bool) {
	if provider == 0 {
		return 0, delta == 0
	}
	return float64(delta) / float64(provider) * 100, true
}

type differenceView struct {
	Day         string              `json:"day"`
	Model       string              `json:"model"` // "" = the export names none
	Finding     reconcile.Finding   `json:"finding"`
	Provider    map[string]int64    `json:"provider"`
	Books       map[string]int64    `json:"books"`
	Difference  map[string]int64    `json:"difference"` // books less provider
	Percent     map[string]*float64 `json:"percent"`    // of the provider's figure; null where that is 0
	NotReported map[string]int64    `json:"not_reported"`
}

type reconciledView struct {
	From        string                       `json:"from"`
	To          string                       `json:"to"`
	ByModel     bool                         `json:"by_model"`
	Compared    []string                     `json:"compared"`
	ExportCut   bool                         `json:"export_cut"`
	Missing     int                          `json:"missing"`
	Extra       int                          `json:"extra"`
	Different   int                          `json:"different"`
	Equal       int                          `json:"equal"`
	Provider    map[string]int64             `json:"provider"` // sums
	Books       map[string]int64             `json:"books"`
	NotReported map[string]int64             `json:"not_reported"` // part of the books
	Provenance  map[billing.Provenance]int64 `json:"provenance"`   // requests of it
	Differences []differenceView             `json:"differences"`
}

func (r *reconciled) view() reconciledView {
	n := r.counts()
	v := reconciledView{
		From: r.run.from, To: r.run.to, ByModel: r.export.ByModel, Compared: r.compared(), ExportCut: r.export.Cut,
		Missing: n[reconcile.Missing], Extra: n[reconcile.Extra], Different: n[reconcile.Different], Equal: r.Equal,
		Provider: r.figuresView(r.Provider), Books: r.figuresView(r.Books),
		NotReported: r.figuresView(r.Unreported), Provenance: r.provenance, Differences: []differenceView{},
	}
	for i := range r.Differences {
		d := &r.Differences[i]
		view := differenceView{
			Day: d.Day, Model: d.Model, Finding: d.Finding, Provider: r.figuresView(d.Provider), Books: r.figuresView(d.Books),
			Difference: r.figuresView(d.Delta), NotReported: r.figuresView(d.Unreported), Percent: map[string]*float64{},
		}
		for _, name := range r.compared() {
			view.Percent[name] = nil
			if p, ok := percent(figure(d.Delta, name), figure(d.Provider, name)); ok {
				view.Percent[name] = &p
			}
		}
		v.Differences = append(v.Differences, view)
	}
	return v
}

func (a *app) printReconciled(r reconciled) error {
	if a.json {
		return a.printJSON(r.view())
	}
	if len(r.Differences) > 0 {
		numbers := []string{"provider", "books", "difference", "per cent", "not reported"}
		g := grid{columns: append([]string{"day", "model", "finding", "figure"}, numbers...), numeric: numbers}
		for i := range r.Differences {
			g.rows = append(g.rows, r.rows(&r.Differences[i])...)
		}
		if err := a.printGrid(g); err != nil {
			return err
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
	}
	n := r.counts()
	return a.printPairs([]pair{
		{"days", r.run.from + " to " + r.run.to},
		{"provider", r.sums(r.Provider)},
		{"books", r.sums(r.Books)},
		{"not reported", r.notReported()},
		{"findings", fmt.Sprintf("%d missing, %d extra, %d different, %d equal",
			n[reconcile.Missing], n[reconcile.Extra], n[reconcile.Different], r.Equal)},
	})
}

// rows are the lines of one difference: one for each figure that differs.
func (r *reconciled) rows(d *reconcile.Difference) (rows [][]string) {
	model := d.Model
	if model == "" {
		model = "(all)"
		if r.export.ByModel {
			model = "(not named)"
		}
	}
	for _, name := range r.compared() {
		delta := figure(d.Delta, name)
		if delta == 0 {
			continue
		}
		share := ""
		if p, ok := percent(delta, figure(d.Provider, name)); ok {
			share = fmt.Sprintf("%+.1f%%", p)
		}
		sign := ""
		if delta > 0 {
			sign = "+"
		}
		rows = append(rows, []string{
			d.Day, model, string(d.Finding), strings.TrimSuffix(name, "_tokens"),
			thousands(figure(d.Provider, name)), thousands(figure(d.Books, name)), sign + thousands(delta), share,
			thousands(figure(d.Unreported, name)),
		})
	}
	return rows
}

func (r *reconciled) sums(f reconcile.Figures) string {
	text := fmt.Sprintf("%s prompt and %s completion tokens", thousands(f.Prompt), thousands(f.Completion))
	if r.export.Stated.Requests {
		text += fmt.Sprintf(" in %s requests", thousands(f.Requests))
	}
	return text
}

// notReported says how much of the books the provider did not state itself.
func (r *reconciled) notReported() string {
	u := r.Unreported
	if u == (reconcile.Figures{}) {
		return "nothing: the provider stated all of the books' figures"
	}
	var parts []string
	for _, from := range api.Provenances() {
		if n := r.provenance[from]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", thousands(n), from))
		}
	}
	text := fmt.Sprintf("%s prompt and %s completion tokens of the books", thousands(u.Prompt), thousands(u.Completion))
	if len(parts) > 0 {
		text += " (requests: " + strings.Join(parts, ", ") + ")"
	}
	return text + "; expect a difference of that size"
}
