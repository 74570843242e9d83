package billing

import (
	"strings"
	"testing"
	"time"
)

// Who changes charges and makes the counters fit is found out by the chain.
func testTheChainNamesForgedCharges(t *testing.T, at home) {
	const fit = "; UPDATE accounts SET used = (SELECT coalesce(sum(total), 0) FROM charges), requests = (SELECT count(*) FROM charges), spent = (SELECT coalesce(sum(cost), 0) FROM charges)"
	for name, c := range map[string]struct{ tamper, problem string }{
		"changed":      {"UPDATE charges SET prompt = prompt - 1, total = total - 1 WHERE id = 'ONE'" + fit, "charge ONE: it was changed after it was written"},
		"renamed":      {"UPDATE charges SET note = 'x' WHERE id = 'ONE'", "charge ONE: it was changed"},
		"dearer":       {"UPDATE charges SET cost = 1 WHERE id = 'ONE'" + fit, "charge ONE: it was changed"},
		"removed":      {"DELETE FROM charges WHERE id = 'ONE'" + fit, "charge ONE: it was removed"},
		"added":        {"INSERT INTO charges SELECT replace(id, '-7', '-6')" + rest + " FROM charges WHERE id = 'ONE'" + fit, "no link of a chain seals it"},
		"link removed": {"DELETE FROM links WHERE link = 1", "expected link 1, found 2"},
		"link changed": {"UPDATE links SET sealed = (SELECT sealed FROM links WHERE link = 2) WHERE link = 1", "hash does not follow"},
	} {
		t.Run(name, func(t *testing.T) {
			o := at.options(t, newClock(testNow))
			b, k := setup(t, o, Limits{})
			one := reserve(t, b, ask(k.ID, 50)).ID
			settle(t, b, one, 10, 20)
			settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 1, 2)
			shut(t, b)
			mustBalance(t, o)
			execSQL(t, raw(t, o), strings.ReplaceAll(c.tamper, "ONE", one))
			r := audit(t, o)
			if all := strings.Join(r.Problems, "\n"); r.Balanced || !strings.Contains(all, strings.ReplaceAll(c.problem, "ONE", one)) {
				t.Fatalf("problems are %q, want %q", r.Problems, c.problem)
			}
		})
	}
}

// rest are the columns of charges after its id.
const rest = `, ref, kind, key_id, day, model, answer_model, endpoint, request_id, prompt, completion, total, cached, reasoning,
	provenance, hold_tokens, overshoot, note, admitted_at, settled_at, cache_write, audio_prompt, audio_completion, price, cost, hold_cost`

// Who removes the end of a chain with its charges is found out by a checkpoint
// that was kept elsewhere.
func testACheckpointHoldsTheEndOfAChain(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	var ids []string
	for range 3 {
		h := reserve(t, b, ask(k.ID, 50))
		settle(t, b, h.ID, 10, 20)
		ids = append(ids, h.ID)
	}
	checkpoint := audit(t, o).Chains
	if len(checkpoint) != 1 || checkpoint[0].Links != 3 || checkpoint[0].Charges != 3 || len(checkpoint[0].Hash) != 64 {
		t.Fatalf("chains are %+v", checkpoint)
	}
	settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 1, 1)
	shut(t, b)
	a := openAdmin(t, o)
	if r, err := a.Audit(t.Context(), checkpoint...); err != nil || !r.Balanced {
		t.Fatalf("a longer chain: %v, %q", err, r.Problems)
	}
	db := raw(t, o)
	execSQL(t, db, "DELETE FROM links WHERE link >= 3")
	execSQL(t, db, "DELETE FROM charges WHERE id NOT IN ('"+ids[0]+"', '"+ids[1]+"')")
	execSQL(t, db, "UPDATE accounts SET used = 60, requests = 2")
	mustBalance(t, o)
	r, err := a.Audit(t.Context(), checkpoint...)
	if err != nil || r.Balanced || !strings.Contains(r.Problems[0], "expected at least 3 links (checkpoint)") {
		t.Fatalf("a shorter chain: %v, %q", err, r.Problems)
	}
	checkpoint[0].Links, checkpoint[0].Hash = 2, strings.Repeat("0", 64)
	if r, err := a.Audit(t.Context(), checkpoint...); err != nil || r.Balanced || !strings.Contains(r.Problems[0], "(checkpoint), found") {
		t.Fatalf("another chain: %v, %q", err, r.Problems)
	}
}

