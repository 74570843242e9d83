package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

func newAuditCommand(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that the books balance",
		Long: `Prove that the books balance: for every key and day the used tokens are the sum of
its charges, and the held tokens the sum of its open holds, money likewise; each
charge costs what its tokens cost at its price; and none was changed, removed or
added after it was written, which a chain of hashes shows. What does not balance is
named, and the exit code is 1. A running gateway is not disturbed.

--checkpoint keeps the ends of the chains in a file, and proves that those of the
last audit are still there: who can change the database can take charges off the end
of a chain, and is found out by a file that he cannot change.`,
	}
	cmd.Flags().StringVar(&path, "checkpoint", "", "`file` with the ends of the chains; read where it is there, written when the books balance")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			var known checkpoint
			if path != "" {
				var err error
				if known, err = readCheckpoint(path); err != nil {
					return err
				}
			}
			report, err := books.Audit(ctx, known.Chains...)
			if err != nil {
				return fmt.Errorf("audit the books: %w", err)
			}
			if err := a.printAudit(report); err != nil {
				return err
			}
			if !report.Balanced {
				return fmt.Errorf("the books do not balance, problems: %d", len(report.Problems))
			}
			if path != "" {
				return writeCheckpoint(path, checkpoint{Chains: report.Chains})
			}
			return nil
		})
	}
	return cmd
}

func (a *app) printAudit(r billing.AuditReport) error {
	if a.json {
		if r.Problems == nil {
			r.Problems = []string{} // a list in every case, for those who count it
		}
		return a.printJSON(r)
	}
	for _, p := range r.Problems {
		if err := a.printf("%s\n", printable(p)); err != nil {
			return err
		}
	}
	verdict := "balanced"
	if !r.Balanced {
		verdict = "not balanced"
	}
	return a.printf("%s: %s keys, %s charges, %s open holds\n", verdict,
		thousands(r.Keys), thousands(r.Charges), thousands(r.OpenHolds))
}
