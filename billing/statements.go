package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// States of a row of holds.
const (
	stateHeld      = 1
	stateAnswering = 2
	stateVoid      = 3
)

// entry is one charge, as it is posted and as it is spilled.
type entry struct {
	ID          string     `json:"id"` // of the charge; of the charge to correct when Adjust
	Adjust      bool       `json:"adjust,omitempty"`
	KeyID       string     `json:"key_id,omitempty"`
	Day         string     `json:"day,omitempty"`
	Model       string     `json:"model,omitempty"`
	AnswerModel string     `json:"answer_model,omitempty"`
	Endpoint    string     `json:"endpoint,omitempty"`
	RequestID   string     `json:"request_id,omitempty"`
	Prompt      int64      `json:"prompt"`
	Completion  int64      `json:"completion"`
	Cached      int64      `json:"cached,omitempty"`
	Reasoning   int64      `json:"reasoning,omitempty"`
	Provenance  Provenance `json:"provenance"`
	HoldTokens  int64      `json:"hold_tokens,omitempty"`
	Note        string     `json:"note,omitempty"`
	AdmittedAt  int64      `json:"admitted_at,omitempty"` // microseconds UTC
	SettledAt   int64      `json:"settled_at"`
}

func (e *entry) total() int64 { return e.Prompt + e.Completion }

// add takes a correction into the sum of a charge.
func (e *entry) add(c *entry) {
	e.Prompt += c.Prompt
	e.Completion += c.Completion
	e.Cached += c.Cached
	e.Reasoning += c.Reasoning
}

// beyond is the correction that brings what stands in the books up to the
// cumulative figures of e, nil when nothing is missing. The hold is long gone,
// so all of it is overshoot.
func (e *entry) beyond(standing *entry) *entry {
	more := e.total() - standing.total()
	if more <= 0 {
		return nil
	}
	row := *standing
	row.Completion = min(more, max(0, e.Completion-standing.Completion))
	row.Prompt = more - row.Completion
	row.Cached = max(0, e.Cached-standing.Cached)
	row.Reasoning = max(0, e.Reasoning-standing.Reasoning)
	row.HoldTokens = 0
	row.Provenance, row.Note, row.SettledAt = e.Provenance, e.Note, e.SettledAt
	if e.AnswerModel != "" {
		row.AnswerModel = e.AnswerModel
	}
	return &row
}

// statements are the writer's: prepared once on the one connection that writes.
type statements struct {
	conn    *sql.Conn
	deltas  map[accountKey]figuresDelta
	prepped []*sql.Stmt

	begin, commit, rollback             *sql.Stmt
	hold, dropHold, voidHold, mark      *sql.Stmt
	charge, sum, updateAcct, insertAcct *sql.Stmt
	heartbeat, dataVersion              *sql.Stmt
}

type accountKey struct{ keyID, day string }

type figuresDelta struct{ used, held, requests int64 }

func prepare(ctx context.Context, conn *sql.Conn) (*statements, error) {
	s := &statements{conn: conn, deltas: map[accountKey]figuresDelta{}}
	var failed error
	stmt := func(query string) *sql.Stmt {
		st, err := conn.PrepareContext(ctx, query)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("prepare %q: %w", query, err))
			return nil
		}
		s.prepped = append(s.prepped, st)
		return st
	}
	s.begin, s.commit, s.rollback = stmt("BEGIN IMMEDIATE"), stmt("COMMIT"), stmt("ROLLBACK")
	s.hold = stmt(`INSERT INTO holds (id, key_id, day, model, endpoint, request_id, tokens, prompt_bound, prompt_estimate,
		state, seen_prompt, seen_completion, admitted_at, resolved_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, 0, ?, 0)`)
	s.dropHold = stmt("DELETE FROM holds WHERE id = ? AND state < 3")
	s.voidHold = stmt("UPDATE holds SET state = 3, resolved_at = ? WHERE id = ? AND state < 3")
	s.mark = stmt(`UPDATE holds SET state = 2, seen_prompt = max(seen_prompt, ?), seen_completion = max(seen_completion, ?)
		WHERE id = ? AND state < 3`)
	s.charge = stmt(`INSERT INTO charges (id, ref, kind, key_id, day, model, answer_model, endpoint, request_id, prompt,
		completion, total, cached, reasoning, provenance, hold_tokens, overshoot, note, admitted_at, settled_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`)
	s.sum = stmt(`SELECT prompt, completion, cached, reasoning, key_id, day, model, answer_model, endpoint, request_id, admitted_at
		FROM charges WHERE id = ?1 UNION ALL
		SELECT prompt, completion, cached, reasoning, key_id, day, model, answer_model, endpoint, request_id, admitted_at
		FROM charges WHERE ref = ?1`)
	s.updateAcct = stmt(`UPDATE accounts SET used = used + ?, held = held + ?, requests = requests + ?
		WHERE key_id = ? AND day = ?`)
	s.insertAcct = stmt("INSERT INTO accounts (used, held, requests, key_id, day) VALUES (?, ?, ?, ?, ?)")
	s.heartbeat = stmt("UPDATE meta SET v = ? WHERE k = 'heartbeat'")
	s.dataVersion = stmt("PRAGMA data_version")
	if failed != nil {
		return nil, errors.Join(failed, s.close())
	}
	return s, nil
}

