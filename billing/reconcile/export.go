// Package reconcile compares the books with what the provider of a model says
// was used. It reads the provider's exports; bytes in, rows out.
package reconcile

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Export is what a provider says was used.
type Export struct {
	Rows        []Row  // one for each day and model, in this order
	First, Last string // UTC days that it covers; "" = none
	Stated      Stated
	// ByModel is false when no row names a model.
	ByModel bool
	// Cut: the last page says that there are more.
	Cut bool
	// Partial are days that it covers in part only.
	Partial []string
}

// FormatError says where an export cannot be read, and what is expected there.
type FormatError struct {
	Line int // from 1
	Want string
}

// Error names the line.
func (e *FormatError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Want) }

// Read reads an export: pages of OpenAI's usage API, a list of rows as JSON, or
// CSV with a header. Its error is a *FormatError.
func Read(text []byte) (Export, error) {
	r := reader{
		text: bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")), // the byte order mark of some editors
		days: map[string]*span{}, stated: Stated{Cached: true, Requests: true},
	}
	read := r.csv
	if start := bytes.TrimLeft(r.text, " \t\r\n"); len(start) > 0 && (start[0] == '{' || start[0] == '[') {
		read = r.json
	}
	if err := read(); err != nil {
		return Export{}, err
	}
	return r.export(), nil
}

// column is what a column of an export holds.
type column int

const (
	dayColumn column = iota
	modelColumn
	promptColumn
	completionColumn
	requestsColumn
	cachedColumn
	columns
)

// aliases are the names that exports have for a column; the first that is there counts.
func (c column) aliases() []string {
	return [columns][]string{
		dayColumn:        {"day", "date", "start_time", "start_time_iso", "usage_date", "aggregation_timestamp"},
		modelColumn:      {"model", "model_name", "snapshot_id"},
		promptColumn:     {"prompt_tokens", "input_tokens", "n_context_tokens_total", "context_tokens"},
		completionColumn: {"completion_tokens", "output_tokens", "n_generated_tokens_total", "generated_tokens"},
		requestsColumn:   {"requests", "n_requests", "num_model_requests"},
		cachedColumn:     {"input_cached_tokens", "cached_tokens"},
	}[c]
}

// layout is where the columns of a row are: the name of each, "" = not there.
type layout [columns]string

func layoutOf(known func(name string) bool) (l layout) {
	for c := range columns {
		for _, name := range c.aliases() {
			if l[c] == "" && known(name) {
				l[c] = name
			}
		}
	}
	return l
}

// wants says what a layout must have, "" = it has all of it.
func (l layout) wants() string {
	if l[dayColumn] != "" && l[modelColumn] != "" && l[promptColumn] != "" {
		return ""
	}
	var groups []string
	for c := range columns {
		groups = append(groups, strings.Join(c.aliases(), "|"))
	}
	return "the columns are not known: expected " + strings.Join(groups[:completionColumn], ", ") +
		", and where there are any " + strings.Join(groups[completionColumn:], ", ")
}

// normal is the name of a column without the freedoms that people take.
func normal(name string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
}

// span is the part of a day that an export covers, in seconds from its start.
type span struct{ from, to int64 }

const secondsOfDay = 24 * 60 * 60

// maxSum keeps sums, and sums of two of them, far from the end of an int64.
const maxSum = 1 << 60

type reader struct {
	text []byte
	rows []Row
	days map[string]*span

	stated         Stated
	named, unnamed bool // rows with and without a model
	cut            bool
	total          Figures
}

func wrong(line int, format string, args ...any) error {
	return &FormatError{Line: line, Want: fmt.Sprintf(format, args...)}
}

// cover notes that the export has something to say of a part of a day.
func (r *reader) cover(day string, from, to int64) {
	s := r.days[day]
	if s == nil {
		r.days[day] = &span{from, to}
		return
	}
	s.from, s.to = min(s.from, from), max(s.to, to)
}

// add takes one row, whose cells, and the lines they stand on, are found by the
// names of the layout.
func (r *reader) add(day string, l layout, cell func(name string) string, line func(name string) int) error {
	row := Row{Day: day}
	if l[modelColumn] != "" {
		row.Model = cell(l[modelColumn])
	}
	for _, c := range []struct {
		column column
		into   *int64
	}{{promptColumn, &row.Prompt}, {completionColumn, &row.Completion}, {requestsColumn, &row.Requests}, {cachedColumn, &row.Cached}} {
		name := l[c.column]
		if name == "" {
			continue
		}
		n, ok := count(cell(name))
		if !ok {
			return wrong(line(name), "%s: expected a whole number of 0 or more, digits only", name)
		}
		*c.into = n
	}
	if row.Figures == (Figures{}) && row.Model == "" {
		return nil // a day on which there was nothing
	}
	sum := r.total.Plus(row.Figures)
	if most := max(row.Prompt, row.Completion, row.Requests, row.Cached, sum.Prompt, sum.Completion, sum.Requests, sum.Cached); most > maxSum {
		return wrong(line(l[promptColumn]), "the figures are too large to be summed up")
	}
	r.total = sum
	r.stated.Requests = r.stated.Requests && l[requestsColumn] != ""
	r.stated.Cached = r.stated.Cached && l[cachedColumn] != ""
	r.named, r.unnamed = r.named || row.Model != "", r.unnamed || row.Model == ""
	r.rows = append(r.rows, row)
	return nil
}

func (r *reader) export() Export {
	e := Export{Rows: Sum(r.rows), Stated: r.stated, ByModel: r.named || !r.unnamed, Cut: r.cut}
	for _, day := range slices.Sorted(maps.Keys(r.days)) {
		if e.First == "" {
			e.First = day
		}
		e.Last = day
		if s := r.days[day]; s.from > 0 || s.to < secondsOfDay {
			e.Partial = append(e.Partial, day)
		}
	}
	return e
}

// count reads a plain decimal integer; an empty cell is 0.
func count(text string) (int64, bool) {
	if text == "" {
		return 0, true
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < '0' || c > '9' }) {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

const wantsDay = "expected a day such as 2026-11-30, a time with its zone such as 2026-11-30T00:00:00Z, or seconds since 1970"

// instantOf reads Unix seconds, or a time with its zone. Seconds of the last
// century are not meant: they are days without dashes, or something else.
func instantOf(text string) (time.Time, bool) {
	if n, ok := count(text); ok {
		return time.Unix(min(n, math.MaxUint32), 0).UTC(), n >= 1e9 && n <= math.MaxUint32
	}
	if len(text) > len(time.DateOnly) && text[len(time.DateOnly)] == ' ' {
		text = text[:len(time.DateOnly)] + "T" + text[len(time.DateOnly)+1:]
	}
	at, err := time.Parse(time.RFC3339, text)
	return at.UTC(), err == nil
}

// dayOf is the UTC day of a cell.
func dayOf(text string) (string, bool) {
	text = strings.TrimSpace(text)
	if _, err := time.Parse(time.DateOnly, text); err == nil {
		return text, true
	}
	at, ok := instantOf(text)
	return at.Format(time.DateOnly), ok
}
