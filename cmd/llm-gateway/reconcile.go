package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/billing/reconcile"
)

// maxExport bounds the export that is read, in bytes: it is read whole.
const maxExport = 256 << 20

func newReconcileCommand(a *app) *cobra.Command {
	var r reconcileRun
	cmd := &cobra.Command{
		Use:   "reconcile --file FILE",
		Short: "Compare the books with a provider's usage export",
		Long: `Compare the books with a provider's usage export, by UTC day and model, and print
what is missing (the provider has it, the books have not), extra (the books have
it, the provider has not) and different. The exit code is 1 when there is any of it.

The export is JSON of OpenAI's usage API (bucket_width=1d, group_by=model; several
pages in a list or one after another), a JSON list of rows, or CSV with a header,
such as usage --csv prints. Columns are found by the names that providers use: a
name that is not known is answered with all that are. Figures that the export does
not state (cached tokens, requests) are not compared. An export that names no model
is compared by day.

The books are counted by the model that answered, as the provider counts them. What
they hold as estimated, aborted, recovered or expired was not reported by the
provider, so a difference of that size is to be expected there; and a request around
midnight may be of one day here and of the other there.

Days are those from the first to the last of the export, unless --from and --to say
otherwise. Models are compared by their exact names; --map gives a name of the
export the one that the books have.`,
		Example: `  curl "https://api.openai.com/v1/organization/usage/completions?start_time=1793491200&bucket_width=1d&limit=31&group_by=model" \
    -H "Authorization: Bearer $OPENAI_ADMIN_KEY" > usage.json
  llm-gateway reconcile --file usage.json
  llm-gateway reconcile --file usage.csv --from 2026-11-01 --to 2026-11-30 --map gpt-4o-2024-08-06=gpt-4o --json`,
	}
	f := cmd.Flags()
	f.StringVar(&r.path, "file", "", "`file` of the export (required)")
	f.StringVar(&r.from, "from", "", "first UTC `day`, such as 2026-11-01 (default: the export's first)")
	f.StringVar(&r.to, "to", "", "last UTC `day`, such as 2026-11-30 (default: the export's last)")
	f.StringArrayVar(&r.mapped, "map", nil, "a model's name in the export and in the books, `theirs=ours`; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "file"); err != nil {
			return err
		}
		if err := r.check(); err != nil {
			return err
		}
		export, err := readExport(r.path)
		if err != nil {
			return err
		}
		if err := r.days(&export); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			charged, err := books.UsageByAnswer(ctx, r.from, r.to)
			if err != nil {
				return err
			}
			for _, warning := range r.warnings(&export) {
				a.message(warning)
			}
			found := r.compare(&export, charged)
			if err := a.printReconciled(found); err != nil {
				return err
			}
			return found.verdict()
		})
	}
	return cmd
}

// reconcileRun is one run of `reconcile`.
type reconcileRun struct {
	path, from, to string
	mapped         []string

	names map[string]string // the books' name of a model by the export's
}

// check reads the options.
func (r *reconcileRun) check() error {
	if err := checkDays(r.from, r.to); err != nil {
		return err
	}
	r.names = map[string]string{}
	for _, pair := range r.mapped {
		theirs, ours, ok := strings.Cut(pair, "=")
		if !ok || theirs == "" || ours == "" {
			return usagef("--map: write the export's name of a model, =, and the name in the books")
		}
		if _, twice := r.names[theirs]; twice {
			return usagef("--map: one name of the export is mapped twice")
		}
		r.names[theirs] = ours
	}
	return nil
}

func readExport(path string) (reconcile.Export, error) {
	f, err := os.Open(path)
	if err != nil {
		return reconcile.Export{}, fmt.Errorf("read the export: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxExport+1))
	switch {
	case err != nil:
		return reconcile.Export{}, fmt.Errorf("read the export: %w", err)
	case len(text) > maxExport:
		return reconcile.Export{}, fmt.Errorf("read the export: %s is larger than %d MiB; export fewer days at once", path, maxExport>>20)
	}
	export, err := reconcile.Read(text)
	if err != nil {
		return export, fmt.Errorf("%s, %w", path, err)
	}
	return export, nil
}

// days settles which days are compared.
func (r *reconcileRun) days(e *reconcile.Export) error {
	if e.First == "" && (r.from == "" || r.to == "") {
		return errors.New("the export covers no day: name the days to compare with --from and --to")
	}
	if r.from == "" {
		r.from = e.First
	}
	if r.to == "" {
		r.to = e.Last
	}
	if r.from > r.to {
		return fmt.Errorf("the export covers %s to %s only: choose --from and --to within it", e.First, e.Last)
	}
	return nil
}

// warnings are reasons to doubt the outcome that lie in the export.
func (r *reconcileRun) warnings(e *reconcile.Export) (lines []string) {
	if e.Cut {
		lines = append(lines, "the export is cut: its last page says that there are more; get the others too (next_page)")
	}
	if e.First != "" && (r.from < e.First || r.to > e.Last) {
		lines = append(lines, fmt.Sprintf("the export covers %s to %s only", e.First, e.Last))
	}
	if partial := slices.DeleteFunc(slices.Clone(e.Partial), func(day string) bool { return day < r.from || day > r.to }); len(partial) > 0 {
		lines = append(lines, "the export covers these days in part only, so the books may have more: "+strings.Join(partial, ", "))
	}
	if !e.ByModel {
		lines = append(lines, "the export names no models (group_by=model), so days are compared as a whole")
	}
	for _, pair := range r.mapped {
		theirs, _, _ := strings.Cut(pair, "=")
		if !slices.ContainsFunc(e.Rows, func(row reconcile.Row) bool { return row.Model == theirs }) {
			lines = append(lines, fmt.Sprintf("--map: the export has no model %s", printable(theirs)))
		}
	}
	return lines
}

// compare holds the charges against the export.
func (r *reconcileRun) compare(e *reconcile.Export, charged []billing.AnswerUsage) reconciled {
	found := reconciled{run: r, export: e, provenance: map[billing.Provenance]int64{}}
	var books []reconcile.Row
	for _, u := range charged {
		row := reconcile.Row{Day: u.Day, Model: u.Model, Figures: reconcile.Figures{
			Prompt: u.PromptTokens, Completion: u.CompletionTokens, Cached: u.CachedTokens, Requests: u.Requests,
		}}
		if u.Provenance != billing.Reported {
			row.Unreported = row.Figures
			found.provenance[u.Provenance] += u.Requests
		}
		books = append(books, row)
	}
	provider := reconcile.Rename(reconcile.Within(e.Rows, r.from, r.to), r.names)
	if !e.ByModel {
		provider, books = reconcile.WithoutModels(provider), reconcile.WithoutModels(books)
	}
	found.Report = reconcile.Compare(provider, books, e.Stated)
	return found
}
