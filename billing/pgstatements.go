package billing

import (
	"fmt"

	"github.com/jackc/pgx/v5"
)

// pgLockKeys is what everybody does first who changes accounts: since all take
// the locks in one order, nobody waits for somebody who waits for him.
// A limit that the key has not is that of its plan.
const pgLockKeys = `SELECT k.id, coalesce(nullif(k.tariff, 0), t.tariff, 0), coalesce(nullif(k.daily, 0), t.daily, 0),
	coalesce(nullif(k.monthly, 0), t.monthly, 0), coalesce(nullif(k.money, 0), t.money, 0), k.expires_at, k.revoked_at, k.blocked_at
	FROM keys k LEFT JOIN tariffs t ON t.name = k.plan WHERE k.id = ANY($1::text[]) ORDER BY k.id FOR NO KEY UPDATE OF k`

// pgAccounts reads accounts from the month of $2 on: days before $3 as one sum
// of their month, later ones by themselves.
const pgAccounts = `SELECT key_id, CASE WHEN day < $3 THEN left(day, 7) ELSE day END AS p,
	CAST(sum(used) AS bigint), CAST(sum(held) AS bigint), CAST(sum(spent) AS bigint), CAST(sum(reserved) AS bigint)
	FROM accounts WHERE key_id = ANY($1::text[]) AND day >= $2 GROUP BY key_id, p`

const pgEnsure = `INSERT INTO accounts (key_id, day, used, held, requests)
	SELECT k, d, 0, 0, 0 FROM unnest($1::text[], $2::text[]) AS t(k, d) ORDER BY k, d ON CONFLICT DO NOTHING`

const pgMark = `UPDATE holds h SET state = 2, seen_prompt = greatest(h.seen_prompt, m.p), seen_completion = greatest(h.seen_completion, m.c)
	FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS m(id, p, c) WHERE h.id = m.id AND h.state < 3`

// pgWrite does the rest of a batch in one statement. Accounts move by what was
// inserted, deleted or voided in fact, so that a second try moves nothing, and
// the writer's chain grows by the charges that were new. It returns their number,
// and the movements.
const pgWrite = `WITH opened AS (
		INSERT INTO holds (id, replica, key_id, day, model, endpoint, request_id, tokens, cost, price, prompt_bound, prompt_estimate,
			state, seen_prompt, seen_completion, admitted_at, resolved_at)
		SELECT id, $1::text, key_id, day, model, endpoint, request_id, tokens, cost, price, bound, estimate, 1, 0, 0, admitted_at, 0
		FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[],
			$11::bigint[], $12::bigint[], $13::bigint[]) AS t(id, key_id, day, model, endpoint, request_id, tokens, cost, price, bound, estimate, admitted_at)
		RETURNING key_id, day, tokens, cost),
	ended AS (DELETE FROM holds WHERE id = ANY($14::text[]) AND state < 3 RETURNING key_id, day, tokens, cost),
	voided AS (UPDATE holds SET state = 3, resolved_at = $15::bigint WHERE id = ANY($16::text[]) AND state < 3 RETURNING key_id, day, tokens, cost),
	head AS (SELECT link, hash FROM links WHERE writer = $17::text ORDER BY link DESC LIMIT 1),
	posted AS (
		INSERT INTO charges (` + chargeColumns + `)
		SELECT id, nullif(ref, ''), CASE WHEN ref = '' THEN 'charge' ELSE 'adjust' END, key_id, day, model, answer_model, endpoint, request_id,
			prompt, completion, cached, cache_write, audio_prompt, reasoning, audio_completion, prompt + completion, price, cost,
			provenance, held, hold_cost, greatest(0, prompt + completion - held), note, admitted_at, settled_at
		FROM unnest($18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[],
			$26::bigint[], $27::bigint[], $28::bigint[], $29::bigint[], $30::bigint[], $31::bigint[], $32::bigint[], $33::bigint[], $34::bigint[],
			$35::text[], $36::bigint[], $37::bigint[], $38::text[], $39::bigint[], $40::bigint[])
			AS t(id, ref, key_id, day, model, answer_model, endpoint, request_id,
				prompt, completion, cached, cache_write, audio_prompt, reasoning, audio_completion, price, cost,
				provenance, held, hold_cost, note, admitted_at, settled_at)
		ON CONFLICT (id) DO NOTHING RETURNING id, key_id, day, total, cost, kind),
	seals AS (
		SELECT count(*) AS charges, string_agg(s.seal, ''::bytea ORDER BY p.id) AS sealed
		FROM posted p JOIN unnest($18::text[], $41::bytea[]) AS s(id, seal) ON s.id = p.id),
	sealed AS (
		INSERT INTO links (writer, link, charges, sealed, hash)
		SELECT $17::text, coalesce((SELECT link FROM head), 0) + 1, charges, sealed,
			sha256(coalesce((SELECT hash FROM head), sha256(convert_to($17::text, 'UTF8'))) || sealed)
		FROM seals WHERE charges > 0),
	moves AS (
		SELECT key_id, day, CAST(sum(used) AS bigint) AS used, CAST(sum(held) AS bigint) AS held,
			CAST(sum(spent) AS bigint) AS spent, CAST(sum(reserved) AS bigint) AS reserved, sum(requests) AS requests FROM (
			SELECT key_id, day, 0 AS used, tokens AS held, 0 AS spent, cost AS reserved, 0 AS requests FROM opened
			UNION ALL SELECT key_id, day, 0, -tokens, 0, -cost, 0 FROM ended
			UNION ALL SELECT key_id, day, 0, -tokens, 0, -cost, 0 FROM voided
			UNION ALL SELECT key_id, day, total, 0, cost, 0, CASE WHEN kind = 'charge' THEN 1 ELSE 0 END FROM posted) AS m
		GROUP BY key_id, day),
	moved AS (
		UPDATE accounts a SET used = a.used + m.used, held = a.held + m.held, spent = a.spent + m.spent, reserved = a.reserved + m.reserved,
			requests = a.requests + m.requests
		FROM moves m WHERE a.key_id = m.key_id AND a.day = m.day
		RETURNING a.key_id, a.day, m.used, m.held, m.spent, m.reserved, a.used AS after)
	SELECT '', '', (SELECT count(*) FROM posted), (SELECT count(*) FROM moves), 0, 0, 0
	UNION ALL SELECT key_id, day, used, held, spent, reserved, after FROM moved`

// movement is by how much a commit changed an account.
type movement struct {
	keyID, day string
	delta
	after int64 // what tokens are used of the day now
}

func scanMoved(answers pgx.BatchResults) (posted int64, moved []movement, err error) {
	var m movement
	var moves int64
	err = scanAll(answers, []any{&m.keyID, &m.day, &m.used.tokens, &m.held.tokens, &m.used.money, &m.held.money, &m.after}, func() {
		if m.keyID == "" {
			posted, moves = m.used.tokens, m.held.tokens
			return
		}
		moved = append(moved, m)
	})
	if err == nil && moves != int64(len(moved)) {
		err = fmt.Errorf("%d accounts moved, want %d", len(moved), moves)
	}
	return posted, moved, err
}
