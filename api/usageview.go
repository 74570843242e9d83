package api

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/MaksimVF/llm-gateway/billing"
)

// UsageColumns are what usage can be grouped by, in the order they are shown.
func UsageColumns() []string { return []string{"day", "key", "model"} }

// Provenances are where a count can come from, in the order they are shown.
func Provenances() []billing.Provenance {
	return []billing.Provenance{"reported", "estimated", "aborted", "recovered", "expired"}
}

// UsageView is a row of the usage document; a column that was not asked for is
// not in it.
type UsageView struct {
	Day              *string                      `json:"day,omitempty" doc:"UTC day; only where rows are by day."`
	KeyID            *string                      `json:"key_id,omitempty" doc:"Only where rows are by key."`
	Model            *string                      `json:"model,omitempty" doc:"Model of the requests; only where rows are by model."`
	PromptTokens     int64                        `json:"prompt_tokens"`
	CompletionTokens int64                        `json:"completion_tokens"`
	TotalTokens      int64                        `json:"total_tokens"`
	Requests         int64                        `json:"requests"`
	Cost             string                       `json:"cost" doc:"Decimal, in units of the books' currency; exact."`
	UnpricedRequests int64                        `json:"unpriced_requests" doc:"Requests whose model had no price: metered without money."`
	Provenance       map[billing.Provenance]int64 `json:"provenance" doc:"Requests by where their count comes from: reported, estimated, aborted, recovered, expired."`
}

// UsageDocument is used tokens by row, and their sum.
type UsageDocument struct {
	Rows  []UsageView `json:"rows"`
	Total UsageView   `json:"total"`
}

// Usage is the document of a report by the given columns, in the order of
// [UsageColumns].
func Usage(t billing.UsageTable, by []string) UsageDocument {
	doc := UsageDocument{Rows: make([]UsageView, 0, len(t.Rows)), Total: viewUsage(&t.Total, nil)}
	for i := range t.Rows {
		doc.Rows = append(doc.Rows, viewUsage(&t.Rows[i], by))
	}
	return doc
}

func viewUsage(r *billing.UsageRow, by []string) UsageView {
	v := UsageView{
		PromptTokens: r.PromptTokens, CompletionTokens: r.CompletionTokens, TotalTokens: r.TotalTokens,
		Requests: r.Requests, Cost: r.Cost.String(), UnpricedRequests: r.UnpricedRequests, Provenance: make(map[billing.Provenance]int64, len(r.Provenance)),
	}
	for from, part := range r.Provenance {
		v.Provenance[from] = part.Requests
	}
	for _, column := range by {
		switch column {
		case "day":
			v.Day = &r.Day
		case "key":
			v.KeyID = &r.KeyID
		case "model":
			v.Model = &r.Model
		}
	}
	return v
}

// UsageLabels are the first cells of a row: its values of the given columns.
func UsageLabels(r *billing.UsageRow, by []string) []string {
	cells := make([]string, 0, len(by))
	for _, column := range by {
		switch column {
		case "day":
			cells = append(cells, r.Day)
		case "key":
			cells = append(cells, r.KeyID)
		case "model":
			cells = append(cells, r.Model)
		}
	}
	return cells
}

// OrderColumns puts columns into the order of [UsageColumns], without
// repetitions.
func OrderColumns(by []string) []string {
	return slices.DeleteFunc(UsageColumns(), func(c string) bool { return !slices.Contains(by, c) })
}

// WriteUsageCSV writes the rows of a report as CSV (RFC 4180 with line feeds):
// the columns asked for, the figures, and the requests of each provenance.
func WriteUsageCSV(to io.Writer, t billing.UsageTable, by []string) error {
	return writeUsage(csv.NewWriter(to), t, by)
}

func writeUsage(w *csv.Writer, t billing.UsageTable, by []string) error {
	header := make([]string, 0, 14)
	for _, column := range by {
		if column == "key" {
			column = "key_id"
		}
		header = append(header, column)
	}
	header = append(header, "prompt_tokens", "completion_tokens", "total_tokens", "requests")
	for _, from := range Provenances() {
		header = append(header, string(from))
	}
	header = append(header, "cost", "unpriced_requests") // last, since columns were read by their number before there was money
	errs := []error{w.Write(header)}
	for i := range t.Rows {
		r := &t.Rows[i]
		record := UsageLabels(r, by)
		for i := range record {
			record[i] = csvText(record[i])
		}
		for _, n := range []int64{r.PromptTokens, r.CompletionTokens, r.TotalTokens, r.Requests} {
			record = append(record, strconv.FormatInt(n, 10))
		}
		for _, from := range Provenances() {
			record = append(record, strconv.FormatInt(r.Provenance[from].Requests, 10))
		}
		record = append(record, r.Cost.String(), strconv.FormatInt(r.UnpricedRequests, 10))
		errs = append(errs, w.Write(record))
	}
	w.Flush()
	if err := errors.Join(append(errs, w.Error())...); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// csvText keeps a client's model name from being run as a formula by whoever
// opens the report in a spreadsheet.
func csvText(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
