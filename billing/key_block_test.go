package billing

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func testABlockedKeyIsKeptOut(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	a := openAdmin(t, o)
	ctx := context.Background()
	k, secret, err := a.CreateKey(ctx, NewKey{Name: "n", Limits: Limits{Tariff: 90, Daily: 80, Monthly: 70}, RPM: 6, TPM: 5, Concurrent: 4})
	if err != nil {
		t.Fatal(err)
	}
	b := openBook(t, o)
	settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 10, 20)
	running := reserve(t, b, ask(k.ID, 5))
	before := balance(t, b, k.ID)
	blocked, err := a.Block(ctx, secret)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key is kept out", func() bool { _, err := b.Lookup(secret); return errors.Is(err, ErrBlockedKey) })
	if _, err := b.Reserve(ctx, ask(k.ID, 1)); !errors.Is(err, ErrBlockedKey) || !errors.Is(err, ErrUnknownKey) {
		t.Errorf("reserve: %v, want ErrUnknownKey and ErrBlockedKey", err)
	}
	// All but the state is as it was.
	if diff := cmp.Diff(k, blocked, cmpopts.IgnoreFields(Key{}, "BlockedAt")); diff != "" || !blocked.BlockedAt.Equal(c.Now()) {
		t.Errorf("blocked at %v: %s", blocked.BlockedAt, diff)
	}
	if after := balance(t, b, k.ID); after != before {
		t.Errorf("the figures are %+v, were %+v", after, before)
	}
	settle(t, b, running.ID, 1, 1) // what runs ends in order
	c.Add(time.Minute)
	if again, err := a.Block(ctx, k.ID); err != nil || !again.BlockedAt.Equal(blocked.BlockedAt) {
		t.Errorf("blocked again: %v, %v", again.BlockedAt, err)
	}
	if _, err := a.Rotate(ctx, k.ID, time.Hour); !errors.Is(err, ErrBlockedKey) {
		t.Errorf("a rotation: %v, want ErrBlockedKey", err)
	}
	now, err := a.Unblock(ctx, secret)
	if diff := cmp.Diff(k, now); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
	eventually(t, "the key is let in", func() bool { _, err := b.Lookup(secret); return err == nil })
	settle(t, b, reserve(t, b, ask(k.ID, 1)).ID, 1, 0)
	mustBalance(t, o)

	for _, call := range []func(context.Context, string) (Key, error){a.Block, a.Unblock} {
		if _, err := call(ctx, "key_00000000000000000000000000"); !errors.Is(err, ErrUnknownKey) {
			t.Errorf("an unknown key: %v", err)
		}
	}
}
