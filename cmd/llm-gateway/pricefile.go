package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/MaksimVF/llm-gateway/billing"
)

// priceFile is a list of prices, as YAML or JSON:
//
//	currency: USD
//	prices:
//	  - model: gpt-4o*
//	    valid_from: 2026-12-01
//	    input: 2.50
//	    output: 10
//
// Amounts are units of the currency for a million tokens, by the kinds of
// [billing.Kinds]. They are read digit by digit and never as floats.
type priceFile struct {
	currency string
	prices   []billing.Price
}

// readPrices reads a price file whole; its error is [mistakes] where lines of
// it are wrong.
func readPrices(path string) (priceFile, error) {
	content, err := readSmall(path)
	if err != nil {
		return priceFile{}, fmt.Errorf("read the prices: %w", err)
	}
	f, problems := parsePrices(content)
	if len(problems) == 0 {
		return f, nil
	}
	for i, p := range problems {
		problems[i] = path + ": " + p
	}
	return priceFile{}, problems
}

func parsePrices(content []byte) (f priceFile, problems mistakes) {
	var document yamlv3.Node
	d := yamlv3.NewDecoder(strings.NewReader(string(content)))
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return f, mistakes{"the file is empty: write currency and prices"}
	case err != nil:
		return f, mistakes{"this is no YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	if err := d.Decode(new(yamlv3.Node)); !errors.Is(err, io.EOF) {
		return f, mistakes{"write one document"}
	}
	var list *yamlv3.Node
	problems = members(document.Content[0], map[string]func(*yamlv3.Node) string{
		"currency": func(v *yamlv3.Node) string {
			if f.currency = v.Value; v.Kind != yamlv3.ScalarNode || len(f.currency) != 3 || strings.ToUpper(f.currency) != f.currency {
				return "write three capital letters, such as USD"
			}
			return ""
		},
		"prices": func(v *yamlv3.Node) string {
			if list = v; v.Kind != yamlv3.SequenceNode {
				return "write a list of prices"
			}
			return ""
		},
	})
	if len(problems) > 0 {
		return f, problems
	}
	if list == nil || len(list.Content) == 0 {
		return f, mistakes{"there is no price: write prices, a list of model, input and output"}
	}
	for _, node := range list.Content {
		p, wrong := parsePrice(node)
		problems = append(problems, wrong...)
		f.prices = append(f.prices, p)
	}
	return f, problems
}

func parsePrice(node *yamlv3.Node) (p billing.Price, problems mistakes) {
	read := map[string]func(*yamlv3.Node) string{
		"model": func(v *yamlv3.Node) string {
			if p.Model = v.Value; v.Kind != yamlv3.ScalarNode || p.Model == "" {
				return "write the name of a model, or a pattern with *"
			}
			return ""
		},
		"valid_from": func(v *yamlv3.Node) string {
			at, err := parseMoment(v.Value)
			if p.ValidFrom = at; err != nil || v.Kind != yamlv3.ScalarNode {
				return "write a UTC day such as 2026-12-01, or a time such as 2026-12-01T12:00:00Z"
			}
			return ""
		},
	}
	for _, kind := range billing.Kinds() {
		read[kind] = func(v *yamlv3.Node) string {
			amount, err := billing.ParseMoney(v.Value)
			if err != nil || v.Kind != yamlv3.ScalarNode {
				return "write a plain decimal number with at most 9 digits after the point, such as 2.5"
			}
			_ = p.Set(kind, amount) // the kind is one
			return ""
		}
	}
	problems = members(node, read)
	if len(problems) == 0 && p.Model == "" {
		problems = mistakes{fmt.Sprintf("line %d: the price names no model", node.Line)}
	}
	return p, problems
}

// members reads the members of a mapping, each once and each known.
func members(node *yamlv3.Node, read map[string]func(*yamlv3.Node) string) (problems mistakes) {
	if node.Kind != yamlv3.MappingNode {
		return mistakes{fmt.Sprintf("line %d: write members such as name: value", node.Line)}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		f, known := read[name.Value]
		switch {
		case !known:
			problems = append(problems, fmt.Sprintf("line %d: %s is not known", name.Line, printable(name.Value)))
			continue
		case seen[name.Value]:
			problems = append(problems, fmt.Sprintf("line %d: %s stands there twice", name.Line, name.Value))
			continue
		}
		seen[name.Value] = true
		if wants := f(value); wants != "" {
			problems = append(problems, fmt.Sprintf("line %d: %s: %s", value.Line, name.Value, wants))
		}
	}
	return problems
}

// parseMoment reads a UTC day, which is its beginning, or a time (RFC 3339).
func parseMoment(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	return t.UTC(), err
}
