package billing

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// DayUsage is what one key used on one UTC day or in one UTC month.
type DayUsage struct {
	Day      string // "2006-01-02"; of a month "2006-01"
	Tokens   int64
	Held     int64 // in open holds
	Requests int64
	Spent    Money // charged
	Reserved Money // in open holds
}

// KeyAccount is where a key stands in the current UTC day and month.
type KeyAccount struct {
	Today, Month             DayUsage
	DayResetAt, MonthResetAt time.Time // when the next period begins
	LastCharge               time.Time // of the newest charge; zero = never used
}

// KeyReport is what one key used over some days.
type KeyReport struct {
	KeyAccount
	From, To string     // UTC days, inclusive
	Days     []DayUsage // those with any use, newest first
	Total    DayUsage   // their sum, without a Day
	// Provenance says how the tokens of From to To were found.
	Provenance map[Provenance]UsagePart
}

// reportDays bounds a report: a year, leap years included.
const reportDays = 366

// Now is the time by the books' clock: what decides which day it is.
func (b *Book) Now() time.Time { return b.opt.Now().UTC() }

// Usage sums charges as Admin.Usage does, for the gateway itself. KeyRef must
// be a public id, or "" for all keys. Errors: ErrInvalid for a day or a grouping
// that is none.
func (b *Book) Usage(ctx context.Context, q UsageQuery) (UsageTable, error) {
	table, err := usageOf(b.store.read.WithContext(ctx), q.KeyRef, q)
	if err != nil {
		return UsageTable{}, fmt.Errorf("usage: %w", err)
	}
	return table, nil
}

// Account reads where a key stands from the database, so that it is true for
// all gateways that share it.
func (b *Book) Account(ctx context.Context, keyID string) (KeyAccount, error) {
	var a KeyAccount
	err := b.store.view(ctx, func(tx *gorm.DB) (err error) {
		a, _, err = b.account(tx, keyID, "", "")
		return err
	})
	if err != nil {
		return KeyAccount{}, fmt.Errorf("account: %w", err)
	}
	return a, nil
}

// Report tells what one key used from one UTC day to another, inclusive. At
// most 366 days. All its figures are of one instant. Errors: ErrInvalid for days
// that are none, or too many.
func (b *Book) Report(ctx context.Context, keyID, from, to string) (KeyReport, error) {
	r := KeyReport{From: from, To: to}
	err := checkDays(from, to)
	if err == nil {
		err = b.store.view(ctx, func(tx *gorm.DB) error { return b.report(tx, keyID, &r) })
	}
	if err != nil {
		return KeyReport{}, fmt.Errorf("report: %w", err)
	}
	return r, nil
}

// report fills in what a key used from r.From to r.To.
func (b *Book) report(tx *gorm.DB, keyID string, r *KeyReport) error {
	table, err := usageOf(tx, keyID, UsageQuery{From: r.From, To: r.To})
	if err != nil {
		return err
	}
	r.Provenance = table.Total.Provenance
	if r.KeyAccount, r.Days, err = b.account(tx, keyID, r.From, r.To); err != nil {
		return err
	}
	for _, d := range r.Days {
		r.Total.Tokens += d.Tokens
		r.Total.Held += d.Held
		r.Total.Requests += d.Requests
		r.Total.Spent += d.Spent
		r.Total.Reserved += d.Reserved
	}
	return nil
}

func checkDays(from, to string) error {
	first, err := parseDay(from)
	if err != nil {
		return fmt.Errorf("%w: a day is written 2006-01-02", ErrInvalid)
	}
	last, err := parseDay(to)
	if err != nil {
		return fmt.Errorf("%w: a day is written 2006-01-02", ErrInvalid)
	}
	if days := last.Sub(first).Hours()/24 + 1; days < 1 || days > reportDays {
		return fmt.Errorf("%w: a report is of 1 to %d days", ErrInvalid, reportDays)
	}
	return nil
}

// account reads the rows of a key's accounts: those of the current month, and
// of the days asked for.
func (b *Book) account(db *gorm.DB, keyID, from, to string) (a KeyAccount, days []DayUsage, err error) {
	p := periodOf(b.opt.Now())
	a = KeyAccount{Today: DayUsage{Day: p.day}, Month: DayUsage{Day: p.month}, DayResetAt: p.dayEnd.UTC(), MonthResetAt: p.monthEnd.UTC()}
	var rows []struct {
		Day                                   string
		Used, Held, Requests, Spent, Reserved int64
	}
	err = db.Raw(`SELECT day, used, held, requests, spent, reserved FROM accounts
		WHERE key_id = ? AND (used > 0 OR held > 0 OR requests > 0) AND (day BETWEEN ? AND ? OR day LIKE ?) ORDER BY day DESC`,
		keyID, from, to, p.month+"-%").Scan(&rows).Error
	if err != nil {
		return a, nil, err
	}
	for _, row := range rows {
		day := DayUsage{Day: row.Day, Tokens: row.Used, Held: row.Held, Requests: row.Requests, Spent: Money(row.Spent), Reserved: Money(row.Reserved)}
		if row.Day >= from && row.Day <= to && (row.Used > 0 || row.Requests > 0) {
			days = append(days, day)
		}
		if row.Day[:len(p.month)] == p.month {
			a.Month.Tokens += row.Used
			a.Month.Held += row.Held
			a.Month.Requests += row.Requests
			a.Month.Spent += day.Spent
			a.Month.Reserved += day.Reserved
		}
		if row.Day == p.day {
			a.Today = day
		}
	}
	// A charge is of the day of its admission, and no request lasts a day: the
	// newest is among those of the last two days that have any, at the end of
	// their entries in the index.
	var last int64
	err = db.Raw(`SELECT COALESCE(max(last), 0) FROM (SELECT
			(SELECT max(settled_at) FROM charges WHERE charges.key_id = newest.key_id AND charges.day = newest.day) AS last
		FROM (SELECT key_id, day FROM accounts WHERE key_id = ? AND requests > 0 ORDER BY day DESC LIMIT 2) AS newest) AS lasts`, keyID).Scan(&last).Error
	a.LastCharge = instant(last)
	return a, days, err
}
