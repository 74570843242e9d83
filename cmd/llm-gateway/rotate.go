package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

// defaultOverlap is how long both keys are valid where nothing else is said: a
// day is enough to hand a key out.
const defaultOverlap = "24h"

func newRotateKeyCommand(a *app) *cobra.Command {
	var ref, text string
	cmd := &cobra.Command{
		Use:   "rotate-key --key K",
		Short: "Replace a key by a new one and print it, once",
		Long: `Make a key with the name, limits, models and expiry of another, print it, and let
the old one expire after the overlap. Until then both are valid. The new key has an
id of its own, and its budgets start unused. A running gateway follows within a second.`,
		Example: `  llm-gateway rotate-key --key key_01jd5w4k6n7m8p9q0rst2v3x4y
  llm-gateway rotate-key --key key_01jd5w4k6n7m8p9q0rst2v3x4y --overlap 0s --json | jq -r .key`,
	}
	keyFlag(cmd, &ref)
	cmd.Flags().StringVar(&text, "overlap", defaultOverlap, "how long the old key stays valid: a `duration`, such as 0s, 12h or 7d")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "key"); err != nil {
			return err
		}
		overlap, err := parseOverlap(text)
		if err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			r, err := books.Rotate(ctx, ref, overlap)
			switch {
			case errors.Is(err, billing.ErrRevokedKey):
				return errors.New("the key is revoked: make a new one with create-key")
			case errors.Is(err, billing.ErrExpiredKey):
				return errors.New("the key has expired: make a new one with create-key")
			case errors.Is(err, billing.ErrBlockedKey):
				return errors.New("the key is blocked: let it in with unblock-key first")
			case err != nil:
				return keyError(err)
			}
			return a.printRotated(c, r)
		})
	}
	return cmd
}

// parseOverlap reads the text of --overlap: as of --expires, and 0 for "at once".
func parseOverlap(text string) (time.Duration, error) {
	if slices.Contains([]string{"0", "0s", "0m", "0h", "0d"}, text) {
		return 0, nil
	}
	overlap, err := parseLifetime(text)
	if err != nil {
		return 0, usagef("--overlap: write a duration such as 0s, 12h, 7d or 1d12h, of at most %d days", maxLifetimeDays)
	}
	return overlap, nil
}

func (a *app) printRotated(c Config, r billing.Rotation) error {
	if a.json {
		return a.printJSON(c.keyDefaults().Rotated(r))
	}
	if err := a.printCreated(c, r.New, r.Secret); err != nil {
		return err
	}
	return a.printPairs([]pair{{"replaces", r.Old.ID + ", which is valid until " + r.Old.ExpiresAt.Format(time.RFC3339)}})
}
