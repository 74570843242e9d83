package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

func newSetModelsCommand(a *app) *cobra.Command {
	var ref string
	var models []string
	var all bool
	cmd := &cobra.Command{
		Use:   "set-models --key K --models a,b | --all",
		Short: "Change which models a key may use",
		Long: `Change which models a key may use: names, in which * stands for any text, also none.
Case counts. A running gateway applies them within a second.`,
		Example: `  llm-gateway set-models --key key_01jd5w4k6n7m8p9q0rst2v3x4y --models 'gpt-4o*,text-embedding-3-*'
  llm-gateway set-models --key key_01jd5w4k6n7m8p9q0rst2v3x4y --all`,
	}
	keyFlag(cmd, &ref)
	f := cmd.Flags()
	f.StringSliceVar(&models, "models", nil, "allowed models, separated by commas; * stands for any text")
	f.BoolVar(&all, "all", false, "allow all models")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "key"); err != nil {
			return err
		}
		if f.Changed("models") == all {
			return usagef("give --models, or --all, and not both")
		}
		models, err := checkModels(models)
		if err != nil {
			return err
		}
		if !all && len(models) == 0 {
			return usagef("--models: name at least one model, or use --all")
		}
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			before, after, err := books.SetModels(ctx, ref, models)
			if err != nil {
				return changeError(err)
			}
			if a.json {
				return a.printJSON(c.keyDefaults().Changed(before, after))
			}
			return a.printPairs([]pair{{"id", after.ID}, {"models", allOr(before.Models) + " -> " + allOr(after.Models)}})
		})
	}
	return cmd
}

func newSetKeyCommand(a *app) *cobra.Command {
	var ref, name, description, expires string
	cmd := &cobra.Command{
		Use:   "set-key --key K",
		Short: "Change the name, the description or the expiry of a key",
		Long: `Change the name, the description or the expiry of a key. An expired key can be given
a longer life; a revoked one cannot.`,
		Example: `  llm-gateway set-key --key key_01jd5w4k6n7m8p9q0rst2v3x4y --name "Team B" --expires 90d`,
	}
	keyFlag(cmd, &ref)
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "name; empty takes it away")
	f.StringVar(&description, "description", "", "description; empty takes it away")
	f.StringVar(&expires, "expires", "", "lifetime from now, a `duration` such as 12h or 30d, or never")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "key"); err != nil {
			return err
		}
		var change billing.KeyChange
		if err := checkWords(&name, &description); err != nil {
			return err
		}
		if f.Changed("name") {
			change.Name = &name
		}
		if f.Changed("description") {
			change.Description = &description
		}
		if f.Changed("expires") {
			at, err := a.expiry(expires)
			if err != nil {
				return err
			}
			change.ExpiresAt = &at
		}
		if change.Name == nil && change.Description == nil && change.ExpiresAt == nil {
			return usagef("give at least one of --name, --description, --expires")
		}
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			before, after, err := books.SetKey(ctx, ref, change)
			if err != nil {
				return changeError(err)
			}
			view := c.keyDefaults().Changed(before, after)
			if a.json {
				return a.printJSON(view)
			}
			facts := []pair{{"id", after.ID}}
			if change.Name != nil {
				facts = append(facts, pair{"name", quoted(before.Name) + " -> " + quoted(after.Name)})
			}
			if change.Description != nil {
				facts = append(facts, pair{"description", quoted(before.Description) + " -> " + quoted(after.Description)})
			}
			if change.ExpiresAt != nil {
				facts = append(facts, pair{"expires", shown(view.Old.ExpiresAt, "never") + " -> " + shown(view.New.ExpiresAt, "never")})
			}
			return a.printPairs(facts)
		})
	}
	return cmd
}

// expiry reads the text of --expires where "never" may take an expiry away: then
// it is the zero time.
func (a *app) expiry(text string) (time.Time, error) {
	if strings.TrimSpace(text) == "never" {
		return time.Time{}, nil
	}
	lifetime, err := parseLifetime(text)
	if err != nil {
		return time.Time{}, err
	}
	return a.now().UTC().Add(lifetime), nil
}

// quoted shows a text that may be empty.
func quoted(text string) string { return `"` + text + `"` }
