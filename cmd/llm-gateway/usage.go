package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

// usageColumns are what usage can be grouped by, in the order they are shown.
func usageColumns() []string { return []string{"day", "key", "model"} }

// provenances are where a count can come from, in the order they are shown.
func provenances() []billing.Provenance {
	return []billing.Provenance{"reported", "estimated", "aborted", "recovered", "expired"}
}

func newUsageCommand(a *app) *cobra.Command {
	var q billing.UsageQuery
	var asCSV bool
	cmd := &cobra.Command{
		Use:   "usage",
		Short: "Report used tokens by day, key and model",
		Long: `Report used tokens. Days are UTC, --from and --to inclusive. Provenance tells where
the counts come from: reported by the upstream, estimated, aborted (the answer
ended early), recovered (after a crash), expired (never sent, 0 tokens).

In CSV a model name that a spreadsheet would take for a formula is written with a
leading apostrophe.`,
		Example: `  llm-gateway usage --from 2026-11-01 --to 2026-11-30 --by key
  llm-gateway usage --by day,model --csv > usage.csv`,
	}
	f := cmd.Flags()
	f.StringVar(&q.KeyRef, "key", "", "only this `key`: its id, or the key itself")
	f.StringVar(&q.From, "from", "", "first UTC `day`, such as 2026-11-01")
	f.StringVar(&q.To, "to", "", "last UTC `day`, such as 2026-11-30")
	f.StringSliceVar(&q.By, "by", usageColumns(), "columns to sum up by: day, key, model")
	f.BoolVar(&asCSV, "csv", false, "print CSV")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if asCSV && a.json {
			return usagef("--csv and --json are two forms: choose one")
		}
		if f.Changed("key") && q.KeyRef == "" {
			return usagef("option --key needs a key")
		}
		if err := checkUsageQuery(&q); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			t, err := books.Usage(ctx, q)
			if err != nil {
				return keyError(err)
			}
			switch {
			case a.json:
				return a.printUsageJSON(t, q.By)
			case asCSV:
				return a.printUsageCSV(t, q.By)
			}
			return a.printUsage(t, q.By)
		})
	}
	return cmd
}

func checkUsageQuery(q *billing.UsageQuery) error {
	var by []string
	for _, column := range usageColumns() {
		if slices.ContainsFunc(q.By, func(s string) bool { return strings.TrimSpace(s) == column }) {
			by = append(by, column)
		}
	}
	if len(by) == 0 || len(by) != len(q.By) {
		return usagef("--by: write one or more of day, key, model, separated by commas")
	}
	q.By = by
	for name, day := range map[string]string{"from": q.From, "to": q.To} {
		if _, err := time.Parse(time.DateOnly, day); err != nil && day != "" {
			return usagef("--%s: write a day such as 2026-11-30", name)
		}
	}
	if q.From != "" && q.To != "" && q.From > q.To {
		return usagef("--from is after --to")
	}
	return nil
}

func (a *app) printUsageJSON(t billing.UsageTable, by []string) error {
	return a.printJSON(api.ViewUsage(t, by))
}

func (a *app) printUsage(t billing.UsageTable, by []string) error {
	if len(t.Rows) == 0 {
		a.message("nothing was used in this time")
		return nil
	}
	numbers := []string{"prompt", "completion", "total", "requests"}
	g := grid{columns: slices.Concat(by, numbers, []string{"provenance"}), numeric: numbers}
	for _, r := range t.Rows {
		g.rows = append(g.rows, usageCells(r, labels(r, by)))
	}
	first := make([]string, len(by))
	first[0] = "total"
	g.total = usageCells(t.Total, first)
	return a.printGrid(g)
}

func labels(r billing.UsageRow, by []string) []string {
	cells := make([]string, 0, len(by))
	for _, column := range by {
		switch column {
		case "day":
			cells = append(cells, r.Day)
		case "key":
			cells = append(cells, r.KeyID)
		case "model":
			cells = append(cells, r.Model)
		}
	}
	return cells
}

func usageCells(r billing.UsageRow, first []string) []string {
	var origins []string
	for _, from := range provenances() {
		if n := r.Provenance[from].Requests; n > 0 {
			origins = append(origins, fmt.Sprintf("%s %s", thousands(n), from))
		}
	}
	return append(first, thousands(r.PromptTokens), thousands(r.CompletionTokens), thousands(r.TotalTokens),
		thousands(r.Requests), strings.Join(origins, ", "))
}

func (a *app) printUsageCSV(t billing.UsageTable, by []string) error {
	w := csv.NewWriter(a.stdout)
	header := make([]string, 0, 12)
	for _, column := range by {
		if column == "key" {
			column = "key_id"
		}
		header = append(header, column)
	}
	header = append(header, "prompt_tokens", "completion_tokens", "total_tokens", "requests")
	for _, from := range provenances() {
		header = append(header, string(from))
	}
	errs := []error{w.Write(header)}
	for _, r := range t.Rows {
		record := labels(r, by)
		for i := range record {
			record[i] = csvText(record[i])
		}
		for _, n := range []int64{r.PromptTokens, r.CompletionTokens, r.TotalTokens, r.Requests} {
			record = append(record, strconv.FormatInt(n, 10))
		}
		for _, from := range provenances() {
			record = append(record, strconv.FormatInt(r.Provenance[from].Requests, 10))
		}
		errs = append(errs, w.Write(record))
	}
	w.Flush()
	if err := errors.Join(append(errs, w.Error())...); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// csvText keeps a client's model name from being run as a formula by whoever
// opens the report in a spreadsheet.
func csvText(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

func newStatsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "stats", Short: "Sum up all keys"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			keys, err := a.keyViews(ctx, c, books)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(api.ViewStats(keys))
			}
			return a.printPairs(statsPairs(api.ViewStats(keys)))
		})
	}
	return cmd
}
