package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

func newListPricesCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "list-prices",
		Short: "List the prices in force and to come",
		Long: `List the prices in force and to come, in units of the books' currency for a million
tokens. Of the patterns that match a model the most exact one decides. A kind of
token without a price of its own costs as input, or as output.`,
	}
	cmd.Flags().BoolVar(&all, "all", false, "also prices that are over")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			l, err := books.Prices(ctx)
			if err != nil {
				return err
			}
			v := api.Prices(l, a.now(), all)
			switch {
			case a.json:
				return a.printJSON(v)
			case len(v.Prices) == 0:
				a.message("no prices yet: llm-gateway set-price --model 'gpt-4o*' --input 2.50 --output 10")
				return nil
			}
			return a.printPrices(v)
		})
	}
	return cmd
}

func (a *app) printPrices(v api.PriceListView) error {
	rates := billing.Kinds()
	g := grid{columns: []string{"id", "model", "from", "state"}}
	for _, kind := range rates {
		g.columns = append(g.columns, strings.ReplaceAll(kind, "_", " "))
	}
	g.numeric = g.columns[4:]
	for i := range v.Prices {
		p := &v.Prices[i]
		row := []string{fmt.Sprint(p.ID), p.Model, shown(p.ValidFrom, ""), strings.ReplaceAll(p.State, "_", " ")}
		for _, rate := range []*string{p.Input, p.CachedRead, p.CacheWrite, p.Output, p.Reasoning, p.AudioInput, p.AudioOutput} {
			row = append(row, *cmp.Or(rate, new(string)))
		}
		if p.Ends {
			row[4] = "none"
		}
		g.rows = append(g.rows, row)
	}
	if v.Currency != nil {
		a.message(*v.Currency + " for a million tokens")
	}
	return a.printGrid(g)
}

func newSetPriceCommand(a *app) *cobra.Command {
	var file, model, from, currency string
	var none bool
	cmd := &cobra.Command{
		Use:   "set-price --model M --input N --output N",
		Short: "Add a price, or all of a file",
		Long: `Add a price for a million tokens, or all prices of a YAML or JSON file; all of them
or none. A price is never changed: a new one takes its place from --valid-from on, and
what was charged stays as it is. A running gateway uses it within a second.

--model is a name or a pattern in which * stands for any text; of the patterns that
match, the most exact one decides. Kinds of token without a price of their own cost
as input (cached-read, cache-write, audio-input) or as output (reasoning,
audio-output).`,
		Example: `  llm-gateway set-price --model 'gpt-4o*' --input 2.50 --cached-read 1.25 --output 10
  llm-gateway set-price --model 'gpt-4o*' --none --valid-from 2027-01-01
  llm-gateway set-price --file prices.yaml`,
	}
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "YAML or JSON `file` with currency and prices")
	f.StringVar(&model, "model", "", "`model`, or a pattern with *")
	for _, kind := range billing.Kinds() {
		f.String(priceFlag(kind), "", "`price` of a million "+strings.ReplaceAll(kind, "_", " ")+" tokens")
	}
	f.BoolVar(&none, "none", false, "no price any more")
	f.StringVar(&from, "valid-from", "", "UTC `day` such as 2026-12-01, or a time (RFC 3339) (default: now)")
	f.StringVar(&currency, "currency", "", "`code` such as USD (default: the books', at first USD)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list, err := pricesOf(f, file, model, from, none)
		if err != nil {
			return err
		}
		if f.Changed("currency") {
			list.currency = currency
		}
		return a.withBooks(cmd, true, func(ctx context.Context, _ Config, books *billing.Admin) error {
			in, added, err := books.AddPrices(ctx, list.currency, list.prices)
			if err != nil {
				return err
			}
			v := api.AddedPrices(in, added, a.now())
			if a.json {
				return a.printJSON(v)
			}
			if len(added) == 0 {
				a.message("nothing to add: the books have these prices")
				return nil
			}
			return a.printPrices(v)
		})
	}
	return cmd
}

// priceFlag is the option of a kind of token.
func priceFlag(kind string) string { return strings.ReplaceAll(kind, "_", "-") }

// pricesOf are the prices that the command line names: a file's, or one.
func pricesOf(f *pflag.FlagSet, file, model, from string, none bool) (priceFile, error) {
	p := billing.Price{Model: model}
	given := 0
	for _, kind := range billing.Kinds() {
		flag := f.Lookup(priceFlag(kind))
		if !flag.Changed {
			continue
		}
		given++
		amount, err := billing.ParseMoney(flag.Value.String())
		if err != nil {
			return priceFile{}, usagef("--%s: write a plain decimal number with at most 9 digits after the point, such as 2.5", flag.Name)
		}
		_ = p.Set(kind, amount) // the kind is one
	}
	switch {
	case file != "" && (model != "" || from != "" || given > 0 || none):
		return priceFile{}, usagef("--file has models, prices and dates of its own: leave the other options out")
	case file != "":
		return readPrices(file)
	case model == "":
		return priceFile{}, usagef("option --model or --file is required")
	case none == (given > 0):
		return priceFile{}, usagef("give prices such as --input and --output, or --none")
	case !none && p.Input == nil && p.Output == nil:
		return priceFile{}, usagef("give --input or --output: the other kinds are parts of them")
	}
	if from != "" {
		at, err := parseMoment(from)
		if err != nil {
			return priceFile{}, usagef("--valid-from: write a UTC day such as 2026-12-01, or a time such as %s", time.RFC3339)
		}
		p.ValidFrom = at
	}
	return priceFile{prices: []billing.Price{p}}, nil
}
