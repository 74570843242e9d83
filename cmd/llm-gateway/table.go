package main

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// grid is a table for people. Cells are text; numeric columns stand right.
type grid struct {
	columns []string
	numeric []string // columns that hold numbers
	rows    [][]string
	total   []string // last row, below a rule; nil for none
}

// printGrid writes the table to stdout.
func (a *app) printGrid(g grid) error {
	w := table.NewWriter()
	style := table.StyleLight
	style.Options = table.Options{SeparateHeader: true}
	style.Format = table.FormatOptions{Header: text.FormatUpper}
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	if a.colours() {
		style.Color = table.ColorOptions{Header: text.Colors{text.Bold}}
	}
	style.Options.SeparateFooter = g.total != nil
	w.SetStyle(style)
	w.SuppressTrailingSpaces()
	var configs []table.ColumnConfig
	for _, name := range g.numeric {
		configs = append(configs, table.ColumnConfig{
			Name: name, Align: text.AlignRight, AlignHeader: text.AlignRight, AlignFooter: text.AlignRight,
		})
	}
	w.SetColumnConfigs(configs)
	w.AppendHeader(tableRow(g.columns))
	for _, row := range g.rows {
		w.AppendRow(tableRow(row))
	}
	if g.total != nil {
		w.AppendFooter(tableRow(g.total))
	}
	return a.printf("%s\n", w.Render())
}

func tableRow(cells []string) table.Row {
	row := make(table.Row, len(cells))
	for i, cell := range cells {
		row[i] = printable(cell)
	}
	return row
}

// pair is one line of a short list of facts.
type pair struct{ name, value string }

// printPairs writes names and values in two columns.
func (a *app) printPairs(pairs []pair) error {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p.name))
	}
	for _, p := range pairs {
		if err := a.printf("%-*s  %s\n", width, p.name, printable(p.value)); err != nil {
			return err
		}
	}
	return nil
}

// colours says whether stdout is a terminal whose owner has not asked for plain
// text (https://no-color.org: set and not empty).
func (a *app) colours() bool {
	if a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(a.stdout)
}

// printable takes the control characters out of a cell: model names come from
// clients and could otherwise send commands to the terminal of an operator.
func printable(cell string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, cell)
}

// thousands writes a number for people: 1,234,567.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	var b strings.Builder
	b.WriteString(sign)
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// shortDuration writes a duration without the zeros at its end: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
