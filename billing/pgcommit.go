package billing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// textSet is a set of ids for a parameter of a statement.
type textSet map[string]struct{}

func newSet() textSet { return textSet{} }

func (s textSet) add(id string) { s[id] = struct{}{} }

func (s textSet) sorted() []string { return slices.Sorted(maps.Keys(s)) }

// pgBatch is one transaction of the writer: what to lock and to read first,
// and what to write then.
type pgBatch struct {
	ops      []*op
	reserves int
	keys     textSet  // of all operations: whoever changes a key's accounts holds its lock
	ends     []string // holds that end in this batch
	settles  []*op
	fixes    []*op // corrections, which need what the others commit
	ping     bool
	marks    []progressMark
}

func newPGBatch(ops []*op, marks []progressMark) *pgBatch {
	b := &pgBatch{ops: ops, marks: marks, keys: newSet()}
	for _, o := range ops {
		switch o.kind {
		case opReserve:
			b.reserves++
			b.keys.add(o.hold.keyID)
		case opSettle:
			b.settles = append(b.settles, o)
			b.ends = append(b.ends, o.entry.ID)
			b.keys.add(o.entry.KeyID)
		case opVoid, opErase:
			b.ends = append(b.ends, o.hold.id)
			b.keys.add(o.hold.keyID)
		case opCorrect:
			b.fixes = append(b.fixes, o)
		case opPing:
			b.ping = true
		case opTask: // SQLite's
		}
	}
	for _, m := range marks {
		b.keys.add(m.keyID)
	}
	return b
}

// commit writes a batch in one transaction of one or two messages; corrections
// follow in their own.
func (e *pgBooks) commit(ops []*op, marks []progressMark) (rest []*op, unsure bool, err error) {
	b := newPGBatch(ops, marks)
	fixes := b.fixes
	if len(fixes) < len(ops) || len(marks) > 0 {
		posted, unsure, err := e.write(b)
		if err != nil {
			return ops, unsure, err
		}
		if posted < int64(len(b.settles)) {
			// Some are in the books already: by an earlier try of ours, or because
			// this replica was taken for dead and others ended its holds.
			fixes = append(slices.Clone(b.settles), fixes...)
		}
	}
	if len(fixes) == 0 {
		return nil, false, nil
	}
	if err := e.reconcile(fixes); err != nil {
		return fixes, false, err
	}
	return nil, false, nil
}

// write commits all of a batch but its corrections and says how many charges
// were new.
func (e *pgBooks) write(b *pgBatch) (posted int64, unsure bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*pgAnswerWait)
	defer cancel()
	reused := e.conn != nil
	posted, unsure, err = e.tryWrite(ctx, b)
	if err != nil && reused && !unsure && e.conn == nil {
		// A connection that was made before the server's last restart says
		// nothing about the server of now.
		posted, unsure, err = e.tryWrite(ctx, b)
	}
	return posted, unsure, err
}

func (e *pgBooks) tryWrite(ctx context.Context, b *pgBatch) (posted int64, unsure bool, err error) {
	conn, err := e.connected(ctx)
	if err != nil {
		return 0, false, err
	}
	defer func() {
		if err != nil {
			e.abandon(ctx, err)
		}
	}()
	now := e.clock.now()
	seen := sight{}
	out := &pgx.Batch{}
	if b.reserves > 0 {
		if seen, err = e.look(ctx, conn, b); err != nil {
			return 0, false, err
		}
		now = seen.now
	} else {
		out.Queue(pgBegin)
		out.Queue(pgLockKeys, b.keys.sorted())
	}
	w, err := e.decide(b, &seen, now)
	if err != nil {
		return 0, false, err
	}
	w.queue(out, micros(now))
	if b.ping {
		out.Queue(pgRenew, e.replica, e.book.opt.Lease.Microseconds())
	}
	out.Queue("COMMIT")
	posted, moved, unsure, err := send(ctx, conn, out)
	if err != nil {
		return 0, unsure, fmt.Errorf("commit: %w", err)
	}
	e.copies.committed(seen.accounts, moved)
	e.nearing(moved)
	return posted, false, nil
}

// sight is what a batch finds under its keys' locks.
type sight struct {
	now      time.Time
	keys     map[string]keyNow
	accounts map[string]*accountCopy
	days     map[accountKey]struct{} // accounts that have a row
	open     textSet                 // of the holds that end in this batch, those that are open
}

type keyNow struct {
	limits                          Limits // its own or its plan's
	expiresAt, revokedAt, blockedAt int64
}

