package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

func newHistoryCommand(a *app) *cobra.Command {
	var ref, tariff string
	var q billing.ChangeQuery
	limit := wholeNumber(100)
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List what operators changed, newest first",
		Long: `List what operators changed, newest first: when, who, the command, the key or tariff,
and what it was and is. Days are UTC, --from and --to inclusive.`,
		Example: `  llm-gateway history --key key_01jd5w4k6n7m8p9q0rst2v3x4y
  llm-gateway history --from 2026-11-01 --json | jq '.changes[] | select(.action == "set-limit")'`,
	}
	f := cmd.Flags()
	f.StringVar(&ref, "key", "", "only of this `key`: its id, or the key itself")
	f.StringVar(&tariff, "tariff", "", "only of the tariff of this `name`")
	f.StringVar(&q.From, "from", "", "first UTC `day`, such as 2026-11-01")
	f.StringVar(&q.To, "to", "", "last UTC `day`, such as 2026-11-30")
	f.Var(&limit, "limit", "at most so many, up to 1000")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case f.Changed("key") && ref == "":
			return usagef("option --key needs a key")
		case f.Changed("tariff") && strings.TrimSpace(tariff) == "":
			return usagef("option --tariff needs a name")
		case ref != "" && tariff != "":
			return usagef("give --key or --tariff, not both")
		case limit < 1 || limit > 1000:
			return usagef("--limit: write a number from 1 to 1000")
		}
		if err := checkDays(q.From, q.To); err != nil {
			return err
		}
		q.Limit, q.Subject = int(limit), strings.ToLower(strings.TrimSpace(tariff))
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			if ref != "" {
				k, err := books.Find(ctx, ref)
				if err != nil {
					return keyError(err)
				}
				q.Subject = k.ID
			}
			list, err := books.Changes(ctx, q)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"changes": api.Changes(list)})
			}
			return a.printHistory(list)
		})
	}
	return cmd
}

func (a *app) printHistory(list []billing.Change) error {
	if len(list) == 0 {
		a.message("nothing was changed in this time")
		return nil
	}
	g := grid{columns: []string{"at", "by", "command", "of", "change"}}
	for _, c := range list {
		g.rows = append(g.rows, []string{c.At.Format(time.RFC3339), c.Actor, c.Action, c.Subject, detailText(c.Detail)})
	}
	return a.printGrid(g)
}

// detailText writes what was changed for a person: daily 100 -> 200, rpm 3 -> none.
func detailText(detail json.RawMessage) string {
	var d struct {
		Before, After map[string]any
		NewKey        string `json:"new_key"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(detail)))
	decoder.UseNumber()
	if decoder.Decode(&d) != nil {
		return string(detail)
	}
	names := maps.Clone(d.Before)
	if names == nil {
		names = map[string]any{}
	}
	maps.Copy(names, d.After)
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := d.Before[name], d.After[name]
		switch {
		case d.Before == nil:
			parts = append(parts, name+" "+detailValue(is))
		case d.After == nil:
			parts = append(parts, name+" "+detailValue(was))
		default:
			parts = append(parts, name+" "+detailValue(was)+" -> "+detailValue(is))
		}
	}
	if d.NewKey != "" {
		parts = append(parts, "new key "+d.NewKey)
	}
	return strings.Join(parts, ", ")
}

func detailValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, fmt.Sprint(item))
		}
		return strings.Join(items, " ")
	}
	return fmt.Sprint(v)
}

// checkDays checks --from and --to.
func checkDays(from, to string) error {
	for name, day := range map[string]string{"from": from, "to": to} {
		if _, err := time.Parse(time.DateOnly, day); err != nil && day != "" {
			return usagef("--%s: write a day such as 2026-11-30", name)
		}
	}
	if from != "" && to != "" && from > to {
		return usagef("--from is after --to")
	}
	return nil
}
