package billing

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"
)

// UsageQuery selects charges for a report.
type UsageQuery struct {
	KeyRef   string   // public id or secret, "" = all keys
	From, To string   // UTC days "2006-01-02", inclusive; "" = open
	By       []string // any of "day", "key", "model"; empty = the total only
}

// UsageTable is a usage report.
type UsageTable struct {
	Rows  []UsageRow `json:"rows"`
	Total UsageRow   `json:"total"`
}

// UsageRow sums charges. Day, KeyID and Model are set where they were asked for.
type UsageRow struct {
	Day              string                   `json:"day,omitempty"`
	KeyID            string                   `json:"key_id,omitempty"`
	Model            string                   `json:"model,omitempty"`
	PromptTokens     int64                    `json:"prompt_tokens"`
	CompletionTokens int64                    `json:"completion_tokens"`
	TotalTokens      int64                    `json:"total_tokens"`
	Requests         int64                    `json:"requests"` // charges; corrections add tokens, not requests
	Cost             Money                    `json:"cost"`
	UnpricedRequests int64                    `json:"unpriced_requests"` // whose model had no price: metered without money
	Provenance       map[Provenance]UsagePart `json:"provenance"`
}

// UsagePart is the share of one provenance in a row.
type UsagePart struct {
	TotalTokens int64 `json:"total_tokens"`
	Requests    int64 `json:"requests"`
}

// add takes one group of charges into the row.
func (r *UsageRow) add(g *usageGroup) {
	r.PromptTokens += g.Prompt
	r.CompletionTokens += g.Completion
	r.TotalTokens += g.Total
	r.Requests += g.Requests
	r.Cost += Money(g.Cost)
	r.UnpricedRequests += g.Unpriced
	if r.Provenance == nil {
		r.Provenance = map[Provenance]UsagePart{}
	}
	part := r.Provenance[g.Provenance]
	r.Provenance[g.Provenance] = UsagePart{part.TotalTokens + g.Total, part.Requests + g.Requests}
}

type usageGroup struct {
	Day, KeyID, Model                   string
	Provenance                          Provenance
	Prompt, Completion, Total, Requests int64
	Cost, Unpriced                      int64
}

// usageColumns maps what a caller may group by to columns; nothing else
// reaches the statement's text.
var usageColumns = []struct{ by, column string }{{"day", "day"}, {"key", "key_id"}, {"model", "model"}} //nolint:gochecknoglobals // a table that is only read

// Usage sums charges, ordered by the columns asked for. Errors: ErrUnknownKey;
// ErrInvalid for a day or a grouping that is none.
func (a *Admin) Usage(ctx context.Context, q UsageQuery) (UsageTable, error) {
	table, err := a.usage(ctx, q)
	if err != nil {
		return UsageTable{}, fmt.Errorf("usage: %w", err)
	}
	return table, nil
}

func (a *Admin) usage(ctx context.Context, q UsageQuery) (UsageTable, error) {
	keyID := ""
	if q.KeyRef != "" {
		row, err := a.row(a.store.read.WithContext(ctx), q.KeyRef)
		if err != nil {
			return UsageTable{}, err
		}
		keyID = row.ID
	}
	return usageOf(a.store.read.WithContext(ctx), keyID, q)
}

// usageOf sums the charges of one key, or of all for "".
func usageOf(db *gorm.DB, keyID string, q UsageQuery) (UsageTable, error) {
	columns, err := groupColumns(q.By)
	if err != nil {
		return UsageTable{}, err
	}
	if db, err = chargesOfDays(db, keyID, q); err != nil {
		return UsageTable{}, err
	}
	group := strings.Join(append(columns, "provenance"), ", ")
	var groups []usageGroup
	err = db.Select(group + `, CAST(sum(prompt) AS BIGINT) AS prompt, CAST(sum(completion) AS BIGINT) AS completion,
		CAST(sum(total) AS BIGINT) AS total, count(CASE WHEN kind = 'charge' THEN 1 END) AS requests,
		CAST(sum(cost) AS BIGINT) AS cost, count(CASE WHEN kind = 'charge' AND price = 0 THEN 1 END) AS unpriced`).
		Group(group).Order(group).Scan(&groups).Error
	if err != nil {
		return UsageTable{}, err
	}
	return tabulate(groups, len(columns) > 0), nil
}

// chargesOfDays selects the charges of one key, or of all for "", in the days of
// a query. ErrInvalid.
func chargesOfDays(db *gorm.DB, keyID string, q UsageQuery) (*gorm.DB, error) {
	db = db.Table("charges")
	for _, bound := range []struct{ day, where string }{{q.From, "day >= ?"}, {q.To, "day <= ?"}} {
		if bound.day == "" {
			continue
		}
		if _, err := parseDay(bound.day); err != nil {
			return nil, fmt.Errorf("%w: a day is written 2006-01-02", ErrInvalid)
		}
		db = db.Where(bound.where, bound.day)
	}
	if keyID != "" {
		db = db.Where("key_id = ?", keyID)
	}
	return db, nil
}

func groupColumns(by []string) ([]string, error) {
	var columns []string
	for _, c := range usageColumns {
		if slices.Contains(by, c.by) {
			columns = append(columns, c.column)
		}
	}
	for _, name := range by {
		if !slices.ContainsFunc(usageColumns, func(c struct{ by, column string }) bool { return c.by == name }) {
			return nil, fmt.Errorf("%w: group by day, key or model", ErrInvalid)
		}
	}
	return columns, nil
}

// tabulate folds groups that differ only in provenance into rows.
func tabulate(groups []usageGroup, rows bool) UsageTable {
	table := UsageTable{Rows: []UsageRow{}, Total: UsageRow{Provenance: map[Provenance]UsagePart{}}}
	for i := range groups {
		g := &groups[i]
		table.Total.add(g)
		if !rows {
			continue
		}
		if n := len(table.Rows); n == 0 || table.Rows[n-1].Day != g.Day || table.Rows[n-1].KeyID != g.KeyID || table.Rows[n-1].Model != g.Model {
			table.Rows = append(table.Rows, UsageRow{Day: g.Day, KeyID: g.KeyID, Model: g.Model})
		}
		table.Rows[len(table.Rows)-1].add(g)
	}
	return table
}
