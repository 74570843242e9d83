package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

func newRebuildCountersCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild-counters",
		Short: "Count all accounts again from the charges",
		Long: `Count what every key used and holds, by day, again from the charges and the open
holds, and correct the accounts that differ. In books that balance nothing changes.
With SQLite no gateway may use the data meanwhile; with PostgreSQL gateways wait.`,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			r, err := books.Rebuild(ctx)
			if errors.Is(err, billing.ErrInUse) {
				return errors.New("a gateway uses this data and decides by the counters in its memory: stop it first")
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r)
			}
			for _, c := range r.Corrected {
				if err := a.printf("%s\n", printable(c)); err != nil {
					return err
				}
			}
			return a.printf("%s accounts counted, corrections: %s\n", thousands(r.Accounts), thousands(int64(len(r.Corrected))))
		})
	}
	return cmd
}
