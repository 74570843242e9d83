package billing

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testTariffsAreNamedLimits(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	a := openAdmin(t, o)
	ctx := context.Background()
	sizes := func() map[string]int64 {
		list, err := a.Tariffs(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(list, func(x, y TariffUse) int { return int(x.Limits.Tariff - y.Limits.Tariff) }) {
			t.Errorf("not by size: %+v", list)
		}
		m := map[string]int64{}
		for _, u := range list {
			m[u.Name] = u.Limits.Tariff
		}
		return m
	}
	want := map[string]int64{"basic": 10_000, "premium": 100_000, "enterprise": 1_000_000, "unlimited": 10_000_000}
	if diff := cmp.Diff(want, sizes()); diff != "" {
		t.Fatal(diff)
	}
	seven, eight, text := int64(7), int64(8), "for teams"
	old, now, err := a.SetTariff(ctx, " Team-1 ", TariffChange{Description: &text, Limits: LimitChange{Tariff: &seven, RPM: &eight}})
	if diff := cmp.Diff(Tariff{Name: "team-1", Description: text, Limits: Limits{Tariff: 7}, RPM: 8}, now); err != nil || old != nil || diff != "" {
		t.Fatalf("%v, %v: %s", err, old, diff)
	}
	was := now
	old, now, err = a.SetTariff(ctx, "team-1", TariffChange{Limits: LimitChange{Daily: &eight, Clear: []string{"rpm"}}})
	if diff := cmp.Diff(Tariff{Name: "team-1", Description: text, Limits: Limits{Tariff: 7, Daily: 8}}, now); err != nil || diff != "" {
		t.Fatalf("%v: %s", err, diff)
	}
	if diff := cmp.Diff(&was, old); diff != "" {
		t.Error(diff)
	}
	zero, none, bad := int64(0), "", "a\x00b"
	for name, c := range map[string]struct {
		tariff string
		change TariffChange
	}{
		"new without a limit": {"fresh", TariffChange{Limits: LimitChange{Daily: &seven}}},
		"nothing":             {"basic", TariffChange{}},
		"zero":                {"basic", TariffChange{Limits: LimitChange{Tariff: &zero}}},
		"the limit cleared":   {"basic", TariffChange{Limits: LimitChange{Clear: []string{"tariff"}}}},
		"a tariff's tariff":   {"basic", TariffChange{Limits: LimitChange{Plan: &none}}},
		"text":                {"basic", TariffChange{Description: &bad}},
		"no name":             {" ", TariffChange{Limits: LimitChange{Tariff: &seven}}},
		"a space":             {"a b", TariffChange{Limits: LimitChange{Tariff: &seven}}},
		"reserved":            {"None", TariffChange{Limits: LimitChange{Tariff: &seven}}},
	} {
		if _, _, err := a.SetTariff(ctx, c.tariff, c.change); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	// A tariff that keys have stays; those of revoked keys do not count.
	k, _, err := a.CreateKey(ctx, NewKey{Plan: "Team-1"})
	if err != nil || k.Plan == nil || k.Limits() != (Limits{Tariff: 7, Daily: 8}) {
		t.Fatalf("%v, %+v", err, k)
	}
	var used *TariffInUseError
	if _, err := a.RemoveTariff(ctx, "team-1"); !errors.As(err, &used) || used.Keys != 1 {
		t.Errorf("removed: %v", err)
	}
	if list, err := a.Tariffs(ctx); err != nil || list[0].Name != "team-1" || list[0].Keys != 1 || list[1].Keys != 0 {
		t.Errorf("%v, %+v", err, list)
	}
	if _, err := a.Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if gone, err := a.RemoveTariff(ctx, "TEAM-1"); err != nil || gone.Name != "team-1" {
		t.Errorf("%v, %+v", err, gone)
	}
	var unknown *UnknownTariffError
	if _, err := a.RemoveTariff(ctx, "team-1"); !errors.As(err, &unknown) || !errors.Is(err, ErrUnknownTariff) || len(unknown.Known) != 4 {
		t.Errorf("removed again: %v", err)
	}
	if diff := cmp.Diff(want, sizes()); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{
		`unknown create-key ` + k.ID + ` {"after":{"tariff":"team-1"}}`,
		`unknown set-tariff team-1 {"after":{"description":"for teams","limit":7,"rpm":8}}`,
		`unknown set-tariff team-1 {"before":{"daily":null,"rpm":8},"after":{"daily":8,"rpm":null}}`,
		`unknown remove-tariff team-1 {"before":{"daily":8,"description":"for teams","limit":7}}`,
	} {
		if all := recorded(t, a, ChangeQuery{}); !slices.Contains(all, line) {
			t.Errorf("no %s in %q", line, all)
		}
	}
	if n := len(recorded(t, a, ChangeQuery{})); n != 5 {
		t.Errorf("%d changes are recorded, want 5", n)
	}
}

func testATariffIsGivenAndTakenAway(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	a := openAdmin(t, o)
	ctx := context.Background()
	k, _, err := a.CreateKey(ctx, NewKey{Limits: Limits{Tariff: 5, Daily: 6}})
	if err != nil {
		t.Fatal(err)
	}
	nine := int64(9)
	name := func(s string) *string { return &s }
	for _, c := range []struct {
		change LimitChange
		plan   string
		own    Limits
		limit  int64
	}{
		{LimitChange{Plan: name("Premium")}, "premium", Limits{Daily: 6}, 100_000},
		{LimitChange{Plan: name("basic"), Tariff: &nine}, "basic", Limits{Tariff: 9, Daily: 6}, 9},
		{LimitChange{Clear: []string{"tariff"}}, "basic", Limits{Daily: 6}, 10_000},
		{LimitChange{Tariff: &nine}, "basic", Limits{Tariff: 9, Daily: 6}, 9},
		{LimitChange{Plan: name("")}, "", Limits{Tariff: 9, Daily: 6}, 9},
		{LimitChange{Plan: name("unlimited"), Clear: []string{"daily"}}, "unlimited", Limits{}, 10_000_000},
	} {
		_, now, err := a.SetLimits(ctx, k.ID, c.change)
		if limits := now.Limits(); err != nil || now.planName() != c.plan || now.Own != c.own || limits.Tariff != c.limit {
			t.Errorf("%+v: %v, plan %q, own %+v, limits %+v", c, err, now.planName(), now.Own, limits)
		}
	}
	var unknown *UnknownTariffError
	if _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Plan: name("gold")}); !errors.As(err, &unknown) ||
		!slices.Equal(unknown.Known, []string{"basic", "enterprise", "premium", "unlimited"}) {
		t.Errorf("an unknown tariff: %v", err)
	}
	if _, _, err := a.CreateKey(ctx, NewKey{Plan: "gold"}); !errors.Is(err, ErrUnknownTariff) {
		t.Errorf("a key of an unknown tariff: %v", err)
	}
	if _, err := a.Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Tariff: &nine}); !errors.Is(err, ErrRevokedKey) {
		t.Errorf("a revoked key: %v", err)
	}
}

