package billing

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// pgLockKeys is what everybody does first who changes accounts: since all take
// the locks in one order, nobody waits for somebody who waits for him.
const pgLockKeys = `SELECT id, tariff, daily, monthly, expires_at, revoked_at FROM keys
	WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE`

// pgAccounts reads accounts from the month of $2 on: days before $3 as one sum
// of their month, later ones by themselves.
const pgAccounts = `SELECT key_id, CASE WHEN day < $3 THEN left(day, 7) ELSE day END AS p,
	CAST(sum(used) AS bigint), CAST(sum(held) AS bigint)
	FROM accounts WHERE key_id = ANY($1::text[]) AND day >= $2 GROUP BY key_id, p`

const pgEnsure = `INSERT INTO accounts (key_id, day, used, held, requests)
	SELECT k, d, 0, 0, 0 FROM unnest($1::text[], $2::text[]) AS t(k, d) ORDER BY k, d ON CONFLICT DO NOTHING`

const pgMark = `UPDATE holds h SET state = 2, seen_prompt = greatest(h.seen_prompt, m.p), seen_completion = greatest(h.seen_completion, m.c)
	FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS m(id, p, c) WHERE h.id = m.id AND h.state < 3`

// pgWrite does the rest of a batch in one statement. Accounts move by what was
// inserted, deleted or voided in fact, so that a second try moves nothing. It
// returns the number of charges that were new, and the movements.
const pgWrite = `WITH opened AS (
		INSERT INTO holds (id, replica, key_id, day, model, endpoint, request_id, tokens, prompt_bound, prompt_estimate,
			state, seen_prompt, seen_completion, admitted_at, resolved_at)
		SELECT id, $1::text, key_id, day, model, endpoint, request_id, tokens, bound, estimate, 1, 0, 0, admitted_at, 0
		FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
			AS t(id, key_id, day, model, endpoint, request_id, tokens, bound, estimate, admitted_at)
		RETURNING key_id, day, tokens),
	ended AS (DELETE FROM holds WHERE id = ANY($12::text[]) AND state < 3 RETURNING key_id, day, tokens),
	voided AS (UPDATE holds SET state = 3, resolved_at = $13::bigint WHERE id = ANY($14::text[]) AND state < 3 RETURNING key_id, day, tokens),
	posted AS (
		INSERT INTO charges (id, ref, kind, key_id, day, model, answer_model, endpoint, request_id, prompt, completion, total,
			cached, reasoning, provenance, hold_tokens, overshoot, note, admitted_at, settled_at)
		SELECT id, nullif(ref, ''), CASE WHEN ref = '' THEN 'charge' ELSE 'adjust' END, key_id, day, model, answer_model, endpoint,
			request_id, prompt, completion, prompt + completion, cached, reasoning, provenance, held,
			greatest(0, prompt + completion - held), note, admitted_at, settled_at
		FROM unnest($15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[],
			$23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::text[], $28::bigint[], $29::text[], $30::bigint[], $31::bigint[])
			AS t(id, ref, key_id, day, model, answer_model, endpoint, request_id, prompt, completion, cached, reasoning, provenance,
				held, note, admitted_at, settled_at)
		ON CONFLICT (id) DO NOTHING RETURNING key_id, day, total, kind),
	moves AS (
		SELECT key_id, day, CAST(sum(used) AS bigint) AS used, CAST(sum(held) AS bigint) AS held, sum(requests) AS requests FROM (
			SELECT key_id, day, 0 AS used, tokens AS held, 0 AS requests FROM opened
			UNION ALL SELECT key_id, day, 0, -tokens, 0 FROM ended
			UNION ALL SELECT key_id, day, 0, -tokens, 0 FROM voided
			UNION ALL SELECT key_id, day, total, 0, CASE WHEN kind = 'charge' THEN 1 ELSE 0 END FROM posted) AS m
		GROUP BY key_id, day),
	moved AS (
		UPDATE accounts a SET used = a.used + m.used, held = a.held + m.held, requests = a.requests + m.requests
		FROM moves m WHERE a.key_id = m.key_id AND a.day = m.day RETURNING a.key_id, a.day, m.used, m.held, a.used AS after)
	SELECT '', '', (SELECT count(*) FROM posted), (SELECT count(*) FROM moves), 0 UNION ALL SELECT key_id, day, used, held, after FROM moved`

// movement is by how much a commit changed an account.
type movement struct {
	keyID, day string
	used, held int64
	after      int64 // what is used of the day now
}

