package billing

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func testRotationOverlaps(t *testing.T, at home) {
	c := newClock("2026-11-24T12:00:00Z")
	o := at.options(t, c)
	a := openAdmin(t, o)
	first, secret, err := a.CreateKey(t.Context(), NewKey{Name: "n", Description: "d", Limits: Limits{Daily: 5}, RPM: 1, TPM: 2, Concurrent: 3, Models: []string{"m"}})
	if err != nil {
		t.Fatal(err)
	}
	b := openBook(t, o)
	old, next, secret2, err := a.Rotate(t.Context(), secret, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, next, cmpopts.IgnoreFields(Key{}, "ID", "Display")); diff != "" || next.ID == first.ID || old.ID != first.ID {
		t.Errorf("the successor differs: %s", diff)
	}
	usable := func(secret string, want error) {
		t.Helper()
		if _, err := b.Lookup(secret); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	usable(secret, nil)
	usable(secret2, nil)
	c.Add(time.Hour)
	usable(secret, ErrExpiredKey)
	usable(secret2, nil)
	if _, _, _, err := a.Rotate(t.Context(), first.ID, 0); !errors.Is(err, ErrExpiredKey) {
		t.Error(err)
	}
	_, third, _, err := a.Rotate(t.Context(), next.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	usable(secret2, ErrExpiredKey)
	if _, err := a.Revoke(t.Context(), third.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := a.Rotate(t.Context(), third.ID, 0); !errors.Is(err, ErrRevokedKey) {
		t.Error(err)
	}
	if _, _, _, err := a.Rotate(t.Context(), next.ID, -1); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, _, _, err := a.Rotate(t.Context(), "key_00000000000000000000000000", 0); !errors.Is(err, ErrUnknownKey) {
		t.Error(err)
	}
}

// A limit that is cleared is the gateway's default again.
func testClearedLimitsAreTheDefaults(t *testing.T, at home) {
	o := at.options(t, nil)
	a := openAdmin(t, o)
	k, _, err := a.CreateKey(t.Context(), NewKey{Limits: Limits{Daily: 5, Tariff: 6}, TPM: 7})
	if err != nil {
		t.Fatal(err)
	}
	seven := int64(7)
	_, now, err := a.SetLimits(t.Context(), k.ID, LimitChange{Monthly: &seven, Clear: []string{"daily", "tpm"}})
	if err != nil || now.Own != (Limits{Tariff: 6, Monthly: 7}) || now.TPM != 0 {
		t.Fatalf("%v, %+v", err, now)
	}
	for _, c := range []LimitChange{{Clear: []string{"id"}}, {Daily: &seven, Clear: []string{"daily"}}, {}} {
		if _, _, err := a.SetLimits(t.Context(), k.ID, c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