// A running gateway follows every change of a tariff for all its keys.
func testATariffReachesAnOpenBook(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, a := openBook(t, o), openAdmin(t, o)
	ctx := context.Background()
	hundred, fifty, five := int64(100), int64(50), int64(5)
	if _, _, err := a.SetTariff(ctx, "team", TariffChange{Limits: LimitChange{Tariff: &hundred}}); err != nil {
		t.Fatal(err)
	}
	var keys []Key
	var secrets []string
	for range 3 {
		k, secret, err := a.CreateKey(ctx, NewKey{Plan: "team"})
		if err != nil {
			t.Fatal(err)
		}
		keys, secrets = append(keys, k), append(secrets, secret)
	}
	of := func(what string, ok func(Key) bool) {
		t.Helper()
		for i, secret := range secrets {
			eventually(t, what, func() bool {
				k, err := b.Lookup(secret)
				same, _ := b.Key(keys[i].ID)
				return err == nil && ok(k) && cmp.Equal(k, same)
			})
		}
	}
	of("the limit of the tariff", func(k Key) bool { return b.Effective(k).Tariff == 100 })
	if _, _, err := a.SetLimits(ctx, secrets[2], LimitChange{Tariff: &five}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.SetTariff(ctx, "team", TariffChange{Limits: LimitChange{Tariff: &fifty, RPM: &five}}); err != nil {
		t.Fatal(err)
	}
	of("the changed tariff", func(k Key) bool {
		rpm, _, _ := k.Rates()
		return rpm == 5 && k.Plan.Limits.Tariff == 50 && (b.Effective(k).Tariff == 50) == (k.ID != keys[2].ID)
	})
	none, premium := "", "premium"
	for _, secret := range secrets {
		if _, _, err := a.SetLimits(ctx, secret, LimitChange{Plan: &none, Clear: []string{"tariff"}}); err != nil {
			t.Fatal(err)
		}
	}
	of("no tariff", func(k Key) bool { return k.Plan == nil && b.Effective(k) == plenty })
	if _, err := a.RemoveTariff(ctx, "team"); err != nil {
		t.Fatal(err)
	}
	for _, secret := range secrets {
		if _, _, err := a.SetLimits(ctx, secret, LimitChange{Plan: &premium}); err != nil {
			t.Fatal(err)
		}
	}
	of("another tariff", func(k Key) bool { return b.Effective(k).Tariff == 100_000 })
}