func (s *statements) close() error {
	var errs []error
	for _, st := range s.prepped {
		errs = append(errs, st.Close())
	}
	return errors.Join(errs...)
}

// inTx runs f in one immediate transaction. unsure says that the failure was
// the commit's own: the transaction may be in the database or not.
func (s *statements) inTx(f func() error) (unsure bool, err error) {
	if _, err := s.begin.Exec(); err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	clear(s.deltas)
	if err = f(); err == nil {
		err = s.writeDeltas()
	}
	if err == nil {
		if _, err = s.commit.Exec(); err == nil {
			return false, nil
		}
		unsure, err = true, fmt.Errorf("commit: %w", err)
	}
	// Some failures have rolled back already; then this one says so, harmlessly.
	_, _ = s.rollback.Exec()
	return unsure, err
}

func (s *statements) add(keyID, day string, d figuresDelta) {
	k := accountKey{keyID, day}
	sum := s.deltas[k]
	s.deltas[k] = figuresDelta{sum.used + d.used, sum.held + d.held, sum.requests + d.requests}
}

// writeDeltas posts the batch's sum to each account it touched.
func (s *statements) writeDeltas() error {
	for k, d := range s.deltas {
		n, err := affected(s.updateAcct.Exec(d.used, d.held, d.requests, k.keyID, k.day))
		if err == nil && n == 0 {
			_, err = s.insertAcct.Exec(d.used, d.held, d.requests, k.keyID, k.day)
		}
		if err != nil {
			return fmt.Errorf("account %s %s: %w", k.keyID, k.day, err)
		}
	}
	return nil
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (s *statements) insertHold(h *openHold) error {
	_, err := s.hold.Exec(h.id, h.keyID, h.day, h.model, h.endpoint, h.requestID, h.tokens, h.promptBound, h.promptEstimate, h.admittedAt)
	if err != nil {
		return fmt.Errorf("insert hold: %w", err)
	}
	s.add(h.keyID, h.day, figuresDelta{held: h.tokens})
	return nil
}

// endHold removes or voids an open hold and gives back what it held; it does
// nothing when the hold has ended already.
func (s *statements) endHold(keyID, day string, tokens int64, r sql.Result, err error) error {
	n, err := affected(r, err)
	if err != nil {
		return fmt.Errorf("end hold: %w", err)
	}
	if n > 0 {
		s.add(keyID, day, figuresDelta{held: -tokens})
	}
	return nil
}

func (s *statements) eraseHold(h *openHold) error {
	r, err := s.dropHold.Exec(h.id)
	return s.endHold(h.keyID, h.day, h.tokens, r, err)
}

func (s *statements) void(h *openHold, now time.Time) error {
	r, err := s.voidHold.Exec(micros(now), h.id)
	return s.endHold(h.keyID, h.day, h.tokens, r, err)
}

// post appends a charge and ends its hold. Posting the same charge again does
// nothing, which makes retries and replays safe.
func (s *statements) post(e *entry) error {
	n, err := s.insertCharge(e, e.ID, nil, "charge", e.HoldTokens, max(0, e.total()-e.HoldTokens))
	if err != nil {
		return err
	}
	if n > 0 {
		s.add(e.KeyID, e.Day, figuresDelta{used: e.total(), requests: 1})
	}
	r, err := s.dropHold.Exec(e.ID)
	return s.endHold(e.KeyID, e.Day, e.HoldTokens, r, err)
}

func (s *statements) insertCharge(e *entry, id string, ref any, kind string, held, overshoot int64) (int64, error) {
	n, err := affected(s.charge.Exec(id, ref, kind, e.KeyID, e.Day, e.Model, e.AnswerModel, e.Endpoint, e.RequestID,
		e.Prompt, e.Completion, e.total(), e.Cached, e.Reasoning, string(e.Provenance), held, overshoot, e.Note, e.AdmittedAt, e.SettledAt))
	if err != nil {
		return 0, fmt.Errorf("insert charge: %w", err)
	}
	return n, nil
}

// adjust appends what e says beyond what stands in the books for its charge.
// It returns what it appended, nil for nothing.
func (s *statements) adjust(e *entry) (*entry, error) {
	sum, err := s.standing(e.ID)
	if err != nil {
		return nil, err
	}
	row := e.beyond(sum)
	if row == nil {
		return nil, nil
	}
	id, err := newUUID(instant(row.SettledAt))
	if err != nil {
		return nil, err
	}
	if _, err := s.insertCharge(row, id.String(), e.ID, "adjust", 0, row.total()); err != nil {
		return nil, err
	}
	s.add(row.KeyID, row.Day, figuresDelta{used: row.total()})
	return row, nil
}

// standing is a charge with its corrections so far.
func (s *statements) standing(id string) (*entry, error) {
	rows, err := s.sum.Query(id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var sum *entry
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.Prompt, &e.Completion, &e.Cached, &e.Reasoning, &e.KeyID, &e.Day, &e.Model,
			&e.AnswerModel, &e.Endpoint, &e.RequestID, &e.AdmittedAt); err != nil {
			return nil, err
		}
		if sum == nil {
			sum = &e
			continue
		}
		sum.add(&e)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if sum == nil {
		return nil, fmt.Errorf("charge to correct: %w", ErrUnknownHold)
	}
	return sum, nil
}
