package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

func newBlockKeyCommand(a *app) *cobra.Command {
	return a.gateCommand("block-key", "Keep a key out until it is let in again", `Keep a key out until unblock-key lets it in again. Its limits and figures stay as they
are. A running gateway refuses it within a second.`, (*billing.Admin).Block)
}

func newUnblockKeyCommand(a *app) *cobra.Command {
	return a.gateCommand("unblock-key", "Let a blocked key in again",
		"Let a blocked key in again. A running gateway follows within a second.", (*billing.Admin).Unblock)
}

func (a *app) gateCommand(name, short, long string, do func(*billing.Admin, context.Context, string) (billing.Key, error)) *cobra.Command {
	var ref string
	cmd := &cobra.Command{Use: name + " --key K", Short: short, Long: long}
	keyFlag(cmd, &ref)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "key"); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			k, err := do(books, ctx, ref)
			if errors.Is(err, billing.ErrRevokedKey) {
				return errors.New("the key is revoked, which cannot be undone: make a new one with create-key")
			}
			if err != nil {
				return keyError(err)
			}
			view := api.Blocked(k, a.now())
			if a.json {
				return a.printJSON(view)
			}
			facts := []pair{{"id", k.ID}, {"state", view.State}}
			if view.BlockedAt != nil {
				facts = append(facts, pair{"blocked", view.BlockedAt.Format(time.RFC3339)})
			}
			return a.printPairs(facts)
		})
	}
	return cmd
}
