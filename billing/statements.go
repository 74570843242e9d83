package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// States of a row of holds.
const (
	stateHeld      = 1
	stateAnswering = 2
	stateVoid      = 3
)

// statements are the writer's: prepared once on the one connection that writes.
type statements struct {
	conn    *sql.Conn
	deltas  map[accountKey]figuresDelta
	posted  sealer // what the transaction has charged
	prepped []*sql.Stmt

	begin, commit, rollback             *sql.Stmt
	hold, dropHold, voidHold, mark      *sql.Stmt
	charge, sum, updateAcct, insertAcct *sql.Stmt
	head, link                          *sql.Stmt
	heartbeat, dataVersion              *sql.Stmt
}

type accountKey struct{ keyID, day string }

type figuresDelta struct {
	delta
	requests int64
}

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
	s.hold = stmt(`INSERT INTO holds (id, key_id, day, model, endpoint, request_id, tokens, cost, price, prompt_bound, prompt_estimate,
		state, seen_prompt, seen_completion, admitted_at, resolved_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0, 0, ?, 0)`)
	s.dropHold = stmt("DELETE FROM holds WHERE id = ? AND state < 3")
	s.voidHold = stmt("UPDATE holds SET state = 3, resolved_at = ? WHERE id = ? AND state < 3")
	s.mark = stmt(`UPDATE holds SET state = 2, seen_prompt = max(seen_prompt, ?), seen_completion = max(seen_completion, ?)
		WHERE id = ? AND state < 3`)
	s.charge = stmt("INSERT INTO charges (" + chargeColumns + ") VALUES (?" + strings.Repeat(", ?", strings.Count(chargeColumns, ",")) +
		") ON CONFLICT (id) DO NOTHING")
	s.sum = stmt("SELECT " + standingColumns + " FROM charges WHERE id = ?1 UNION ALL SELECT " + standingColumns + " FROM charges WHERE ref = ?1")
	s.updateAcct = stmt(`UPDATE accounts SET used = used + ?, held = held + ?, spent = spent + ?, reserved = reserved + ?, requests = requests + ?
		WHERE key_id = ? AND day = ?`)
	s.insertAcct = stmt("INSERT INTO accounts (used, held, spent, reserved, requests, key_id, day) VALUES (?, ?, ?, ?, ?, ?, ?)")
	s.head = stmt("SELECT link, hash FROM links WHERE writer = ? ORDER BY link DESC LIMIT 1")
	s.link = stmt("INSERT INTO links (writer, link, charges, sealed, hash) VALUES (?, ?, ?, ?, ?)")
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
	s.posted = sealer{}
	if err = f(); err == nil {
		err = s.writeDeltas()
	}
	if err == nil {
		err = s.seal()
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
	s.deltas[k] = figuresDelta{sum.plus(d.delta), sum.requests + d.requests}
}

// writeDeltas posts the batch's sum to each account it touched.
func (s *statements) writeDeltas() error {
	for k, d := range s.deltas {
		n, err := affected(s.updateAcct.Exec(d.used.tokens, d.held.tokens, d.used.money, d.held.money, d.requests, k.keyID, k.day))
		if err == nil && n == 0 {
			_, err = s.insertAcct.Exec(d.used.tokens, d.held.tokens, d.used.money, d.held.money, d.requests, k.keyID, k.day)
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
	_, err := s.hold.Exec(h.id, h.keyID, h.day, h.model, h.endpoint, h.requestID, h.tokens, h.cost, h.priceID(), h.promptBound, h.promptEstimate, h.admittedAt)
	if err != nil {
		return fmt.Errorf("insert hold: %w", err)
	}
	s.add(h.keyID, h.day, figuresDelta{delta: h.holding()})
	return nil
}

// endHold removes or voids an open hold and gives back what it held; it does
// nothing when the hold has ended already.
func (s *statements) endHold(keyID, day string, held amount, r sql.Result, err error) error {
	n, err := affected(r, err)
	if err != nil {
		return fmt.Errorf("end hold: %w", err)
	}
	if n > 0 {
		s.add(keyID, day, figuresDelta{delta: delta{held: amount{-held.tokens, -held.money}}})
	}
	return nil
}

func (s *statements) eraseHold(h *openHold) error {
	r, err := s.dropHold.Exec(h.id)
	return s.endHold(h.keyID, h.day, h.holding().held, r, err)
}

func (s *statements) void(h *openHold, now time.Time) error {
	r, err := s.voidHold.Exec(micros(now), h.id)
	return s.endHold(h.keyID, h.day, h.holding().held, r, err)
}

// post appends a charge and ends its hold. Posting the same charge again does
// nothing, which makes retries and replays safe.
func (s *statements) post(e *entry) error {
	n, err := s.insertCharge(e.charge())
	if err != nil {
		return err
	}
	if n > 0 {
		s.add(e.KeyID, e.Day, figuresDelta{delta{used: e.amount()}, 1})
	}
	r, err := s.dropHold.Exec(e.ID)
	return s.endHold(e.KeyID, e.Day, amount{e.HoldTokens, e.HoldCost}, r, err)
}

func (s *statements) insertCharge(c *charge) (int64, error) {
	n, err := affected(s.charge.Exec(c.values()...))
	if err != nil {
		return 0, fmt.Errorf("insert charge: %w", err)
	}
	if n > 0 {
		err = s.posted.add(c)
	}
	return n, err
}

// seal adds the link of what the transaction has charged.
func (s *statements) seal() error {
	if s.posted.empty() {
		return nil
	}
	n, hash := int64(0), firstHash(sqliteWriter)
	if err := s.head.QueryRow(sqliteWriter).Scan(&n, &hash); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("chain: %w", err)
	}
	sealed := s.posted.sealed()
	if _, err := s.link.Exec(sqliteWriter, n+1, s.posted.count(), sealed, nextHash(hash, sealed)); err != nil {
		return fmt.Errorf("chain: %w", err)
	}
	return nil
}

// adjust appends what e says beyond what stands in the books for its charge.
// It returns what it appended, nil for nothing.
func (s *statements) adjust(e *entry, priceOf pricer) (*entry, error) {
	sum, err := s.standing(e.ID)
	if err != nil {
		return nil, err
	}
	row, err := e.beyond(sum, priceOf)
	if row == nil || err != nil {
		return nil, err
	}
	id, err := newUUID(instant(row.SettledAt))
	if err != nil {
		return nil, err
	}
	if _, err := s.insertCharge(row.correction(id.String(), e.ID)); err != nil {
		return nil, err
	}
	s.add(row.KeyID, row.Day, figuresDelta{delta: delta{used: row.amount()}})
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
		if err := rows.Scan(e.standing()...); err != nil {
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