// look begins the transaction, takes the locks and reads what the decisions
// need. The clock is read after the locks: what one holder of a lock decided
// before another is earlier by the clock too.
func (e *pgBooks) look(ctx context.Context, conn *pgx.Conn, b *pgBatch) (seen sight, err error) {
	ctx, cancel := context.WithTimeout(ctx, pgAnswerWait)
	defer cancel()
	p := e.copies.current()
	keys := b.keys.sorted()
	ask := &pgx.Batch{}
	ask.Queue(pgBegin)
	ask.Queue(pgLockKeys, keys)
	ask.Queue(pgAccounts, keys, p.month+"-01", p.day)
	ask.Queue("SELECT " + pgMicros)
	if len(b.ends) > 0 {
		ask.Queue("SELECT id FROM holds WHERE id = ANY($1) AND state < 3", b.ends)
	}
	answers := conn.SendBatch(ctx, ask)
	defer func() {
		if closed := answers.Close(); err == nil {
			err = closed
		}
	}()
	if _, err := answers.Exec(); err != nil {
		return seen, fmt.Errorf("begin: %w", err)
	}
	seen.keys = map[string]keyNow{}
	var id string
	var k keyNow
	err = scanAll(answers, []any{&id, &k.limits.Tariff, &k.limits.Daily, &k.limits.Monthly, &k.limits.Money, &k.expiresAt, &k.revokedAt, &k.blockedAt}, func() {
		seen.keys[id] = k
	})
	if err != nil {
		return seen, fmt.Errorf("lock keys: %w", err)
	}
	rows, err := scanAccounts(answers)
	if err != nil {
		return seen, err
	}
	var us int64
	if err := answers.QueryRow().Scan(&us); err != nil {
		return seen, fmt.Errorf("clock: %w", err)
	}
	seen.now = e.clock.learn(us)
	p = e.copies.enter(seen.now)
	seen.accounts, seen.days = map[string]*accountCopy{}, map[accountKey]struct{}{}
	for _, id := range keys {
		seen.accounts[id] = newCopy(p, rows[id])
		for _, r := range rows[id] {
			seen.days[accountKey{id, r.day}] = struct{}{}
		}
	}
	seen.open = newSet()
	if len(b.ends) > 0 {
		if err := scanAll(answers, []any{&id}, func() { seen.open.add(id) }); err != nil {
			return seen, fmt.Errorf("open holds: %w", err)
		}
	}
	return seen, nil
}

// scanAll reads one answer of a batch row by row.
func scanAll(answers pgx.BatchResults, into []any, each func()) error {
	rows, err := answers.Query()
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, into, func() error { each(); return nil })
	return err
}

// decide goes through the batch in its order, grants or refuses each reserve
// over what the database says and this batch has given so far, and returns
// what is to be written. It changes nothing but the operations.
func (e *pgBooks) decide(b *pgBatch, seen *sight, now time.Time) (*pgWrites, error) {
	w := &pgWrites{replica: e.replica, writer: e.replica, marks: b.marks}
	given := map[string]*accountCopy{}
	at := func(keyID string) *accountCopy {
		if given[keyID] == nil {
			c := accountCopy{}
			if known := seen.accounts[keyID]; known != nil {
				c = *known
			}
			given[keyID] = &c
		}
		return given[keyID]
	}
	freed := func(keyID, day, id string, d delta) {
		if _, open := seen.open[id]; open {
			at(keyID).account.add(day, d)
			delete(seen.open, id)
		}
	}
	for _, o := range b.ops {
		switch o.kind {
		case opReserve:
			c := at(o.hold.keyID)
			if o.refused = e.grant(o.hold, seen, c, now); o.refused != nil {
				continue
			}
			c.account.add(o.hold.day, o.hold.holding())
			w.hold(o.hold)
			if _, there := seen.days[accountKey{o.hold.keyID, o.hold.day}]; !there {
				w.account(o.hold.keyID, o.hold.day)
			}
		case opSettle:
			freed(o.entry.KeyID, o.entry.Day, o.entry.ID, o.entry.settling())
			if err := w.settle(o.entry); err != nil {
				return nil, err
			}
		case opVoid:
			freed(o.hold.keyID, o.hold.day, o.hold.id, o.hold.ended())
			w.voids = append(w.voids, o.hold.id)
		case opErase:
			freed(o.hold.keyID, o.hold.day, o.hold.id, o.hold.ended())
			w.ends = append(w.ends, o.hold.id)
		case opCorrect, opPing, opTask:
		}
	}
	return w, nil
}

// grant decides one reserve by the key as it is in the database.
func (e *pgBooks) grant(h *openHold, seen *sight, c *accountCopy, now time.Time) error {
	row, ok := seen.keys[h.keyID]
	if !ok {
		return fmt.Errorf("%w", ErrUnknownKey)
	}
	k := Key{ExpiresAt: instant(row.expiresAt), RevokedAt: instant(row.revokedAt), BlockedAt: instant(row.blockedAt)}
	if err := k.usable(now); err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownKey, err)
	}
	return h.decide(&c.account, c.period, row.limits.or(e.book.defaults()), now)
}

// send ends the transaction. unsure says that nobody knows whether it
// committed: the answer did not come, or was not the server's last word.
func send(ctx context.Context, conn *pgx.Conn, out *pgx.Batch) (posted int64, moved []movement, unsure bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, pgAnswerWait)
	defer cancel()
	answers := conn.SendBatch(ctx, out)
	for _, q := range out.QueuedQueries {
		if q.SQL == pgWrite {
			if posted, moved, err = scanMoved(answers); err != nil {
				break
			}
			continue
		}
		tag, failed := answers.Exec()
		if err = failed; err != nil {
			break
		}
		if q.SQL == "COMMIT" && tag.String() != "COMMIT" {
			err = fmt.Errorf("the server answers %s", tag)
		}
	}
	if closed := answers.Close(); err == nil {
		err = closed
	}
	if err != nil {
		state, fatal := sqlState(err)
		unsure = state == "" || fatal
	}
	return posted, moved, unsure, err
}

const pgBegin = "BEGIN ISOLATION LEVEL READ COMMITTED"
