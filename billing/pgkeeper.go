package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

const (
	pgChannel  = "llmgw_keys"
	sweepEvery = time.Second
	sweepMax   = 200 // holds ended in one transaction
	// keeperChain is added to a replica's name: its keeper writes beside its writer.
	keeperChain = "/keeper"
	pruneMax    = 2000
)

// watch is what one connection of the keeper has seen.
type watch struct {
	conn             *pgx.Conn
	rev              int64     // key revision that memory has
	renewed, swept   time.Time // by this machine's clock
	pruned           time.Time // by the books' clock
	steady           time.Time // since when the lease has not lapsed
	renewEvery, wait time.Duration
}

// keep works until the books are closed, with a new connection when one fails.
func (e *pgBooks) keep() {
	w := &watch{rev: -1, steady: time.Now(), renewEvery: e.book.opt.Lease / 4}
	w.wait = min(pollEvery, w.renewEvery)
	defer func() { pgDrop(w.conn) }()
	backoff := backoffMin
	for {
		err := e.round(w)
		select {
		case <-e.keeper.quit:
			return
		default:
		}
		if err == nil {
			backoff = backoffMin
			continue
		}
		e.book.log.Warn("books: housekeeping failed", zap.Error(err))
		pgDrop(w.conn)
		w.conn = nil
		if !e.keeper.rest(backoff) {
			return
		}
		backoff = min(2*backoff, backoffMax)
	}
}

// round waits for a notification, for a while, and does what is due.
func (e *pgBooks) round(w *watch) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // a wait ends with the books
		select {
		case <-e.keeper.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	if w.conn == nil {
		if err := e.listen(ctx, w); err != nil {
			return err
		}
	} else {
		idle, stop := context.WithTimeout(ctx, w.wait)
		_, err := w.conn.WaitForNotification(idle)
		stop()
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || w.conn.IsClosed()) {
			return fmt.Errorf("listen: %w", err)
		}
	}
	return e.due(ctx, w)
}

func (e *pgBooks) listen(ctx context.Context, w *watch) (err error) {
	ctx, cancel := context.WithTimeout(ctx, pgAnswerWait)
	defer cancel()
	if w.conn, err = pgConnect(ctx, pgWith(e.book.store.pg, pgBounds(e.book.opt.ReserveWait))); err != nil {
		return err
	}
	if _, err := w.conn.Exec(ctx, "LISTEN "+pgChannel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// due does what its time has come for.
func (e *pgBooks) due(ctx context.Context, w *watch) error {
	ctx, cancel := context.WithTimeout(ctx, 2*pgAnswerWait)
	defer cancel()
	now := time.Now()
	if now.Sub(w.renewed) >= w.renewEvery {
		lapsed, err := e.renew(ctx, w.conn)
		if err != nil {
			return err
		}
		if lapsed {
			w.steady = now
		}
		w.renewed = now
	}
	if err := e.refreshKeys(ctx, w); err != nil {
		return err
	}
	if now.Sub(w.swept) >= min(sweepEvery, e.book.opt.Lease) {
		if err := e.sweep(ctx, w, now); err != nil {
			return err
		}
		w.swept = now
	}
	if at := e.book.opt.Now(); w.pruned.IsZero() || at.Sub(w.pruned) > pruneEvery || at.Before(w.pruned) {
		done, err := w.conn.Exec(ctx, "DELETE FROM holds WHERE id IN (SELECT id FROM holds WHERE state = 3 AND id < $1 LIMIT $2)",
			idFloor(at.Add(-voidsKept)), pruneMax)
		if err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		if done.RowsAffected() < pruneMax {
			w.pruned = at
		}
	}
	return nil
}

// refreshKeys loads the keys that changed since the last time.
func (e *pgBooks) refreshKeys(ctx context.Context, w *watch) error {
	var rev int64
	if err := w.conn.QueryRow(ctx, "SELECT CAST(v AS bigint) FROM meta WHERE k = 'key_rev'").Scan(&rev); err != nil {
		return fmt.Errorf("poll: %w", err)
	}
	if rev == w.rev {
		return nil
	}
	if err := e.book.keys.load(e.book.store.read.WithContext(ctx)); err != nil {
		return fmt.Errorf("keys not refreshed: %w", err)
	}
	w.rev = rev
	return nil
}

// lost selects the open holds of replicas without a live lease.
const lost = "NOT EXISTS (SELECT 1 FROM replicas r WHERE r.id = h.replica AND r.lease_until > " + pgMicros + " AND $1::text = '')"

// sweep ends what replicas left that are gone. After a failure of the database
// all leases have run out, and everybody gets the time of one to come back:
// only who has held its own for that long ends the holds of others.
func (e *pgBooks) sweep(ctx context.Context, w *watch, now time.Time) error {
	var alive int64
	if err := w.conn.QueryRow(ctx, "SELECT count(*) FROM replicas WHERE lease_until > "+pgMicros).Scan(&alive); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	e.keeper.replicas.Store(alive)
	if now.Sub(w.steady) < e.book.opt.Lease {
		return nil
	}
	n, err := e.endHolds(ctx, w.conn, lost, "", "its gateway was gone")
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	if n > 0 {
		e.keeper.recovered.Add(int64(n))
		e.book.log.Info("books: ended holds of a gateway that is gone", zap.Int("holds", n))
	}
	if n < sweepMax {
		_, err = w.conn.Exec(ctx, `DELETE FROM replicas r WHERE r.lease_until < `+pgMicros+` - $1
			AND NOT EXISTS (SELECT 1 FROM holds h WHERE h.replica = r.id AND h.state < 3)`, e.book.opt.Lease.Microseconds())
	}
	return err
}

// endHolds ends up to sweepMax open holds that a condition with one parameter
// selects, and says how many. Accounts change under their keys' locks only, so
// those are taken first, in the order that all take them.
func (e *pgBooks) endHolds(ctx context.Context, conn *pgx.Conn, which, parameter, note string) (n int, err error) {
	found, err := openHolds(ctx, conn, which+" ORDER BY h.id LIMIT "+fmt.Sprint(sweepMax), parameter)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	keys, ids := newSet(), newSet()
	for i := range found {
		keys.add(found[i].KeyID)
		ids.add(found[i].ID)
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, pgLockKeys, keys.sorted()); err != nil {
		return 0, err
	}
	// Some may have ended while the locks were waited for, or their replica come back.
	still, err := openHolds(ctx, tx, which+" AND h.id = ANY($2)", parameter, ids.sorted())
	if err != nil {
		return 0, err
	}
	w := pgWrites{writer: e.replica + keeperChain}
	now := micros(e.clock.now())
	for i := range still {
		o, err := still[i].outcome(now, note, e.book.priceOf)
		if err == nil {
			err = w.settle(o)
		}
		if err != nil {
			return 0, err
		}
	}
	if _, err := tx.Exec(ctx, pgWrite, w.args(now)...); err != nil {
		return 0, err
	}
	return len(still), tx.Commit(ctx)
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func openHolds(ctx context.Context, q querier, where string, args ...any) ([]holdRow, error) {
	rows, err := q.Query(ctx, `SELECT h.id, h.key_id, h.day, h.model, h.endpoint, h.request_id, h.tokens, h.cost, h.price, h.prompt_estimate,
		h.state, h.seen_prompt, h.seen_completion, h.admitted_at FROM holds h WHERE h.state < 3 AND `+where, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[holdRow])
}
