package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

func newCreateKeyCommand(a *app) *cobra.Command {
	var n billing.NewKey
	var limits limitOptions
	var expires string
	cmd := &cobra.Command{
		Use:   "create-key --limit N | --tariff NAME",
		Short: "Create a key and print it, once",
		Long: `Create a key and print it. The books keep a digest only: the key cannot be shown
again. A running gateway accepts it within a second.

The key has the limits of the named tariff (list-tariffs), and limits of its own, which
win; at least --limit or --tariff must be given.`,
		Example: `  llm-gateway create-key --limit 100000 --name "Team A" --expires 30d
  llm-gateway create-key --tariff premium --models 'gpt-4o*,text-embedding-3-*'
  llm-gateway create-key --limit 100000 --json | jq -r .key`,
	}
	f := cmd.Flags()
	limits.add(f)
	f.StringVar(&n.Plan, "tariff", "", "`name` of a tariff")
	f.StringVar(&n.Name, "name", "", "name")
	f.StringVar(&n.Description, "description", "", "description")
	f.StringVar(&expires, "expires", "", "lifetime `duration`, such as 12h or 30d (default: for ever)")
	f.StringSliceVar(&n.Models, "models", nil, "allowed models, separated by commas; * stands for any text (default: all)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !f.Changed("limit") && strings.TrimSpace(n.Plan) == "" {
			return usagef("option --limit or --tariff is required")
		}
		if err := limits.check(); err != nil {
			return err
		}
		n.Limits = billing.Limits{
			Tariff: int64(limits.limit), Daily: int64(limits.daily), Monthly: int64(limits.monthly), Money: int64(limits.budget),
		}
		n.RPM, n.TPM, n.Concurrent = int64(limits.rpm), int64(limits.tpm), int64(limits.concurrent)
		if err := describe(&n); err != nil {
			return err
		}
		if f.Changed("expires") {
			lifetime, err := parseLifetime(expires)
			if err != nil {
				return err
			}
			n.ExpiresAt = a.now().UTC().Add(lifetime)
		}
		return a.withBooks(cmd, true, func(ctx context.Context, c Config, books *billing.Admin) error {
			k, secret, err := books.CreateKey(ctx, n)
			if err != nil {
				return changeError(err)
			}
			return a.printCreated(c, k, secret)
		})
	}
	return cmd
}

func (a *app) printCreated(c Config, k billing.Key, secret string) error {
	created := c.keyDefaults().Created(k, secret)
	if a.json {
		return a.printJSON(created)
	}
	if err := a.printf("%s\n\n", secret); err != nil {
		return err
	}
	facts := []pair{
		{"id", k.ID},
		{"name", k.Name},
		{"tariff", textOr(created.Tariff, "")},
		{"limit", thousands(created.Limit) + " tokens per month"},
		{"daily", thousands(created.Daily) + " tokens per day"},
		{"monthly", thousands(created.Monthly) + " tokens per month"},
		{"budget", budgetText(created.Budget)},
		{"requests", requestRate(created.RPM, c)},
		{"tokens", tokenRate(created.TPM, c)},
		{"at once", atOnce(created.Concurrent, c)},
		{"models", allOr(created.Models)},
		{"expires", shown(created.ExpiresAt, "never")},
	}
	if err := a.printPairs(slices.DeleteFunc(facts, func(p pair) bool { return p.value == "" })); err != nil {
		return err
	}
	a.message("this is the only time that the key is shown")
	return nil
}

func newListKeysCommand(a *app) *cobra.Command {
	var stats, verbose bool
	cmd := &cobra.Command{Use: "list-keys", Short: "List the keys, largest limit first"}
	cmd.Flags().BoolVar(&stats, "stats", false, "add the sums over all keys")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "more about each key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			keys, err := a.keyViews(ctx, c, books)
			if err != nil {
				return err
			}
			switch {
			case a.json && stats:
				return a.printJSON(map[string]any{"keys": keys, "stats": api.Stats(keys)})
			case a.json:
				return a.printJSON(map[string]any{"keys": keys})
			case len(keys) == 0:
				a.message("no keys yet: llm-gateway create-key --limit 100000")
				return nil
			}
			if err := a.printKeys(keys, c, verbose); err != nil || !stats {
				return err
			}
			if err := a.printf("\n"); err != nil {
				return err
			}
			return a.printStats(keys)
		})
	}
	return cmd
}

// keyViews reads all keys, largest limit first, then oldest first.
func (a *app) keyViews(ctx context.Context, c Config, books *billing.Admin) ([]api.KeyView, error) {
	keys, err := books.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	views := make([]api.KeyView, 0, len(keys))
	defaults, now := c.keyDefaults(), a.now()
	for i := range keys {
		views = append(views, defaults.Key(&keys[i], now))
	}
	slices.SortStableFunc(views, func(x, y api.KeyView) int {
		return cmp.Or(cmp.Compare(y.Limit, x.Limit), cmp.Compare(x.ID, y.ID))
	})
	return views, nil
}

