package billing

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// recover brings the books to rest after whatever ended the last gateway:
// first the settles that were spilled, then the holds that nobody ended.
func (b *Book) recover() error {
	spill, records, err := openSpill(b.opt.DataDir)
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	b.spill = spill
	stuck, err := b.replay(records)
	if err != nil {
		return fmt.Errorf("replay spill: %w", err)
	}
	if err := spill.replayed(stuck); err != nil {
		return fmt.Errorf("empty spill: %w", err)
	}
	n, err := b.engine.recover()
	if err != nil {
		return fmt.Errorf("recover holds: %w", err)
	}
	if n > 0 || len(records) > 0 {
		b.log.Info("books: recovered", zap.Int("spilled", len(records)), zap.Int("holds", n))
	}
	return nil
}

// replay posts spilled records in their order, each at most once. Records that
// can never be posted are counted and kept for a person to look at.
func (b *Book) replay(records []entry) (stuck int, err error) {
	for i := range records {
		e := &records[i]
		kind := opSettle
		if e.Adjust {
			kind = opCorrect
		}
		_, _, err := b.engine.commit([]*op{newOp(kind, nil, e)}, nil)
		switch {
		case err == nil:
		case b.engine.permanent(err):
			stuck++
			b.log.Error("books: a spilled settle cannot be posted; run the audit", zap.String("charge", e.ID), zap.Error(err))
		default:
			return stuck, err
		}
	}
	return stuck, nil
}

// holdRow is a row of the table holds, as recovery needs it.
type holdRow struct {
	ID, KeyID, Day, Model, Endpoint, RequestID string
	Tokens, Cost, Price, PromptEstimate        int64
	State                                      int64
	SeenPrompt, SeenCompletion, AdmittedAt     int64
}

// outcome is what an open hold costs whose process is dead: nothing when it
// was never forwarded, what was seen of the answer when that had begun.
func (h *holdRow) outcome(now int64, note string, priceOf pricer) (*entry, error) {
	e := &entry{
		ID: h.ID, KeyID: h.KeyID, Day: h.Day, Model: h.Model, Endpoint: h.Endpoint, RequestID: h.RequestID,
		Provenance: Expired, HoldTokens: h.Tokens, HoldCost: h.Cost, Note: note, AdmittedAt: h.AdmittedAt, SettledAt: now,
	}
	if h.State == stateAnswering {
		e.Provenance, e.Prompt, e.Completion = Recovered, h.SeenPrompt, h.SeenCompletion
		if e.Prompt == 0 {
			e.Prompt = h.PromptEstimate
		}
	}
	price, err := priceOf(h.Price)
	if err != nil {
		return nil, err
	}
	e.priced(price)
	return e, nil
}

// Admission is one admitted request.
type Admission struct {
	ID, KeyID string
	At        time.Time // UTC
	Tokens    int64     // what it cost with its corrections, what it holds while it is open, 0 when it was voided
}

// idAge is how much older than its admission a hold's id may be: ids of
// callers are minted before they wait, and clocks of machines differ.
const idAge = 5 * time.Minute

// Admissions lists the requests admitted at or after since, in order of time
// and of all replicas: charged, open and voided ones. Request windows are
// rebuilt from it. Voided holds are known for a day. ErrUnavailable.
func (b *Book) Admissions(ctx context.Context, since time.Time) ([]Admission, error) {
	var rows []struct {
		ID, KeyID          string
		AdmittedAt, Tokens int64
	}
	// Ids begin with the time they were minted: a range of the primary keys.
	floor, from := idFloor(since.Add(-idAge)), micros(since)
	err := b.store.read.WithContext(ctx).Raw(`SELECT id, key_id, admitted_at, CAST(sum(tokens) AS BIGINT) AS tokens FROM (
		SELECT coalesce(ref, id) AS id, key_id, admitted_at, total AS tokens FROM charges WHERE id >= ? AND admitted_at >= ?
		UNION ALL SELECT id, key_id, admitted_at, CASE WHEN state = 3 THEN 0 ELSE tokens END FROM holds
		WHERE id >= ? AND admitted_at >= ?) AS admitted GROUP BY id, key_id, admitted_at ORDER BY admitted_at, id`,
		floor, from, floor, from).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("admissions: %w: %w", ErrUnavailable, err)
	}
	list := make([]Admission, len(rows))
	for i, r := range rows {
		list[i] = Admission{ID: r.ID, KeyID: r.KeyID, At: instant(r.AdmittedAt), Tokens: r.Tokens}
	}
	return list, nil
}
