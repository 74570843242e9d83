package reconcile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
)

// csv reads rows below a header.
func (r *reader) csv() error {
	table := csv.NewReader(bytes.NewReader(r.text))
	table.Comma = separator(r.text)
	table.ReuseRecord = true
	table.TrimLeadingSpace = true
	header, err := table.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return wrong(1, "the file is empty: expected JSON, or CSV with a header")
		}
		return csvWrong(err)
	}
	at := map[string]int{}
	for i, name := range header {
		name = normal(name)
		if _, twice := at[name]; twice && isAlias(name) {
			return wrong(1, "expected each column once: %s stands there twice", name)
		}
		at[name] = i
	}
	l := layoutOf(func(name string) bool { _, ok := at[name]; return ok })
	if wants := l.wants(); wants != "" {
		return wrong(1, "%s", wants)
	}
	for {
		record, err := table.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvWrong(err)
		}
		cell := func(name string) string { return record[at[name]] }
		line := func(name string) int { n, _ := table.FieldPos(at[name]); return n }
		on, ok := dayOf(cell(l[dayColumn]))
		if !ok {
			return wrong(line(l[dayColumn]), "%s: %s", l[dayColumn], wantsDay)
		}
		r.cover(on, 0, secondsOfDay)
		if err := r.add(on, l, cell, line); err != nil {
			return err
		}
	}
}

func isAlias(name string) bool {
	for c := range columns {
		if slices.Contains(c.aliases(), name) {
			return true
		}
	}
	return false
}

// separator is what stands between the columns of the header: spreadsheets of
// many countries write semicolons.
func separator(text []byte) rune {
	header, _, _ := bytes.Cut(text, []byte{'\n'})
	best, most := ',', bytes.Count(header, []byte{','})
	for _, c := range []rune{';', '\t'} {
		if n := bytes.Count(header, []byte(string(c))); n > most {
			best, most = c, n
		}
	}
	return best
}

func csvWrong(err error) error {
	line := 1
	if at := (*csv.ParseError)(nil); errors.As(err, &at) {
		line = at.Line
	}
	if errors.Is(err, csv.ErrFieldCount) {
		return wrong(line, "expected as many columns as the header has")
	}
	return wrong(line, "expected CSV: a quote stands where none may be, or is not closed")
}
