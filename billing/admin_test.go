package billing

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testOperatorsChangesReachAnOpenBook(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b := openBook(t, o)
	a := openAdmin(t, o)
	ctx := context.Background()
	created, secret, err := a.CreateKey(ctx, NewKey{
		Name: "n", Description: "d", Limits: Limits{Daily: 10}, RPM: 3,
		ExpiresAt: c.Now().Add(time.Hour), Models: []string{"a", "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key is known", func() bool { _, err := b.Lookup(secret); return err == nil })
	k, _ := b.Lookup(secret)
	if diff := cmp.Diff(created, k); diff != "" {
		t.Fatal(diff)
	}
	if !strings.HasPrefix(k.ID, "key_") || len(k.ID) != 30 || k.Display != "sk-lgw_…"+secret[len(secret)-4:] || k.Origin != "created" {
		t.Fatalf("key is %+v", k)
	}
	if b.Budget(k.ID, 11) == nil {
		t.Fatal("the limit is not in force")
	}
	eleven := int64(11)
	old, now, err := a.SetLimits(ctx, secret, LimitChange{Daily: &eleven})
	if err != nil || old.Own.Daily != 10 || now.Own.Daily != 11 || now.RPM != 3 {
		t.Fatalf("set limits: %v, %+v, %+v", err, old, now)
	}
	eventually(t, "the new limit is in force", func() bool { return b.Budget(k.ID, 11) == nil })

	c.Add(time.Hour)
	if _, err := b.Lookup(secret); !errors.Is(err, ErrExpiredKey) {
		t.Fatalf("error is %v, want ErrExpiredKey", err)
	}
	revoked, err := a.Revoke(ctx, k.ID)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key is revoked", func() bool { _, err := b.Lookup(secret); return errors.Is(err, ErrRevokedKey) })
	if _, err := b.Reserve(ctx, ask(k.ID, 1)); !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrRevokedKey) {
		t.Fatalf("reserve: %v, want ErrUnknownKey and ErrRevokedKey", err)
	}
	c.Add(time.Minute)
	if again, err := a.Revoke(ctx, k.ID); err != nil || !again.RevokedAt.Equal(revoked.RevokedAt) {
		t.Fatalf("revoking again: %v, %v", again.RevokedAt, err)
	}
}

func testImportNeverRevivesARevokedKey(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, a := openBook(t, o), openAdmin(t, o)
	ctx := context.Background()
	secrets := []string{"sk-test-one", "sk-test-two", "sk-test-one"}
	if n, err := b.Import(ctx, secrets, OriginEnv); err != nil || n != 2 {
		t.Fatalf("import: %d, %v", n, err)
	}
	k, err := b.Lookup("sk-test-one")
	if err != nil || k.Origin != "env" || k.Display != "" {
		t.Fatalf("lookup: %+v, %v", k, err)
	}
	if diff := cmp.Diff(plenty, b.Effective(k)); diff != "" {
		t.Fatal(diff)
	}
	if _, err := a.Revoke(ctx, "sk-test-one"); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Import(ctx, secrets, OriginEnv); err != nil || n != 0 {
		t.Fatalf("second import: %d, %v", n, err)
	}
	shut(t, b)
	b = openBook(t, o)
	if n, err := b.Import(ctx, secrets, OriginEnv); err != nil || n != 0 {
		t.Fatalf("third import: %d, %v", n, err)
	}
	if _, err := b.Lookup("sk-test-one"); !errors.Is(err, ErrRevokedKey) {
		t.Fatalf("error is %v, want ErrRevokedKey", err)
	}
	if _, err := b.Import(ctx, []string{"with space"}, OriginEnv); !errors.Is(err, ErrInvalid) {
		t.Fatalf("error is %v, want ErrInvalid", err)
	}
}

func testOperatorsMistakesAreRefused(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	a := openAdmin(t, o)
	ctx := context.Background()
	k, _, err := a.CreateKey(ctx, NewKey{})
	if err != nil {
		t.Fatal(err)
	}
	zero, minus, seven := int64(0), int64(-1), int64(7)
	for name, call := range map[string]func() error{
		"negative limit": func() error { _, _, err := a.CreateKey(ctx, NewKey{Limits: Limits{Tariff: -1}}); return err },
		"past expiry":    func() error { _, _, err := a.CreateKey(ctx, NewKey{ExpiresAt: time.Unix(1, 0)}); return err },
		"zero":           func() error { _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Tariff: &zero}); return err },
		"no money":       func() error { _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Money: &zero}); return err },
		"minus money":    func() error { _, _, err := a.CreateKey(ctx, NewKey{Limits: Limits{Money: -1}}); return err },
		"minus one":      func() error { _, _, err := a.SetLimits(ctx, k.ID, LimitChange{RPM: &minus}); return err },
		"no change":      func() error { _, _, err := a.SetLimits(ctx, k.ID, LimitChange{}); return err },
		"no such limit":  func() error { _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Clear: []string{"rev"}}); return err },
		"set and clear": func() error {
			_, _, err := a.SetLimits(ctx, k.ID, LimitChange{Daily: &seven, Clear: []string{"daily"}})
			return err
		},
		"bad day": func() error { _, err := a.Usage(ctx, UsageQuery{From: "2026-1-1"}); return err },
		"bad grouping": func() error {
			_, err := a.Usage(ctx, UsageQuery{By: []string{"day", "1; DROP TABLE keys"}})
			return err
		},
	} {
		if err := call(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error is %v, want ErrInvalid", name, err)
		}
	}
	for _, ref := range []string{"", "key_00000000000000000000000000", "sk-lgw_x", "' OR 1=1 --"} {
		if _, err := a.Find(ctx, ref); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("find %q: %v, want ErrUnknownKey", ref, err)
		}
	}
}

