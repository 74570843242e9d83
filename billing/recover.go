package billing

import (
	"fmt"
	"time"

	"go.uber.org/zap"
)

// recover brings the books to rest after whatever ended the last gateway:
// first the settles that were spilled, then the holds that nobody ended.
func (b *Book) recover(s *statements) error {
	spill, records, err := openSpill(b.opt.DataDir)
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	b.spill = spill
	stuck, err := b.replay(s, records)
	if err != nil {
		return fmt.Errorf("replay spill: %w", err)
	}
	if err := spill.replayed(stuck); err != nil {
		return fmt.Errorf("empty spill: %w", err)
	}
	n, err := b.recoverHolds(s)
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
func (b *Book) replay(s *statements, records []entry) (stuck int, err error) {
	for i := range records {
		e := &records[i]
		_, err := s.inTx(func() error {
			if e.Adjust {
				_, err := s.adjust(e)
				return err
			}
			return s.post(e)
		})
		switch {
		case err == nil:
		case permanent(err):
			stuck++
			b.log.Error("books: a spilled settle cannot be posted; run the audit", zap.String("charge", e.ID), zap.Error(err))
		default:
			return stuck, err
		}
	}
	return stuck, nil
}

// recoverHolds ends every open hold in one transaction: one that was never
// forwarded costs nothing, an answer that had begun costs what was seen of it.
func (b *Book) recoverHolds(s *statements) (int, error) {
	var open []struct {
		ID, KeyID, Day, Model, Endpoint, RequestID string
		Tokens, PromptEstimate                     int64
		State                                      int
		SeenPrompt, SeenCompletion, AdmittedAt     int64
	}
	if err := b.store.read.Raw("SELECT * FROM holds WHERE state < 3 ORDER BY id").Scan(&open).Error; err != nil {
		return 0, err
	}
	if len(open) == 0 {
		return 0, nil
	}
	now := micros(b.opt.Now())
	_, err := s.inTx(func() error {
		for _, h := range open {
			e := &entry{
				ID: h.ID, KeyID: h.KeyID, Day: h.Day, Model: h.Model, Endpoint: h.Endpoint, RequestID: h.RequestID,
				Provenance: Expired, HoldTokens: h.Tokens, Note: "found open at start", AdmittedAt: h.AdmittedAt, SettledAt: now,
			}
			if h.State == stateAnswering {
				e.Provenance, e.Prompt, e.Completion = Recovered, h.SeenPrompt, h.SeenCompletion
				if e.Prompt == 0 {
					e.Prompt = h.PromptEstimate
				}
			}
			if err := s.post(e); err != nil {
				return err
			}
		}
		return nil
	})
	return len(open), err
}

// Admissions lists when requests were admitted at or after since, by key id
// and in order of time: from charges, open holds and voided ones. Request
// windows are rebuilt from it. Voided holds are known for a day.
func (b *Book) Admissions(since time.Time) (map[string][]time.Time, error) {
	var rows []struct {
		KeyID      string
		AdmittedAt int64
	}
	// Ids begin with the time they were minted: a range of the primary keys.
	floor, from := idFloor(since), micros(since)
	err := b.store.read.Raw(`SELECT key_id, admitted_at FROM (
		SELECT key_id, admitted_at FROM charges WHERE id >= ? AND admitted_at >= ? AND kind = 'charge'
		UNION ALL SELECT key_id, admitted_at FROM holds WHERE id >= ? AND admitted_at >= ?) ORDER BY admitted_at`,
		floor, from, floor, from).Scan(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("admissions: %w: %w", ErrUnavailable, err)
	}
	times := map[string][]time.Time{}
	for _, r := range rows {
		times[r.KeyID] = append(times[r.KeyID], instant(r.AdmittedAt))
	}
	return times, nil
}
