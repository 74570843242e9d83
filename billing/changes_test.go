package billing

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gorm.io/gorm"
)

// recorded are the changes, oldest first, as "actor action subject detail".
func recorded(t *testing.T, a *Admin, q ChangeQuery) []string {
	t.Helper()
	list, err := a.Changes(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	lines := make([]string, len(list))
	for i, c := range list {
		if !json.Valid(c.Detail) {
			t.Errorf("the detail is no JSON: %s", c.Detail)
		}
		lines[len(list)-1-i] = strings.Join([]string{c.Actor, c.Action, c.Subject, string(c.Detail)}, " ")
	}
	return lines
}

func testEachChangeLeavesOneRow(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	o.Actor = "me"
	a := openAdmin(t, o)
	ctx := context.Background()
	k, secret, err := a.CreateKey(ctx, NewKey{Name: "n", Limits: Limits{Tariff: 9}, RPM: 3, Models: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	var fresh Key
	eleven := int64(11)
	for _, step := range []struct {
		do   func() error
		want string // action, subject and detail; "" = none
	}{
		{
			func() error {
				_, _, err := a.SetLimits(ctx, k.ID, LimitChange{Daily: &eleven, Clear: []string{"rpm"}})
				return err
			},
			`set-limit KEY {"before":{"daily":null,"rpm":3},"after":{"daily":11,"rpm":null}}`,
		},
		{func() error { _, _, err := a.SetLimits(ctx, secret, LimitChange{Daily: &eleven}); return err }, ""},
		{
			func() error { _, err := a.Block(ctx, secret); return err },
			`block-key KEY {"before":{"blocked_at":null},"after":{"blocked_at":"2026-11-23T12:00:06Z"}}`,
		},
		{func() error { _, err := a.Block(ctx, k.ID); return err }, ""},
		{
			func() error { _, err := a.Unblock(ctx, k.ID); return err },
			`unblock-key KEY {"before":{"blocked_at":"2026-11-23T12:00:06Z"},"after":{"blocked_at":null}}`,
		},
		{func() error { _, err := a.Unblock(ctx, secret); return err }, ""},
		{
			func() error { _, err := a.Expire(ctx, k.ID, c.Now().Add(48*time.Hour)); return err },
			`expire-key KEY {"before":{"expires_at":null},"after":{"expires_at":"2026-11-25T12:00:14Z"}}`,
		},
		{
			func() error { r, err := a.Rotate(ctx, secret, time.Hour); fresh = r.New; return err },
			`rotate-key KEY {"before":{"expires_at":"2026-11-25T12:00:14Z"},"after":{"expires_at":"2026-11-23T13:00:16Z"},"new_key":"FRESH"}`,
		},
		{func() error { _, err := a.Rotate(ctx, secret, 9*time.Hour); return err }, `rotate-key KEY {"new_key":"NEXT"}`},
		{
			func() error { _, err := a.Revoke(ctx, secret); return err },
			`revoke-key KEY {"before":{"revoked_at":null},"after":{"revoked_at":"2026-11-23T12:00:20Z"}}`,
		},
		{func() error { _, err := a.Revoke(ctx, secret); return err }, ""},
		{func() error { _, err := a.Rotate(ctx, secret, time.Hour); return refusedAs(err, ErrRevokedKey) }, ""},
		{func() error { _, err := a.Block(ctx, secret); return refusedAs(err, ErrRevokedKey) }, ""},
		{func() error { _, err := a.Unblock(ctx, secret); return refusedAs(err, ErrRevokedKey) }, ""},
	} {
		c.Add(time.Second)
		before := recorded(t, a, ChangeQuery{Limit: maxChanges})
		c.Add(time.Second)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.want, err)
		}
		added := recorded(t, a, ChangeQuery{Limit: maxChanges})[len(before):]
		if step.want == "" {
			if len(added) > 0 {
				t.Errorf("what changed nothing left %q", added)
			}
			continue
		}
		want := "me " + strings.NewReplacer("KEY", k.ID, "FRESH", fresh.ID).Replace(step.want)
		if next, ok := strings.CutSuffix(want, `NEXT"}`); ok && len(added) == 1 && strings.HasPrefix(added[0], next) {
			continue
		}
		if diff := cmp.Diff([]string{want}, added); diff != "" {
			t.Error(diff)
		}
	}
	// What was left: by subject, by day, in parts; no secret anywhere.
	all := recorded(t, a, ChangeQuery{Limit: maxChanges})
	if diff := cmp.Diff(`me create-key `+k.ID+` {"after":{"limit":9,"models":["a"],"name":"n","rpm":3}}`, all[0]); diff != "" {
		t.Error(diff)
	}
	if got := recorded(t, a, ChangeQuery{Subject: fresh.ID}); len(got) != 1 || !strings.Contains(got[0], "rotate-key "+k.ID) {
		t.Errorf("of the new key: %q", got)
	}
	if got := recorded(t, a, ChangeQuery{Subject: k.ID, From: "2026-11-23", To: "2026-11-23"}); len(got) != len(all) {
		t.Errorf("%d of the day, want %d", len(got), len(all))
	}
	for _, q := range []ChangeQuery{{From: "2026-11-24"}, {To: "2026-11-22"}, {Subject: "key_00000000000000000000000000"}} {
		if got := recorded(t, a, q); len(got) != 0 {
			t.Errorf("%+v: %q", q, got)
		}
	}
	var parts []string
	for q := (ChangeQuery{Limit: 2}); ; {
		list, err := a.Changes(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			parts = append(parts, c.ID)
		}
		if len(list) < q.Limit {
			break
		}
		q.After = list[len(list)-1].ID
	}
	if len(parts) != len(all) {
		t.Errorf("%d changes in parts of two, want %d", len(parts), len(all))
	}
	if text := strings.Join(all, ""); strings.Contains(text, secret) || strings.Contains(text, secret[len(secret)-8:]) {
		t.Errorf("a secret in the record: %s", text)
	}
	for _, q := range []ChangeQuery{{From: "yesterday"}, {To: "2026-13-01"}, {Limit: -1}, {Limit: maxChanges + 1}} {
		if _, err := a.Changes(ctx, q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// refusedAs turns the error that a test wants into none.
func refusedAs(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return errors.Join(errors.New("not refused as it should be"), err)
}

// A change and its record are in the books together, or neither is.
func testAChangeAndItsRecordAreOne(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	a := openAdmin(t, o)
	ctx := context.Background()
	k, _, err := a.CreateKey(ctx, NewKey{Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	db := raw(t, o)
	const rows = "SELECT count(*) FROM changes"
	undone := errors.New("undone")
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		return errors.Join(a.record(tx, actionLimits, k.ID, stepDetail{}), undone)
	})
	if !errors.Is(err, undone) || number(t, db, rows) != 1 {
		t.Errorf("%v, and %d rows after a change that was undone, want 1", err, number(t, db, rows))
	}
	execSQL(t, db, "ALTER TABLE changes RENAME TO elsewhere")
	five, text := int64(5), "another"
	calls := map[string]func() error{
		"create":        func() error { _, _, err := a.CreateKey(ctx, NewKey{}); return err },
		"limits":        func() error { _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Daily: &five}); return err },
		"expire":        func() error { _, err := a.Expire(ctx, k.ID, time.Now().Add(time.Hour)); return err },
		"rotate":        func() error { _, err := a.Rotate(ctx, k.ID, time.Hour); return err },
		"block":         func() error { _, err := a.Block(ctx, k.ID); return err },
		"set tariff":    func() error { _, _, err := a.SetTariff(ctx, "basic", TariffChange{Description: &text}); return err },
		"remove tariff": func() error { _, err := a.RemoveTariff(ctx, "basic"); return err },
		"revoke":        func() error { _, err := a.Revoke(ctx, k.ID); return err },
	}
	for name, call := range calls {
		if call() == nil {
			t.Errorf("%s went without its record", name)
		}
	}
	if n := number(t, db, "SELECT count(*) FROM tariffs WHERE name = 'basic' AND description = 'Basic plan'"); n != 1 {
		t.Error("the tariff was changed")
	}
	keys, err := a.Keys(ctx)
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if diff := cmp.Diff(k, keys[0].Key); diff != "" {
		t.Errorf("the key was changed: %s", diff)
	}
}
