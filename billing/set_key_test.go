package billing

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testModelsCanBeChanged(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, a := openBook(t, o), openAdmin(t, o)
	ctx := context.Background()
	k, secret, err := a.CreateKey(ctx, NewKey{Models: []string{"gpt-4o*"}})
	if err != nil {
		t.Fatal(err)
	}
	may := func(want bool, models ...string) {
		t.Helper()
		for _, m := range models {
			eventually(t, m+" is judged as it should be", func() bool {
				k, err := b.Lookup(secret)
				return err == nil && k.AllowsModel(m) == want
			})
		}
	}
	may(true, "gpt-4o", "gpt-4o-mini")
	may(false, "gpt-4", "claude")
	old, now, err := a.SetModels(ctx, k.ID, []string{"text-embedding-3-*", "claude"})
	if err != nil || !cmp.Equal(old.Models, []string{"gpt-4o*"}) || !cmp.Equal(now.Models, []string{"text-embedding-3-*", "claude"}) {
		t.Fatalf("%v, %v, %v", err, old.Models, now.Models)
	}
	may(true, "text-embedding-3-large", "claude")
	may(false, "gpt-4o", "claude-2")
	if _, now, err = a.SetModels(ctx, secret, nil); err != nil || now.Models != nil {
		t.Fatalf("%v, %v", err, now.Models)
	}
	may(true, "gpt-4", "anything")
	for name, models := range map[string][]string{
		"empty": {"a", ""}, "long": {strings.Repeat("x", maxPattern+1)}, "control": {"a\n"}, "not UTF-8": {"\xff"}, "too many": make([]string, maxModels+1),
	} {
		if _, _, err := a.SetModels(ctx, k.ID, models); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := a.CreateKey(ctx, NewKey{Models: models}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s in a new key: %v", name, err)
		}
	}
	want := []string{
		`unknown set-models ` + k.ID + ` {"before":{"models":["gpt-4o*"]},"after":{"models":["text-embedding-3-*","claude"]}}`,
		`unknown set-models ` + k.ID + ` {"before":{"models":["text-embedding-3-*","claude"]},"after":{"models":null}}`,
	}
	if diff := cmp.Diff(want, recorded(t, a, ChangeQuery{})[1:]); diff != "" {
		t.Error(diff)
	}
}

func testTextsAndExpiryCanBeChanged(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	a := openAdmin(t, o)
	ctx := context.Background()
	k, _, err := a.CreateKey(ctx, NewKey{Name: "n", Description: "d", ExpiresAt: c.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	text := func(s string) *string { return &s }
	moment := func(at time.Time) *time.Time { return &at }
	c.Add(2 * time.Hour) // an expired key can be given a longer life
	five, day := int64(5), c.Now().Add(24*time.Hour)
	want := k
	for _, step := range []struct {
		change KeyChange
		apply  func()
	}{
		{KeyChange{Name: text("N")}, func() { want.Name = "N" }},
		{KeyChange{Description: text("")}, func() { want.Description = "" }},
		{KeyChange{ExpiresAt: moment(day)}, func() { want.ExpiresAt = day }},
		{
			KeyChange{Name: text(""), Models: &[]string{"a"}, Limits: LimitChange{Daily: &five}, ExpiresAt: &time.Time{}},
			func() { want.Name, want.Models, want.Own.Daily, want.ExpiresAt = "", []string{"a"}, 5, time.Time{} },
		},
	} {
		before := want
		step.apply()
		old, now, err := a.SetKey(ctx, k.ID, step.change)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, old) + cmp.Diff(want, now); diff != "" {
			t.Error(diff)
		}
	}
	for name, change := range map[string]KeyChange{
		"nothing":     {},
		"past":        {ExpiresAt: moment(c.Now())},
		"a zero byte": {Name: text("a\x00")},
		// All or nothing: the name is not changed either.
		"one of two": {Name: text("other"), Models: &[]string{""}},
	} {
		if _, _, err := a.SetKey(ctx, k.ID, change); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gold := "gold"
	if _, _, err := a.SetKey(ctx, k.ID, KeyChange{Name: text("other"), Limits: LimitChange{Plan: &gold}}); !errors.Is(err, ErrUnknownTariff) {
		t.Errorf("an unknown tariff: %v", err)
	}
	if now, err := a.Find(ctx, k.ID); err != nil || !cmp.Equal(want, now) {
		t.Errorf("a refused change changed something: %v, %s", err, cmp.Diff(want, now))
	}
	all := recorded(t, a, ChangeQuery{})
	if last := all[len(all)-1]; len(all) != 5 || last != `unknown set-key `+k.ID+
		` {"before":{"daily":null,"expires_at":"2026-11-24T14:00:00Z","models":null,"name":"N"},"after":{"daily":5,"expires_at":null,"models":["a"],"name":null}}` {
		t.Errorf("recorded %q", all)
	}
	if _, err := a.Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.SetKey(ctx, k.ID, KeyChange{Name: text("late")}); !errors.Is(err, ErrRevokedKey) {
		t.Errorf("a revoked key: %v", err)
	}
}

// A key's last use is its newest charge, of whatever day.
func testLastUseOfKeys(t *testing.T, at home) {
	c := newClock("2026-11-22T23:59:00Z")
	o := at.options(t, c)
	one, _ := createKey(t, o, Limits{})
	two, _ := createKey(t, o, Limits{})
	b, a := openBook(t, o), openAdmin(t, o)
	last := func(k Key) time.Time {
		t.Helper()
		keys, err := a.Keys(context.Background())
		if err != nil || len(keys) != 2 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		if keys[0].ID == k.ID {
			return keys[0].LastUsed
		}
		return keys[1].LastUsed
	}
	if at := last(one); !at.IsZero() {
		t.Errorf("a new key was used at %v", at)
	}
	late := reserve(t, b, ask(one.ID, 50)) // admitted before midnight
	if at := last(one); !at.IsZero() {
		t.Errorf("a hold is no use: %v", at)
	}
	c.Add(2 * time.Minute)
	settle(t, b, reserve(t, b, ask(one.ID, 50)).ID, 1, 1)
	c.Add(time.Minute)
	settle(t, b, late.ID, 1, 1) // of yesterday, and the newest
	if at := last(one); !at.Equal(c.Now()) {
		t.Errorf("last use at %v, want %v", at, c.Now())
	}
	used := c.Now()
	c.Add(100 * 24 * time.Hour)
	settle(t, b, reserve(t, b, ask(two.ID, 50)).ID, 1, 1)
	if at := last(one); !at.Equal(used) {
		t.Errorf("another key's charge moved it to %v", at)
	}
	if at := last(two); !at.Equal(c.Now()) {
		t.Errorf("last use at %v, want %v", at, c.Now())
	}
}

// Each key's last use is found at the end of an index, however many charges
// there are.
func TestLastUseReadsNoTableOfCharges(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	openAdmin(t, o)
	rows, err := raw(t, o).Query("EXPLAIN QUERY PLAN " + lastUses)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := false
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(step, "charges") {
			continue
		}
		seen = true
		if !strings.Contains(step, "SEARCH charges USING COVERING INDEX") || !strings.Contains(step, "key_id=? AND day=?") {
			t.Errorf("reads charges by %q", step)
		}
	}
	if err := rows.Err(); err != nil || !seen {
		t.Errorf("%v; charges in the plan: %t", err, seen)
	}
}
