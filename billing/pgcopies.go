package billing

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	copyAge  = time.Second            // an account is read again when its copy is older
	copyWait = 200 * time.Millisecond // how long a look at a budget waits for that
)

// accountCopies are what memory knows of accounts in PostgreSQL: for looking,
// never for deciding. It holds one copy a key.
type accountCopies struct {
	mu     sync.Mutex
	period period // the newest that this process has seen; never goes back
	of     map[string]*accountCopy
}

// accountCopy is an account in its newest period.
type accountCopy struct {
	period  period
	account account
	read    time.Time // by this machine's clock
	reading bool
}

// accountRow is the sum of a day, or of the days of a month.
type accountRow struct {
	day string // "2026-11-23" or "2026-11"
	delta
}

// newCopy is the account of the given rows, in the period p or in the newest
// day among them: a clock that went back opens no second budget.
func newCopy(p period, rows []accountRow) *accountCopy {
	for _, r := range rows {
		if r.day > p.day && len(r.day) == len(dayLayout) {
			if day, err := parseDay(r.day); err == nil {
				p = periodOf(day)
			}
		}
	}
	c := &accountCopy{period: p, read: time.Now()}
	c.account.roll(p)
	for _, r := range rows {
		c.account.add(r.day, r.delta)
	}
	return c
}

func (c *accountCopies) current() period {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.period
}

// enter moves to the period of now and returns it.
func (c *accountCopies) enter(now time.Time) period {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.period = c.period.at(now)
	return c.period
}

// committed takes over what a transaction saw, and what it changed.
func (c *accountCopies) committed(seen map[string]*accountCopy, moved []movement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, fresh := range seen {
		c.of[id] = fresh
	}
	for _, m := range moved {
		if known := c.of[m.keyID]; known != nil {
			known.account.add(m.day, m.delta)
		}
	}
}

func (e *pgBooks) snapshot(keyID string) (account, period) {
	now := e.book.opt.Now()
	e.copies.mu.Lock()
	known := e.copies.of[keyID]
	stale := known == nil || !known.reading && time.Since(known.read) > copyAge
	if known != nil && stale {
		known.reading = true // one reads, the others look at what there is
	}
	e.copies.mu.Unlock()
	if stale && e.book.keys.get(keyID) != nil {
		if fresh, err := e.readAccount(keyID); err != nil {
			e.book.log.Warn("books: account not read", zap.Error(err))
			e.keepCopy(keyID, nil)
		} else {
			e.keepCopy(keyID, fresh)
		}
	}
	e.copies.mu.Lock()
	defer e.copies.mu.Unlock()
	p := e.copies.period
	var a account
	if known := e.copies.of[keyID]; known != nil {
		a = known.account
		if known.period.day > p.day {
			p = known.period
		}
	}
	p = p.at(now)
	a.roll(p)
	return a, p
}

// keepCopy ends a reading. One that failed is tried again in a while.
func (e *pgBooks) keepCopy(keyID string, fresh *accountCopy) {
	e.copies.mu.Lock()
	defer e.copies.mu.Unlock()
	if fresh == nil {
		if fresh = e.copies.of[keyID]; fresh == nil {
			fresh = newCopy(e.copies.period, nil)
		}
		fresh.read, fresh.reading = time.Now(), false
	}
	e.copies.of[keyID] = fresh
}

func (e *pgBooks) readAccount(keyID string) (*accountCopy, error) {
	ctx, cancel := context.WithTimeout(context.Background(), copyWait)
	defer cancel()
	p := e.copies.current()
	var found []struct {
		P                           string
		Used, Held, Spent, Reserved int64
	}
	err := e.book.store.read.WithContext(ctx).Raw(`SELECT CASE WHEN day < ? THEN left(day, 7) ELSE day END AS p,
		CAST(sum(used) AS bigint) AS used, CAST(sum(held) AS bigint) AS held,
		CAST(sum(spent) AS bigint) AS spent, CAST(sum(reserved) AS bigint) AS reserved
		FROM accounts WHERE key_id = ? AND day >= ? GROUP BY p`, p.day, keyID, p.month+"-01").Scan(&found).Error
	if err != nil {
		return nil, err
	}
	rows := make([]accountRow, len(found))
	for i, r := range found {
		rows[i] = accountRow{r.P, delta{amount{r.Used, r.Spent}, amount{r.Held, r.Reserved}}}
	}
	return newCopy(p, rows), nil
}

// scanAccounts reads the answer to pgAccounts, by key.
func scanAccounts(answers pgx.BatchResults) (map[string][]accountRow, error) {
	rows := map[string][]accountRow{}
	var id string
	var r accountRow
	err := scanAll(answers, []any{&id, &r.day, &r.used.tokens, &r.held.tokens, &r.used.money, &r.held.money}, func() { rows[id] = append(rows[id], r) })
	if err != nil {
		return nil, fmt.Errorf("accounts: %w", err)
	}
	return rows, nil
}
