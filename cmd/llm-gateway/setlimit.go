package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

// noTariff is what --tariff says to take a tariff away.
const noTariff = "none"

func newSetLimitCommand(a *app) *cobra.Command {
	var ref, tariff string
	var limits limitOptions
	cmd := &cobra.Command{
		Use:   "set-limit --key K",
		Short: "Change limits or the tariff of a key",
		Long: `Change limits or the tariff of a key. A running gateway applies them within a second.

With --tariff the key has the limits of a named tariff (list-tariffs) where it has
none of its own; its own --limit is taken away, unless one is given in the same call.
--tariff none takes the tariff away. --clear takes limits of the key's own away: then
those of its tariff apply, else the gateway's.`,
		Example: `  llm-gateway set-limit --key key_01jd5w4k6n7m8p9q0rst2v3x4y --daily 20000 --budget 25.00
  llm-gateway set-limit --key key_01jd5w4k6n7m8p9q0rst2v3x4y --tariff premium --clear daily,rpm`,
	}
	keyFlag(cmd, &ref)
	f := cmd.Flags()
	limits.add(f)
	limits.addClear(f, limitNames())
	f.StringVar(&tariff, "tariff", "", "`name` of a tariff, or none")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "key"); err != nil {
			return err
		}
		if !limits.given() && !f.Changed("tariff") {
			return usagef("give at least one of --%s, --tariff, --clear", strings.Join(limitNames(), ", --"))
		}
		change, err := limits.change(limitNames())
		if err != nil {
			return err
		}
		if f.Changed("tariff") {
			if strings.TrimSpace(tariff) == "" {
				return usagef("option --tariff needs a name, or %s", noTariff)
			}
			change.Plan = planOf(tariff)
		}
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			before, after, err := books.SetLimits(ctx, ref, change)
			if err != nil {
				return changeError(err)
			}
			view := c.keyDefaults().Changed(before, after)
			if a.json {
				return a.printJSON(view)
			}
			return a.printPairs(append([]pair{{"id", after.ID}}, limitSteps(&view, &limits, change.Plan != nil)...))
		})
	}
	return cmd
}

// planOf is what the books are asked for by --tariff.
func planOf(text string) *string {
	if strings.EqualFold(strings.TrimSpace(text), noTariff) {
		text = ""
	}
	return &text
}

func limitSteps(v *api.ChangedKey, l *limitOptions, tariff bool) []pair {
	old, now := &v.Old, &v.New
	var facts []pair
	if tariff {
		facts = append(facts, pair{"tariff", textStep(old.Tariff, now.Tariff, noTariff)})
	}
	for _, step := range []struct {
		name     string
		old, now int64
	}{
		{"limit", old.Limit, now.Limit},
		{"daily", old.Daily, now.Daily},
		{"monthly", old.Monthly, now.Monthly},
		{"rpm", old.RPM, now.RPM},
		{"tpm", old.TPM, now.TPM},
		{"concurrent", old.Concurrent, now.Concurrent},
	} {
		if l.touched(step.name) || tariff && step.old != step.now {
			facts = append(facts, pair{step.name, limitStep(step.old, step.now)})
		}
	}
	if l.touched("budget") || tariff && textOr(old.Budget, "") != textOr(now.Budget, "") {
		facts = append(facts, pair{"budget", textStep(old.Budget, now.Budget, "none")})
	}
	return facts
}

// changeError says what to do about a change that was refused.
func changeError(err error) error {
	var unknown *billing.UnknownTariffError
	switch {
	case errors.As(err, &unknown) && len(unknown.Known) == 0:
		return errors.New("no such tariff, and there is none: make one with set-tariff")
	case errors.As(err, &unknown):
		return errors.New("no such tariff: there are " + strings.Join(unknown.Known, ", "))
	case errors.Is(err, billing.ErrRevokedKey):
		return errors.New("the key is revoked, which cannot be undone: make a new one with create-key")
	}
	return keyError(err)
}