func scanMoved(answers pgx.BatchResults) (posted int64, moved []movement, err error) {
	var m movement
	var moves int64
	err = scanAll(answers, []any{&m.keyID, &m.day, &m.used, &m.held, &m.after}, func() {
		if m.keyID == "" {
			posted, moves = m.used, m.held
			return
		}
		moved = append(moved, m)
	})
	if err == nil && moves != int64(len(moved)) {
		err = fmt.Errorf("%d accounts moved, want %d", len(moved), moves)
	}
	return posted, moved, err
}

// pgWrites are the rows of pgWrite, a slice for each column.
type pgWrites struct {
	replica string
	marks   []progressMark

	newKeys, newDays []string // accounts that have no row yet

	hID, hKey, hDay, hModel, hEndpoint, hRequest []string
	hTokens, hBound, hEstimate, hAdmitted        []int64

	ends, voids []string

	cID, cRef, cKey, cDay, cModel, cAnswer, cEndpoint, cRequest, cProvenance, cNote []string
	cPrompt, cCompletion, cCached, cReasoning, cHeld, cAdmitted, cSettled           []int64
}

func (w *pgWrites) account(keyID, day string) {
	w.newKeys = append(w.newKeys, keyID)
	w.newDays = append(w.newDays, day)
}

func (w *pgWrites) hold(h *openHold) {
	w.hID = append(w.hID, h.id)
	w.hKey = append(w.hKey, h.keyID)
	w.hDay = append(w.hDay, h.day)
	w.hModel = append(w.hModel, h.model)
	w.hEndpoint = append(w.hEndpoint, h.endpoint)
	w.hRequest = append(w.hRequest, h.requestID)
	w.hTokens = append(w.hTokens, h.tokens)
	w.hBound = append(w.hBound, h.promptBound)
	w.hEstimate = append(w.hEstimate, h.promptEstimate)
	w.hAdmitted = append(w.hAdmitted, h.admittedAt)
}

// settle posts a charge and ends its hold.
func (w *pgWrites) settle(e *entry) {
	w.ends = append(w.ends, e.ID)
	w.charge(e, e.ID, "")
}

// charge posts a row; ref is the charge that it corrects, "" = it is one itself.
func (w *pgWrites) charge(e *entry, id, ref string) {
	w.cID = append(w.cID, id)
	w.cRef = append(w.cRef, ref)
	w.cKey = append(w.cKey, e.KeyID)
	w.cDay = append(w.cDay, e.Day)
	w.cModel = append(w.cModel, e.Model)
	w.cAnswer = append(w.cAnswer, e.AnswerModel)
	w.cEndpoint = append(w.cEndpoint, e.Endpoint)
	w.cRequest = append(w.cRequest, e.RequestID)
	w.cProvenance = append(w.cProvenance, string(e.Provenance))
	w.cNote = append(w.cNote, e.Note)
	w.cPrompt = append(w.cPrompt, e.Prompt)
	w.cCompletion = append(w.cCompletion, e.Completion)
	w.cCached = append(w.cCached, e.Cached)
	w.cReasoning = append(w.cReasoning, e.Reasoning)
	w.cHeld = append(w.cHeld, e.HoldTokens)
	w.cAdmitted = append(w.cAdmitted, e.AdmittedAt)
	w.cSettled = append(w.cSettled, e.SettledAt)
}

func (w *pgWrites) args(now int64) []any {
	return []any{
		w.replica, w.hID, w.hKey, w.hDay, w.hModel, w.hEndpoint, w.hRequest, w.hTokens, w.hBound, w.hEstimate, w.hAdmitted,
		w.ends, now, w.voids,
		w.cID, w.cRef, w.cKey, w.cDay, w.cModel, w.cAnswer, w.cEndpoint, w.cRequest,
		w.cPrompt, w.cCompletion, w.cCached, w.cReasoning, w.cProvenance, w.cHeld, w.cNote, w.cAdmitted, w.cSettled,
	}
}

// queue appends the statements that have something to do.
func (w *pgWrites) queue(out *pgx.Batch, now int64) {
	if len(w.newKeys) > 0 {
		out.Queue(pgEnsure, w.newKeys, w.newDays)
	}
	if len(w.marks) > 0 {
		ids, prompts, completions := make([]string, len(w.marks)), make([]int64, len(w.marks)), make([]int64, len(w.marks))
		for i, m := range w.marks {
			ids[i], prompts[i], completions[i] = m.id, m.PromptTokens, m.CompletionTokens
		}
		out.Queue(pgMark, ids, prompts, completions)
	}
	if len(w.hID)+len(w.ends)+len(w.voids)+len(w.cID) > 0 {
		out.Queue(pgWrite, w.args(now)...)
	}
}
