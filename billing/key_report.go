package billing

import (
	"context"
	"fmt"
	"time"
)

// DayUsage is what one key used on one UTC day or in one UTC month.
type DayUsage struct {
	Day      string // "2006-01-02"; of a month "2006-01"
	Tokens   int64
	Requests int64
}

// KeyReport is what one key used.
type KeyReport struct {
	From, To     string     // UTC days, inclusive
	Days         []DayUsage // those with any use, newest first
	Total        DayUsage   // their sum, without a Day
	Today, Month DayUsage   // the current periods, whatever From and To are
	LastCharge   time.Time  // of the newest charge; zero = never used
	// Provenance says how the tokens of From to To were found.
	Provenance map[Provenance]UsagePart
}

// Now is the time by the books' clock: what decides which day it is.
func (b *Book) Now() time.Time { return b.opt.Now().UTC() }

// Usage sums charges as Admin.Usage does, for the gateway itself. KeyRef must
// be a public id, or "" for all keys. Errors: ErrInvalid for a day or a grouping
// that is none.
func (b *Book) Usage(ctx context.Context, q UsageQuery) (UsageTable, error) {
	table, err := b.store.usage(ctx, q.KeyRef, q)
	if err != nil {
		return UsageTable{}, fmt.Errorf("usage: %w", err)
	}
	return table, nil
}

// Report tells what one key used from one UTC day to another, inclusive.
// Errors: ErrInvalid for a day that is none.
func (b *Book) Report(ctx context.Context, keyID, from, to string) (KeyReport, error) {
	r, err := b.report(ctx, keyID, from, to)
	if err != nil {
		return KeyReport{}, fmt.Errorf("report: %w", err)
	}
	return r, nil
}

func (b *Book) report(ctx context.Context, keyID, from, to string) (KeyReport, error) {
	table, err := b.store.usage(ctx, keyID, UsageQuery{From: from, To: to})
	if err != nil {
		return KeyReport{}, err
	}
	p := periodOf(b.opt.Now())
	r := KeyReport{From: from, To: to, Provenance: table.Total.Provenance, Today: DayUsage{Day: p.day}, Month: DayUsage{Day: p.month}}
	var rows []struct {
		Day            string
		Used, Requests int64
	}
	err = b.store.read.WithContext(ctx).Raw(`SELECT day, used, requests FROM accounts
		WHERE key_id = ? AND (used > 0 OR requests > 0) AND (day BETWEEN ? AND ? OR day LIKE ?) ORDER BY day DESC`,
		keyID, from, to, p.month+"-%").Scan(&rows).Error
	if err != nil {
		return KeyReport{}, err
	}
	for i := range rows {
		row := &rows[i]
		if row.Day >= from && row.Day <= to {
			r.Days = append(r.Days, DayUsage{Day: row.Day, Tokens: row.Used, Requests: row.Requests})
			r.Total.Tokens += row.Used
			r.Total.Requests += row.Requests
		}
		if row.Day[:len(p.month)] == p.month {
			r.Month.Tokens += row.Used
			r.Month.Requests += row.Requests
		}
		if row.Day == p.day {
			r.Today.Tokens, r.Today.Requests = row.Used, row.Requests
		}
	}
	var last int64
	err = b.store.read.WithContext(ctx).Raw("SELECT COALESCE(max(settled_at), 0) FROM charges WHERE key_id = ?", keyID).Scan(&last).Error
	if err != nil {
		return KeyReport{}, err
	}
	r.LastCharge = instant(last)
	return r, nil
}
