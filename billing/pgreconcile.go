package billing

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// reconcile brings charges that are in the books up to what the operations
// say they cost, by corrections of the positive difference. Doing it again
// adds nothing.
func (e *pgBooks) reconcile(ops []*op) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*pgAnswerWait)
	defer cancel()
	conn, err := e.connected(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			e.abandon(ctx, err)
		}
	}()
	ids := newSet()
	for _, o := range ops {
		ids.add(o.entry.ID)
	}
	// A charge's key never changes, so it may be read before the lock is taken.
	found, err := standingCharges(ctx, conn, ids)
	if err != nil {
		return err
	}
	keys := newSet()
	for _, c := range found {
		keys.add(c.KeyID)
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	if _, err := tx.Exec(ctx, pgLockKeys, keys.sorted()); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	if found, err = standingCharges(ctx, tx, ids); err != nil {
		return err
	}
	w := pgWrites{writer: e.replica}
	for _, o := range ops {
		if err := w.correct(o, found, e.book.priceOf); err != nil {
			return err
		}
	}
	var moved []movement
	if len(w.cID) > 0 {
		out := &pgx.Batch{}
		w.queue(out, 0)
		answers := tx.SendBatch(ctx, out)
		if _, moved, err = scanMoved(answers); err == nil {
			err = answers.Close()
		}
		if err != nil {
			return fmt.Errorf("reconcile: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	e.copies.committed(nil, moved)
	e.nearing(moved)
	return nil
}

// correct appends what the books lack of an operation's figures and counts it
// as standing, for a later operation on the same charge.
func (w *pgWrites) correct(o *op, found map[string]*entry, priceOf pricer) error {
	standing := found[o.entry.ID]
	if standing == nil {
		return fmt.Errorf("charge to correct: %w", ErrUnknownHold)
	}
	row, err := o.entry.beyond(standing, priceOf)
	if o.posted = row; row == nil || err != nil {
		return err
	}
	id, err := newUUID(instant(row.SettledAt))
	if err != nil {
		return err
	}
	standing.add(row)
	return w.charge(row.correction(id.String(), o.entry.ID))
}

// standingCharges are charges with their corrections so far, by id.
func standingCharges(ctx context.Context, q querier, ids textSet) (map[string]*entry, error) {
	list := ids.sorted()
	rows, err := q.Query(ctx, "SELECT coalesce(ref, id), "+standingColumns+` FROM charges WHERE id = ANY($1::text[]) OR ref = ANY($1::text[]) ORDER BY kind = 'adjust'`, list)
	if err != nil {
		return nil, fmt.Errorf("charges: %w", err)
	}
	found := map[string]*entry{}
	var c entry
	into := append([]any{&c.ID}, c.standing()...)
	_, err = pgx.ForEachRow(rows, into, func() error {
		if first := found[c.ID]; first != nil {
			first.add(&c)
			return nil
		}
		first := c
		found[c.ID] = &first
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("charges: %w", err)
	}
	return found, nil
}
