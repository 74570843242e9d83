package billing

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testImportFileNeverBeatsTheBooks(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b, a := openBook(t, o), openAdmin(t, o)
	ctx := context.Background()
	if _, err := b.Import(ctx, []string{"sk-env", "sk-env-limited", "sk-env-revoked"}, OriginEnv); err != nil {
		t.Fatal(err)
	}
	own := int64(77)
	if _, _, err := a.SetLimits(ctx, "sk-env-limited", LimitChange{Tariff: &own}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Revoke(ctx, "sk-env-revoked"); err != nil {
		t.Fatal(err)
	}
	_, created, err := a.CreateKey(ctx, NewKey{Name: "mine", Limits: Limits{Tariff: 5}})
	if err != nil {
		t.Fatal(err)
	}
	_, expired, err := a.CreateKey(ctx, NewKey{Name: "old", ExpiresAt: c.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	c.Add(time.Hour)
	born := time.Date(2025, 6, 13, 11, 56, 46, 548_995_000, time.UTC)
	list := []ListedKey{
		{secret: "sk-new", Limit: 1, Name: "n", Description: "d", CreatedAt: born},
		{secret: "sk-new-bare", Limit: 2},
		{secret: "sk-env", Limit: 3, Name: "team", Description: "its key"},
		{secret: "sk-env-limited", Limit: 4, Name: "x"},
		{secret: "sk-env-revoked", Limit: 4, Name: "x"},
		{secret: created, Limit: 4, Name: "x"},
		{secret: expired, Limit: 4, Name: "x"},
	}
	type facts struct {
		Result            ImportResult
		Limit             int64
		Name, Description string
		Origin            string
		CreatedAt         time.Time
	}
	look := func(done []ImportedKey) (all []facts) {
		for _, d := range done {
			all = append(all, facts{d.Result, d.Own.Tariff, d.Name, d.Description, d.Origin, d.CreatedAt})
		}
		return all
	}
	then, now := c.Now().Add(-time.Hour), c.Now()
	want := []facts{
		{ImportAdded, 1, "n", "d", "file", born},
		{ImportAdded, 2, "file", "", "file", now},
		{ImportUpdated, 3, "team", "its key", "env", then},
		{ImportUnchanged, 77, "env", "", "env", then},
		{ImportRevoked, 0, "env", "", "env", then},
		{ImportUnchanged, 5, "mine", "", "created", then},
		{ImportRevoked, 0, "old", "", "created", then},
	}
	done, err := a.ImportFile(ctx, list)
	if diff := cmp.Diff(want, look(done)); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	eventually(t, "a running gateway knows the new key", func() bool { _, err := b.Lookup("sk-new"); return err == nil })
	eventually(t, "a running gateway knows the new limit", func() bool { k, _ := b.Lookup("sk-env"); return k.Own.Tariff == 3 })
	if _, err := b.Lookup("sk-env-revoked"); !errors.Is(err, ErrRevokedKey) {
		t.Errorf("lookup: %v, want ErrRevokedKey", err)
	}

	// Again, by the gateway itself: nothing is left to do, and what was handed out is what is stored.
	for i := range want {
		if want[i].Result != ImportRevoked {
			want[i].Result = ImportUnchanged
		}
	}
	again, err := b.ImportFile(ctx, list)
	if diff := cmp.Diff(want, look(again)); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	for i := range done {
		if diff := cmp.Diff(done[i].Key, again[i].Key); diff != "" {
			t.Errorf("key %d is not stored as it was told (-told +stored):\n%s", i+1, diff)
		}
	}
	if audit, err := a.Audit(ctx); err != nil || !audit.Balanced || audit.Keys != 7 {
		t.Errorf("audit: %+v, %v", audit, err)
	}
}

func testImportFileIsAllOrNothing(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b := openBook(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	// The second key has a name that no database of ours takes.
	list := []ListedKey{{secret: "sk-one", Limit: 1}, {secret: "sk-two", Limit: 1, Name: "a\x00b"}}
	db := raw(t, o)
	if at.server == nil {
		execSQL(t, db, "CREATE TRIGGER no BEFORE INSERT ON keys WHEN NEW.name = 'a' || char(0) || 'b' BEGIN SELECT RAISE(ABORT, 'no'); END")
	}
	if done, err := b.ImportFile(ctx, list); err == nil || done != nil {
		t.Fatalf("%+v, %v, want an error", done, err)
	}
	if n := number(t, db, "SELECT count(*) FROM keys"); n != 0 {
		t.Errorf("%d keys, want none", n)
	}
	if _, err := b.Lookup("sk-one"); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("lookup: %v, want ErrUnknownKey", err)
	}
	if done, err := b.ImportFile(ctx, list[:1]); err != nil || len(done) != 1 {
		t.Errorf("%+v, %v, want one key", done, err)
	}
	if _, err := b.Lookup("sk-one"); err != nil {
		t.Errorf("the importing gateway does not know the key at once: %v", err)
	}
	cancel()
	shut(t, b)
	if _, err := b.ImportFile(context.Background(), list[:1]); !errors.Is(err, ErrClosed) {
		t.Errorf("closed books: %v, want ErrClosed", err)
	}
}
