package billing

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func testRotationHandsAKeyOver(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b, a := openBook(t, o), openAdmin(t, o)
	ctx := context.Background()
	old, oldSecret, err := a.CreateKey(ctx, NewKey{
		Name: "n", Description: "d", Limits: Limits{Tariff: 9, Daily: 10, Monthly: 11}, RPM: 3, TPM: 4, Concurrent: 5,
		ExpiresAt: c.Now().Add(100 * time.Hour), Models: []string{"a", "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Add(time.Minute)
	r, err := a.Rotate(ctx, oldSecret, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if r.New.ID == old.ID || r.Secret == oldSecret || !r.Old.ExpiresAt.Equal(c.Now().Add(time.Hour)) || !r.New.CreatedAt.Equal(c.Now()) {
		t.Fatalf("rotation is %+v", r)
	}
	if diff := cmp.Diff(old, r.New, cmpopts.IgnoreFields(Key{}, "ID", "Display", "CreatedAt")); diff != "" {
		t.Errorf("the new key is another one (-old +new)\n%s", diff)
	}
	eventually(t, "both keys are known", func() bool {
		k, err := b.Lookup(r.Secret)
		before, errBefore := b.Lookup(oldSecret)
		return err == nil && errBefore == nil && cmp.Equal(k, r.New) && cmp.Equal(before, r.Old)
	})
	c.Add(time.Hour)
	if _, err := b.Lookup(oldSecret); !errors.Is(err, ErrExpiredKey) {
		t.Fatalf("the old key after the overlap: %v", err)
	}
	if _, err := b.Lookup(r.Secret); err != nil {
		t.Fatalf("the new key after the overlap: %v", err)
	}

	// What has ended has nothing to hand over.
	if _, err := a.Rotate(ctx, old.ID, time.Hour); !errors.Is(err, ErrExpiredKey) {
		t.Errorf("an expired key: %v", err)
	}
	if _, err := a.Rotate(ctx, r.New.ID, -1); !errors.Is(err, ErrInvalid) {
		t.Errorf("a negative overlap: %v", err)
	}
	if _, err := a.Rotate(ctx, "key_00000000000000000000000000", 0); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("an unknown key: %v", err)
	}
	// The earlier end of a life stays.
	again, err := a.Rotate(ctx, r.New.ID, 1000*time.Hour)
	if err != nil || !again.Old.ExpiresAt.Equal(old.ExpiresAt) || !again.New.ExpiresAt.Equal(old.ExpiresAt) {
		t.Errorf("an overlap beyond the expiry: %v, %+v", err, again)
	}
	if _, err := a.Revoke(ctx, r.New.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Rotate(ctx, r.New.ID, 0); !errors.Is(err, ErrRevokedKey) {
		t.Errorf("a revoked key: %v", err)
	}
}

// Of rotations without overlap at the same time one finds the key usable; the
// others leave nothing behind.
func testRotationWithoutOverlapHappensOnce(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	a := openAdmin(t, o)
	ctx := context.Background()
	k, _, err := a.CreateKey(ctx, NewKey{})
	if err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = a.Rotate(ctx, k.ID, 0) })
	}
	all.Wait()
	done := 0
	for _, err := range errs {
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrExpiredKey):
			t.Error(err)
		}
	}
	keys, err := a.Keys(ctx)
	if err != nil || done != 1 || len(keys) != 2 {
		t.Errorf("%d rotations, %d keys, %v", done, len(keys), err)
	}
}