// Counting again gives what was counted, and mends what was not.
func testRebuiltCountersAreTheSame(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	price := Money(3_000_000)
	mustPrice(t, o, Price{Model: "m", Rates: Rates{Input: &price, Output: &price}})
	refresh(t, b)
	settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 10, 20)
	reserve(t, b, ask(k.ID, 70))
	a := openAdmin(t, o)
	if at.server == nil {
		if _, err := a.Rebuild(t.Context()); !isInUse(err) {
			t.Fatalf("beside a gateway: %v", err)
		}
		o2 := at.crash(t, b, o) // with its open hold
		a, o = openAdmin(t, o2), o2
	}
	db := raw(t, o)
	const all = "SELECT used * 1000000 + held * 10000 + spent * 100 + reserved + requests FROM accounts"
	before := number(t, db, all)
	if r, err := a.Rebuild(t.Context()); err != nil || len(r.Corrected) != 0 || r.Accounts != 1 {
		t.Fatalf("balanced books: %+v, %v", r, err)
	}
	for _, tamper := range []string{
		"UPDATE accounts SET used = 1, held = 2, spent = 3, reserved = 4, requests = 5", "DELETE FROM accounts",
		"UPDATE accounts SET used = 1", "UPDATE accounts SET held = 2", "UPDATE accounts SET spent = 3",
		"UPDATE accounts SET reserved = 4", "UPDATE accounts SET requests = 5",
		"INSERT INTO accounts (key_id, day, used, held, requests) VALUES ('" + k.ID + "', '2026-01-01', 5, 0, 1)",
	} {
		execSQL(t, db, tamper)
		if audit(t, o).Balanced {
			t.Fatal("tampering is not seen")
		}
		r, err := a.Rebuild(t.Context())
		if err != nil || len(r.Corrected) == 0 || !strings.Contains(r.Corrected[0], k.ID) {
			t.Fatalf("%s: %+v, %v", tamper, r, err)
		}
		if got := number(t, db, all+" WHERE day = '2026-11-23'"); got != before {
			t.Fatalf("%s: counters are %d, want %d", tamper, got, before)
		}
		mustBalance(t, o)
	}
}

// A charge whose seal is right may still cost what it should not.
func TestAuditReckonsCosts(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	price := Price{ID: 3, Model: "m*", ValidFrom: at, Rates: Rates{Input: money(2_000_000)}}
	good := charge{ID: "c", Model: "m1", Tokens: Tokens{Prompt: 5}, Price: 3, Cost: 10, AdmittedAt: micros(at)}
	for name, c := range map[string]struct {
		change  func(*charge)
		problem string
	}{
		"right":          {func(*charge) {}, ""},
		"free":           {func(c *charge) { c.Price, c.Cost = 0, 0 }, ""},
		"too cheap":      {func(c *charge) { c.Cost = 9 }, "cost: expected 0.00000001 (its tokens at price 3), found 0.000000009"},
		"without price":  {func(c *charge) { c.Price = 0 }, "cost: expected 0 "},
		"unknown price":  {func(c *charge) { c.Price = 4 }, "expected its price 4 in the books"},
		"another model":  {func(c *charge) { c.Model = "n" }, "price 3 is of m*"},
		"price of later": {func(c *charge) { c.AdmittedAt-- }, "price 3 is of m* from"},
	} {
		bad := good
		c.change(&bad)
		a := chainAudit{prices: newPriceList([]Price{price})}
		a.reckon(&bad)
		if all := strings.Join(a.problems, "\n"); (c.problem == "") != (all == "") || !strings.Contains(all, c.problem) {
			t.Errorf("%s: %q, want %q", name, all, c.problem)
		}
	}
}