func (a *app) printKeys(keys []api.KeyView, c Config, verbose bool) error {
	g := grid{
		columns: []string{"id", "key", "name", "state", "tariff", "limit", "daily", "monthly", "used today", "used month"},
		numeric: []string{"limit", "daily", "monthly", "used today", "used month", "held", "budget"},
	}
	if verbose {
		g.columns = append(g.columns, "held", "budget", "requests", "models", "created", "last used", "expires", "description")
	}
	for _, k := range keys {
		row := []string{
			k.ID, k.Display, k.Name, k.State, textOr(k.Tariff, ""), thousands(k.Limit), thousands(k.Daily), thousands(k.Monthly),
			thousands(k.UsedToday), thousands(k.UsedMonth),
		}
		if verbose {
			row = append(row, thousands(k.Held), textOr(k.Budget, ""), requestRate(k.RPM, c), allOr(k.Models),
				shown(k.CreatedAt, ""), shown(k.LastUsedAt, "never"), shown(k.ExpiresAt, "never"), k.Description)
		}
		g.rows = append(g.rows, row)
	}
	return a.printGrid(g)
}

func newShowKeyCommand(a *app) *cobra.Command {
	var ref string
	cmd := &cobra.Command{Use: "show-key --key K", Short: "Show one key with its limits and usage"}
	keyFlag(cmd, &ref)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "key"); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			k, err := books.Find(ctx, ref)
			if err != nil {
				return keyError(err)
			}
			all, err := a.keyViews(ctx, c, books)
			if err != nil {
				return err
			}
			at := slices.IndexFunc(all, func(v api.KeyView) bool { return v.ID == k.ID })
			if at < 0 {
				return keyError(billing.ErrUnknownKey)
			}
			if a.json {
				return a.printJSON(all[at])
			}
			return a.printPairs(keyPairs(&all[at], c))
		})
	}
	return cmd
}

func newRevokeKeyCommand(a *app) *cobra.Command {
	var ref string
	var force bool
	cmd := &cobra.Command{
		Use:   "revoke-key --key K",
		Short: "Revoke a key for good",
		Long: `Revoke a key for good. A running gateway refuses it within a second, also when it
is listed in ALLOWED_API_KEYS.`,
	}
	keyFlag(cmd, &ref)
	cmd.Flags().BoolVar(&force, "force", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "key"); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, c Config, books *billing.Admin) error {
			k, err := books.Find(ctx, ref)
			if err != nil {
				return keyError(err)
			}
			if !force && !a.confirmed(k, c) {
				return fmt.Errorf("nothing was revoked: answer yes, or use --force")
			}
			if k, err = books.Revoke(ctx, k.ID); err != nil {
				return keyError(err)
			}
			if a.json {
				return a.printJSON(api.Revoked(k))
			}
			return a.printPairs([]pair{{"id", k.ID}, {"state", api.StateRevoked}})
		})
	}
	return cmd
}

func (a *app) confirmed(k billing.Key, c Config) bool {
	return a.yes(fmt.Sprintf("Revoke %s, %q, %s tokens per month? It cannot be undone.", k.ID, k.Name, thousands(c.keyDefaults().Limits(k).Limit)))
}

// yes asks on stderr and reads one line of stdin; only "yes" is a yes.
func (a *app) yes(question string) bool {
	_, _ = fmt.Fprintf(a.stderr, "%s Type yes: ", question)
	answer, _ := bufio.NewReader(io.LimitReader(a.stdin, 1<<10)).ReadString('\n') // a missing answer is a no
	_, _ = fmt.Fprintln(a.stderr)
	return strings.EqualFold(strings.TrimSpace(answer), "yes")
}

func keyFlag(cmd *cobra.Command, ref *string) {
	cmd.Flags().StringVar(ref, "key", "", "id of the `key`, or the key itself (required)")
}

func requireFlags(f *pflag.FlagSet, names ...string) error {
	for _, name := range names {
		if value := f.Lookup(name); !value.Changed || value.Value.String() == "" {
			return usagef("option --%s is required", name)
		}
	}
	return nil
}

// maxWords bounds names and descriptions, in bytes, so that lists stay readable.
const maxWords = 500

// describe trims and checks the texts of a new key.
func describe(n *billing.NewKey) error {
	if err := checkWords(&n.Name, &n.Description); err != nil {
		return err
	}
	models, err := checkModels(n.Models)
	n.Models = models
	return err
}

// checkWords trims and checks names and descriptions.
func checkWords(texts ...*string) error {
	for _, t := range texts {
		if *t = strings.TrimSpace(*t); len(*t) > maxWords || printable(*t) != *t {
			return usagef("name and description are at most %d bytes without control characters", maxWords)
		}
	}
	return nil
}

// checkModels trims and checks the patterns of --models.
func checkModels(given []string) (models []string, err error) {
	for _, m := range given {
		if m = strings.TrimSpace(m); m != "" {
			models = append(models, m)
		}
		if len(m) > 256 || printable(m) != m {
			return nil, usagef("a model of --models is at most 256 bytes without control characters")
		}
	}
	if len(given) > 0 && len(models) == 0 {
		return nil, usagef("--models: name at least one model, or leave it out to allow all")
	}
	return models, nil
}
