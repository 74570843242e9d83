package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
)

// figure is one measured number of a load.
type figure struct{ candidate, load, what string }

// rounds collects every round's figures.
type rounds map[figure][]float64

func (r rounds) add(candidate, load, what string, v float64) {
	f := figure{candidate, load, what}
	r[f] = append(r[f], v)
}

// ratio is the median of a figure's ratios to another candidate's, each taken
// within one round.
func (r rounds) ratio(f figure, to string) (float64, bool) {
	mine, other := r[f], r[figure{to, f.load, f.what}]
	if len(mine) == 0 || len(mine) != len(other) {
		return 0, false
	}
	ratios := make([]float64, len(mine))
	for i := range mine {
		if other[i] == 0 {
			return 0, false
		}
		ratios[i] = mine[i] / other[i]
	}
	return median(ratios), true
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// figuresOf are the figures of a load, in the order they are printed.
func figuresOf(load string) []string {
	switch load {
	case "json64", "json1":
		return []string{"CPU µs/request", "of it Envoy", "store CPU µs/request", "requests/s", "p50 ms", "p99 ms"}
	case "paced", "open":
		return []string{"CPU µs/event", "of it Envoy", "event p50 ms", "event p99 ms", "peak MB"}
	case "burst":
		return []string{"CPU µs/event", "of it Envoy"}
	}
	return []string{"idle MB", "loaded MB"}
}

func (r rounds) print(out io.Writer, candidates, loads []string) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.AppendHeader(table.Row{"load", "figure", "candidate", "median", "min", "max", "x bare", "x noop", "x gateway"})
	for _, load := range append(loads, "rss") {
		for _, what := range figuresOf(load) {
			for _, c := range candidates {
				f := figure{c, load, what}
				v := r[f]
				if len(v) == 0 {
					continue
				}
				row := table.Row{load, what, c, number(median(v)), number(slices.Min(v)), number(slices.Max(v))}
				for _, to := range []string{"bare", "noop", "gateway"} {
					text := ""
					if x, ok := r.ratio(f, to); ok {
						text = fmt.Sprintf("%.2f", x)
					}
					row = append(row, text)
				}
				t.AppendRow(row)
			}
			t.AppendSeparator()
		}
	}
	fmt.Fprintln(out, "CPU is that of Envoy and the sidecar; ratios are medians of the ratios within each round.")
	fmt.Fprintln(out, "gateway: limits in memory, books in SQLite. redis: limits in Redis. postgres: limits in Redis, books in PostgreSQL; their own CPU is a line of its own.")
	fmt.Fprintln(out, "json64/json1: closed loop over 64 and 1 connections. paced: 16 streams. burst: events without pause. open: 500 streams at once.")
	t.Render()
}

func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
