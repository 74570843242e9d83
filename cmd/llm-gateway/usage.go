package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

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
	f.StringSliceVar(&q.By, "by", api.UsageColumns(), "columns to sum up by: day, key, model")
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
				return a.printJSON(api.Usage(t, q.By))
			case asCSV:
				if err := api.WriteUsageCSV(a.stdout, t, q.By); err != nil {
					return fmt.Errorf("write the result: %w", err)
				}
				return nil
			}
			return a.printUsage(t, q.By)
		})
	}
	return cmd
}

func checkUsageQuery(q *billing.UsageQuery) error {
	var by []string
	for _, column := range api.UsageColumns() {
		if slices.ContainsFunc(q.By, func(s string) bool { return strings.TrimSpace(s) == column }) {
			by = append(by, column)
		}
	}
	if len(by) == 0 || len(by) != len(q.By) {
		return usagef("--by: write one or more of day, key, model, separated by commas")
	}
	q.By = by
	return checkDays(q.From, q.To)
}

func (a *app) printUsage(t billing.UsageTable, by []string) error {
	if len(t.Rows) == 0 {
		a.message("nothing was used in this time")
		return nil
	}
	numbers := []string{"prompt", "completion", "total", "requests"}
	money := t.Total.Cost > 0
	if money {
		numbers = append(numbers, "cost", "without price")
	}
	g := grid{columns: slices.Concat(by, numbers, []string{"provenance"}), numeric: numbers}
	for _, r := range t.Rows {
		g.rows = append(g.rows, usageCells(&r, api.UsageLabels(&r, by), money))
	}
	first := make([]string, len(by))
	first[0] = "total"
	g.total = usageCells(&t.Total, first, money)
	return a.printGrid(g)
}

// usageCells are a row; money says that anything cost any.
func usageCells(r *billing.UsageRow, first []string, money bool) []string {
	var origins []string
	for _, from := range api.Provenances() {
		if n := r.Provenance[from].Requests; n > 0 {
			origins = append(origins, fmt.Sprintf("%s %s", thousands(n), from))
		}
	}
	cells := append(first, thousands(r.PromptTokens), thousands(r.CompletionTokens), thousands(r.TotalTokens), thousands(r.Requests))
	if money {
		cells = append(cells, r.Cost.String(), thousands(r.UnpricedRequests))
	}
	return append(cells, strings.Join(origins, ", "))
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
				return a.printJSON(api.Stats(keys))
			}
			return a.printStats(keys)
		})
	}
	return cmd
}

func (a *app) printStats(keys []api.KeyView) error {
	stats := api.Stats(keys)
	return a.printPairs(statsPairs(&stats))
}
