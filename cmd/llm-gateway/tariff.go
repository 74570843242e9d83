package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

func newListTariffsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "list-tariffs", Short: "List the tariffs that keys can have, smallest first"}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			list, err := books.Tariffs(ctx)
			if err != nil {
				return err
			}
			named := api.NamedTariffs(list)
			if a.json {
				return a.printJSON(map[string]any{"tariffs": named})
			}
			if len(named) == 0 {
				a.message("no tariffs: llm-gateway set-tariff --name basic --limit 10000")
				return nil
			}
			numbers := append(slices.Clone(limitNames()), "keys")
			g := grid{columns: slices.Concat([]string{"name"}, numbers, []string{"description"}), numeric: numbers}
			for i := range named {
				g.rows = append(g.rows, tariffCells(&named[i]))
			}
			return a.printGrid(g)
		})
	}
	return cmd
}

func tariffCells(t *api.NamedTariff) []string {
	cells := []string{t.Name, thousands(t.Limit)}
	for _, n := range []*int64{t.Daily, t.Monthly, t.RPM, t.TPM, t.Concurrent} {
		cells = append(cells, numberOr(valueOf(n), ""))
	}
	return append(cells, textOr(t.Budget, ""), thousands(t.Keys), t.Description)
}

func valueOf(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func newSetTariffCommand(a *app) *cobra.Command {
	var name, description string
	var limits limitOptions
	cmd := &cobra.Command{
		Use:   "set-tariff --name N",
		Short: "Make a tariff, or change one for all its keys",
		Long: `Make a tariff, or change what is given of one. A new one needs --limit. Running
gateways apply it to all keys that have it within a second. Limits that a tariff does
not have are the gateway's; limits of a key's own win over those of its tariff.`,
		Example: `  llm-gateway set-tariff --name team --limit 500000 --rpm 120 --budget 25.00
  llm-gateway set-tariff --name team --clear rpm`,
	}
	may := slices.DeleteFunc(limitNames(), func(name string) bool { return name == "limit" }) // a tariff always has it
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "`name` of the tariff: letters, digits and hyphens; case does not count (required)")
	limits.add(f)
	limits.addClear(f, may)
	f.StringVar(&description, "description", "", "description")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "name"); err != nil {
			return err
		}
		if !limits.given() && !f.Changed("description") {
			return usagef("give at least one of --%s, --description, --clear", strings.Join(limitNames(), ", --"))
		}
		var change billing.TariffChange
		var err error
		if change.Limits, err = limits.change(may); err != nil {
			return err
		}
		if f.Changed("description") {
			if err := checkWords(&description); err != nil {
				return err
			}
			change.Description = &description
		}
		return a.withBooks(cmd, true, func(ctx context.Context, _ Config, books *billing.Admin) error {
			before, after, err := books.SetTariff(ctx, name, change)
			if errors.Is(err, billing.ErrInvalid) {
				return usageError(err)
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(api.TariffChanged(before, after))
			}
			return a.printTariff(before, after)
		})
	}
	return cmd
}

func (a *app) printTariff(before *billing.Tariff, after billing.Tariff) error {
	now := api.TariffOf(&after)
	facts := []pair{{"name", now.Name}}
	var old api.TariffView
	if before != nil {
		old = api.TariffOf(before)
	} else {
		facts = append(facts, pair{"state", "new"})
	}
	for _, step := range []struct {
		name     string
		old, now *int64
	}{
		{"limit", &old.Limit, &now.Limit},
		{"daily", old.Daily, now.Daily},
		{"monthly", old.Monthly, now.Monthly},
		{"rpm", old.RPM, now.RPM},
		{"tpm", old.TPM, now.TPM},
		{"concurrent", old.Concurrent, now.Concurrent},
	} {
		switch was, is := valueOf(step.old), valueOf(step.now); {
		case was == is:
		case before == nil:
			facts = append(facts, pair{step.name, thousands(is)})
		default:
			facts = append(facts, pair{step.name, limitStep(was, is)})
		}
	}
	if textOr(old.Budget, "") != textOr(now.Budget, "") {
		facts = append(facts, pair{"budget", textStep(old.Budget, now.Budget, "none")})
	}
	if old.Description != now.Description {
		facts = append(facts, pair{"description", now.Description})
	}
	return a.printPairs(facts)
}

func newRemoveTariffCommand(a *app) *cobra.Command {
	var name string
	var force bool
	cmd := &cobra.Command{
		Use:   "remove-tariff --name N",
		Short: "Remove a tariff that no key has",
		Long:  "Remove a tariff that no key has. Revoked keys do not count.",
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of the tariff (required)")
	cmd.Flags().BoolVar(&force, "force", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "name"); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			if !force && !a.yes(fmt.Sprintf("Remove the tariff %q?", printable(strings.TrimSpace(name)))) {
				return errors.New("nothing was removed: answer yes, or use --force")
			}
			t, err := books.RemoveTariff(ctx, name)
			var used *billing.TariffInUseError
			if errors.As(err, &used) {
				return fmt.Errorf("keys that have this tariff: %s; give them another one with set-limit --tariff first", thousands(used.Keys))
			}
			if err != nil {
				return changeError(err)
			}
			if a.json {
				return a.printJSON(api.TariffOf(&t))
			}
			return a.printPairs([]pair{{"name", t.Name}, {"state", "removed"}})
		})
	}
	return cmd
}
