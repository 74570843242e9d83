package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

func newSimulateTariffCommand(a *app) *cobra.Command {
	var file string
	var q billing.UsageQuery
	cmd := &cobra.Command{
		Use:   "simulate-tariff --file F",
		Short: "Reckon what the past would have cost at other prices",
		Long: `Reckon what the past would have cost at the prices of a file, by key and model. The
file is that of set-price --file; a price without valid_from counts from the
beginning. Each charge is priced by itself, exactly as it would have been, so that
the prices in force give what was charged to the last unit; what a gateway admitted
within the second that a new price needs to reach it has the price before. The books
stay as they are. Days are UTC, --from and --to inclusive.`,
		Example: "  llm-gateway simulate-tariff --file prices.yaml --from 2026-11-01 --to 2026-11-30",
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "YAML or JSON `file` with prices (required)")
	f.StringVar(&q.KeyRef, "key", "", "only this `key`: its id, or the key itself")
	f.StringVar(&q.From, "from", "", "first UTC `day`, such as 2026-11-01")
	f.StringVar(&q.To, "to", "", "last UTC `day`, such as 2026-11-30")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "file"); err != nil {
			return err
		}
		if f.Changed("key") && q.KeyRef == "" {
			return usagef("option --key needs a key")
		}
		if err := checkDays(q.From, q.To); err != nil {
			return err
		}
		list, err := readPrices(file)
		if err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			s, err := books.Simulate(ctx, list.prices, q)
			if err != nil {
				return keyError(err)
			}
			if a.json {
				return a.printJSON(s)
			}
			return a.printSimulation(s)
		})
	}
	return cmd
}

func (a *app) printSimulation(s billing.Simulation) error {
	if len(s.Rows) == 0 {
		a.message("nothing was used in this time")
		return nil
	}
	g := grid{
		columns: []string{"key", "model", "requests", "tokens", "charged", "simulated", "difference", "without price"},
		numeric: []string{"requests", "tokens", "charged", "simulated", "difference", "without price"},
	}
	cells := func(key, model string, r *billing.SimulatedRow) []string {
		return []string{
			key, model, thousands(r.Requests), thousands(r.TotalTokens), r.Charged.String(), r.Simulated.String(),
			r.Difference.String(), thousands(r.UnpricedRequests),
		}
	}
	for i := range s.Rows {
		g.rows = append(g.rows, cells(s.Rows[i].KeyID, s.Rows[i].Model, &s.Rows[i]))
	}
	g.total = cells("total", "", &s.Total)
	return a.printGrid(g)
}