func testUsageReport(t *testing.T, at home) {
	c := newClock("2026-11-29T12:00:00Z")
	o := at.options(t, c)
	one, _ := createKey(t, o, Limits{})
	two, secret := createKey(t, o, Limits{})
	b := openBook(t, o)
	ctx := context.Background()
	charge := func(k Key, model string, prompt, completion int64, p Provenance) string {
		r := ask(k.ID, 100)
		r.Model = model
		h := reserve(t, b, r)
		if err := b.Settle(ctx, h.ID, Outcome{Prompt: prompt, Completion: completion, Provenance: p}); err != nil {
			t.Fatal(err)
		}
		return h.ID
	}
	id := charge(one, "a", 1, 2, Reported)
	charge(one, "a", 3, 4, Estimated)
	charge(two, "b", 5, 6, Reported)
	c.Add(24 * time.Hour)
	charge(one, "b", 7, 8, Aborted)
	if err := b.Correct(ctx, id, Outcome{Prompt: 1, Completion: 12, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	reserve(t, b, ask(two.ID, 40))

	a := openAdmin(t, o)
	all, err := a.Usage(ctx, UsageQuery{By: []string{"key", "day"}})
	if err != nil {
		t.Fatal(err)
	}
	want := UsageTable{
		Rows: []UsageRow{
			{
				Day: "2026-11-29", KeyID: one.ID, PromptTokens: 4, CompletionTokens: 16, TotalTokens: 20, Requests: 2, UnpricedRequests: 2,
				Provenance: map[Provenance]UsagePart{Reported: {13, 1}, Estimated: {7, 1}},
			},
			{
				Day: "2026-11-29", KeyID: two.ID, PromptTokens: 5, CompletionTokens: 6, TotalTokens: 11, Requests: 1, UnpricedRequests: 1,
				Provenance: map[Provenance]UsagePart{Reported: {11, 1}},
			},
			{
				Day: "2026-11-30", KeyID: one.ID, PromptTokens: 7, CompletionTokens: 8, TotalTokens: 15, Requests: 1, UnpricedRequests: 1,
				Provenance: map[Provenance]UsagePart{Aborted: {15, 1}},
			},
		},
		Total: UsageRow{
			PromptTokens: 16, CompletionTokens: 30, TotalTokens: 46, Requests: 4, UnpricedRequests: 4,
			Provenance: map[Provenance]UsagePart{Reported: {24, 2}, Estimated: {7, 1}, Aborted: {15, 1}},
		},
	}
	if one.ID > two.ID {
		want.Rows[0], want.Rows[1] = want.Rows[1], want.Rows[0]
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Fatal(diff)
	}
	part, err := a.Usage(ctx, UsageQuery{KeyRef: secret, From: "2026-11-29", To: "2026-11-29", By: []string{"model"}})
	if err != nil || len(part.Rows) != 1 || part.Rows[0].Model != "b" || part.Total.TotalTokens != 11 {
		t.Fatalf("usage of one key: %+v, %v", part, err)
	}
	keys, err := a.Keys(ctx)
	if err != nil || len(keys) != 2 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	for _, u := range keys {
		got := [5]int64{u.UsedToday, u.UsedMonth, u.Held, u.RequestsToday, u.RequestsMonth}
		want := map[string][5]int64{one.ID: {15, 35, 0, 1, 3}, two.ID: {0, 11, 40, 0, 1}}[u.ID]
		if got != want {
			t.Errorf("key figures are %v, want %v", got, want)
		}
	}
}

func testAuditNamesWhatWasTamperedWith(t *testing.T, at home) {
	for name, c := range map[string]struct{ tamper, problem string }{
		"used":      {"UPDATE accounts SET used = used + 5", "used tokens: expected 30 (sum of charges), found 35"},
		"held":      {"UPDATE accounts SET held = 0", "held tokens: expected 100 (sum of open holds), found 0"},
		"requests":  {"UPDATE accounts SET requests = 9", "requests: expected 1 (number of charges), found 9"},
		"total":     {"UPDATE charges SET total = 1, overshoot = 0", "used tokens: expected 1 (sum of charges), found 30"},
		"parts":     {"UPDATE charges SET prompt = 0", "total: expected 20 (prompt + completion), found 30"},
		"overshoot": {"UPDATE charges SET overshoot = 7", "overshoot: expected 0 (total - held), found 7"},
		"kind":      {"UPDATE charges SET kind = 'adjust'", "kind adjust: expected a reference"},
		"charge":    {"DELETE FROM charges", "used tokens: expected 0 (sum of charges), found 30"},
		"hold":      {"DELETE FROM holds", "held tokens: expected 0 (sum of open holds), found 100"},
		"tokens":    {"UPDATE holds SET tokens = 101", "held tokens: expected 101 (sum of open holds), found 100"},
		"account":   {"DELETE FROM accounts", "used tokens: expected 30 (sum of charges), found 0"},
		"key":       {"DELETE FROM keys", "no such key in the books"},
		"both":      {"UPDATE holds SET id = (SELECT id FROM charges)", "expected a hold or a charge, found both"},
	} {
		t.Run(name, func(t *testing.T) {
			o := at.options(t, newClock(testNow))
			b, k := setup(t, o, Limits{})
			settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 10, 20)
			reserve(t, b, ask(k.ID, 100))
			mustBalance(t, o)
			execSQL(t, raw(t, o), c.tamper)
			r := audit(t, o)
			all := strings.Join(r.Problems, "\n")
			if r.Balanced || !strings.Contains(all, c.problem) || !strings.Contains(all, k.ID) || !strings.Contains(all, "2026-11-23") {
				t.Fatalf("problems are %q, want %q", r.Problems, c.problem)
			}
		})
	}
}

// A limit of a key's own can be taken away again: then the gateway's applies.
func testLimitsCanBeCleared(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	a := openAdmin(t, o)
	own := NewKey{Limits: Limits{Tariff: 1, Daily: 2, Monthly: 3, Money: 4}, RPM: 4, TPM: 5, Concurrent: 6}
	k, _, err := a.CreateKey(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	seven := int64(7)
	old, now, err := a.SetLimits(t.Context(), k.ID, LimitChange{Daily: &seven, Money: &seven, Clear: []string{"monthly", "tpm"}})
	if err != nil {
		t.Fatal(err)
	}
	want := k
	if diff := cmp.Diff(want, old); diff != "" {
		t.Error(diff)
	}
	want.Own.Daily, want.Own.Monthly, want.Own.Money, want.TPM = 7, 0, 7, 0
	if diff := cmp.Diff(want, now); diff != "" {
		t.Error(diff)
	}
	if _, now, err = a.SetLimits(t.Context(), k.ID, LimitChange{Clear: LimitNames()}); err != nil {
		t.Fatal(err)
	}
	want.Own, want.RPM, want.Concurrent = Limits{}, 0, 0
	if diff := cmp.Diff(want, now); diff != "" {
		t.Error(diff)
	}
	b := openBook(t, o)
	if known, _ := b.Key(k.ID); b.Effective(known) != plenty {
		t.Errorf("effective %+v", b.Effective(known))
	}
}
