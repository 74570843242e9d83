package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"gorm.io/gorm"
)

// sqliteBooks keep the books in one file that no other gateway writes. So the
// accounts in memory decide; the writer makes their decisions durable.
type sqliteBooks struct {
	book  *Book
	stmts *statements

	version int64     // last data_version seen
	pruned  time.Time // when old traces were last looked for

	// Guarded by Book.mu:
	period   period
	accounts map[string]*account
}

func newSQLiteBooks(ctx context.Context, b *Book) (*sqliteBooks, error) {
	pool, err := b.store.write.DB()
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	stmts, err := prepare(ctx, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &sqliteBooks{book: b, stmts: stmts, accounts: map[string]*account{}}, nil
}

func (e *sqliteBooks) storage() string { return "sqlite" }

func (e *sqliteBooks) figures(*Stats) {}

func (e *sqliteBooks) begin() error {
	if err := e.stmts.dataVersion.QueryRow().Scan(&e.version); err != nil {
		return err
	}
	return e.loadAccounts()
}

// loadAccounts rebuilds the current day and month from the database. The day
// is the newest that the books know, whatever the clock says.
func (e *sqliteBooks) loadAccounts() error {
	var newest sql.NullString
	read := e.book.store.read
	if err := read.Raw("SELECT max(day) FROM accounts").Scan(&newest).Error; err != nil {
		return err
	}
	e.period = periodOf(e.book.opt.Now())
	if newest.String > e.period.day {
		day, err := parseDay(newest.String)
		if err != nil {
			return fmt.Errorf("accounts: %w", err)
		}
		e.book.log.Warn("books: the clock is behind the books", zap.String("day", newest.String))
		e.period = periodOf(day)
	}
	var rows []struct {
		KeyID, Day string

		Used, Held, Spent, Reserved int64
	}
	err := read.Raw("SELECT key_id, day, used, held, spent, reserved FROM accounts WHERE day >= ?", e.period.month+"-01").Scan(&rows).Error
	for _, r := range rows {
		a := e.accounts[r.KeyID]
		if a == nil {
			a = &account{}
			e.accounts[r.KeyID] = a
			a.roll(e.period)
		}
		a.add(r.Day, delta{amount{r.Used, r.Spent}, amount{r.Held, r.Reserved}})
	}
	return err
}

// take decides and holds the tokens in memory.
func (e *sqliteBooks) take(h *openHold, k *Key) error {
	acct, p := e.account(k.ID, instant(h.admittedAt))
	if err := h.decide(acct, p, k.Limits().or(e.book.defaults()), instant(h.admittedAt)); err != nil {
		return err
	}
	h.account = acct
	h.move(h.holding())
	return nil
}

// account is the key's account in the period of now. Book.mu is held.
func (e *sqliteBooks) account(keyID string, now time.Time) (*account, period) {
	e.period = e.period.at(now)
	a := e.accounts[keyID]
	if a == nil {
		a = &account{}
		e.accounts[keyID] = a
	}
	a.roll(e.period)
	return a, e.period
}

func (e *sqliteBooks) snapshot(keyID string) (account, period) {
	now := e.book.opt.Now()
	e.book.mu.Lock()
	defer e.book.mu.Unlock()
	p := e.period.at(now)
	var a account
	if known := e.accounts[keyID]; known != nil {
		a = *known
	}
	a.roll(p)
	return a, p
}

func (e *sqliteBooks) commit(ops []*op, marks []progressMark) (rest []*op, unsure bool, err error) {
	if unsure, err = e.stmts.inTx(func() error { return e.apply(ops, marks) }); err != nil {
		return ops, unsure, err
	}
	for _, o := range ops {
		if o.posted != nil {
			e.book.sayNear(o.posted.KeyID, e.corrected(o.posted))
		}
		if len(o.near) > 0 {
			e.book.sayNear(o.hold.keyID, o.near)
		}
	}
	return nil, false, nil
}

// corrected brings memory up to a correction that was committed, and returns
// the budgets that it used nearly up.
func (e *sqliteBooks) corrected(posted *entry) []budget {
	e.book.mu.Lock()
	defer e.book.mu.Unlock()
	a := e.accounts[posted.KeyID]
	if a == nil {
		return nil
	}
	a.add(posted.Day, delta{used: posted.amount()})
	return e.book.nearing(posted.KeyID, a, a.grown(posted.Day, posted.amount()))
}

// apply writes a batch. The order keeps causes before effects: a hold may be
// inserted and ended in one batch, a charge posted and corrected.
func (e *sqliteBooks) apply(ops []*op, marks []progressMark) error {
	for _, o := range ops {
		if o.kind == opReserve {
			if err := e.stmts.insertHold(o.hold); err != nil {
				return err
			}
		}
	}
	for _, m := range marks {
		if _, err := e.stmts.mark.Exec(m.PromptTokens, m.CompletionTokens, m.id); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	for _, o := range ops {
		if err := e.applyOne(o); err != nil {
			return err
		}
	}
	return nil
}

func (e *sqliteBooks) applyOne(o *op) (err error) {
	switch o.kind {
	case opSettle:
		return e.stmts.post(o.entry)
	case opVoid:
		return e.stmts.void(o.hold, e.book.opt.Now())
	case opErase:
		return e.stmts.eraseHold(o.hold)
	case opCorrect:
		o.posted, err = e.stmts.adjust(o.entry, e.book.priceOf)
		return err
	case opPing:
		_, err := e.stmts.heartbeat.Exec(fmt.Sprint(micros(e.book.opt.Now())))
		return err
	case opTask:
		return o.task(e.stmts)
	case opReserve: // its hold is in already
	}
	return nil
}

func (e *sqliteBooks) permanent(err error) bool {
	if errors.Is(err, ErrUnknownHold) || errors.Is(err, errNoPrice) {
		return true
	}
	switch resultCode(err) {
	case sqliteError, sqliteCorrupt, sqliteTooBig, sqliteConstraint, sqliteMismatch, sqliteRange:
		return true
	}
	return false
}

// housekeeping looks for changes by other processes and prunes old traces.
func (e *sqliteBooks) housekeeping() error {
	var version int64
	if err := e.stmts.dataVersion.QueryRow().Scan(&version); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	// data_version moves only when another connection committed.
	if version != e.version {
		if err := e.book.keys.load(e.book.store.read); err != nil {
			return fmt.Errorf("keys not refreshed: %w", err)
		}
		e.version = version
	}
	now := e.book.opt.Now()
	if age := now.Sub(e.pruned); age > pruneEvery || age < 0 {
		e.pruned = now
		e.book.writer.q.push(newTask(func(s *statements) error {
			_, err := s.conn.ExecContext(context.Background(), "DELETE FROM holds WHERE state = 3 AND id < ?", idFloor(now.Add(-voidsKept)))
			return err
		}), queueMax)
	}
	return nil
}

// transact runs f as a task of the writer, whose connection is the only one
// that may write.
func (e *sqliteBooks) transact(ctx context.Context, f func(tx *gorm.DB) error) error {
	o := newTask(func(s *statements) error {
		tx := e.book.store.write.Session(&gorm.Session{NewDB: true, Context: context.Background()})
		tx.Statement.ConnPool = s.conn
		return f(tx)
	})
	if !e.book.writer.q.push(o, queueMax) {
		return ErrUnavailable
	}
	select {
	case <-o.done:
		return o.err
	case <-e.book.writer.ended:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func newTask(f func(*statements) error) *op {
	o := newOp(opTask, nil, nil)
	o.task = f
	return o
}

// recover ends every open hold in one transaction.
func (e *sqliteBooks) recover() (int, error) {
	var open []holdRow
	if err := e.book.store.read.Raw("SELECT * FROM holds WHERE state < 3 ORDER BY id").Scan(&open).Error; err != nil {
		return 0, err
	}
	if len(open) == 0 {
		return 0, nil
	}
	now := micros(e.book.opt.Now())
	_, err := e.stmts.inTx(func() error {
		for i := range open {
			o, err := open[i].outcome(now, "found open at start", e.book.priceOf)
			if err == nil {
				err = e.stmts.post(o)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return len(open), err
}

func (e *sqliteBooks) close() error {
	return errors.Join(e.stmts.close(), e.stmts.conn.Close())
}
