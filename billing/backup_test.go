package billing

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// worked are books with some history: two keys, charges, a correction, a void
// and an open hold of 70 tokens.
func worked(t *testing.T, o Options) (b *Book, secret string) {
	t.Helper()
	k, secret := createKey(t, o, Limits{Daily: 1 << 40})
	other, _ := createKey(t, o, Limits{})
	b = openBook(t, o)
	for i := range int64(5) {
		settle(t, b, reserve(t, b, ask(k.ID, 1000)).ID, 10+i, 20)
	}
	h := reserve(t, b, ask(other.ID, 500))
	settle(t, b, h.ID, 1, 2)
	if err := b.Correct(t.Context(), h.ID, Outcome{Prompt: 1, Completion: 9, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	b.Void(reserve(t, b, ask(other.ID, 5)).ID)
	reserve(t, b, ask(k.ID, 70))
	flush(t, b)
	return b, secret
}

func backup(t *testing.T, o Options) (Manifest, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "books.zip")
	m, err := openAdmin(t, o).Backup(t.Context(), path, BackupOptions{GatewayVersion: "v1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	return m, path
}

func TestBackupsGoEverywhere(t *testing.T) {
	pg := postgres15(t)
	homes := map[string]home{"sqlite": {}, "postgresql": pg}
	for source, from := range homes {
		for target, to := range homes {
			t.Run(source+" to "+target, func(t *testing.T) { testBackupAndRestore(t, from, to) })
		}
	}
}

func testBackupAndRestore(t *testing.T, from, to home) {
	o := from.options(t, nil)
	b, secret := worked(t, o)
	m, path := backup(t, o)
	want := Manifest{
		Format: backupFormat, Version: 1, GatewayVersion: "v1.2.3", Storage: b.Storage(), Instance: b.store.instance,
		Keys: 2, Charges: 7, OpenHolds: 1, UsedTokens: 170,
	}
	if diff := cmp.Diff(want, m, cmpopts.IgnoreFields(Manifest{}, "CreatedAt", "Schema", "Bytes", "SHA256")); diff != "" {
		t.Fatal(diff)
	}
	if read, err := ReadBackup(path); err != nil || !cmp.Equal(read, m) {
		t.Fatalf("%v, %+v, want %+v", err, read, m)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", err, info.Mode())
	}
	settle(t, b, reserve(t, b, ask(mustKey(t, b, secret).ID, 100)).ID, 50, 50) // not in the backup
	shut(t, b)
	var theirs []string
	if err := openAdmin(t, o).store.read.Raw("SELECT id FROM charges ORDER BY id").Scan(&theirs).Error; err != nil {
		t.Fatal(err)
	}

	there := to.options(t, nil)
	there.Lease = 500 * time.Millisecond
	done, err := Restore(t.Context(), there, path, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if done.Aside != "" || !done.Audit.Balanced || done.Audit.OpenHolds != 1 {
		t.Fatalf("%+v", done)
	}
	mustBalance(t, there)
	restored := openBook(t, there)
	k := mustKey(t, restored, secret)
	if k.Own.Daily != 1<<40 {
		t.Fatalf("%+v", k)
	}
	a := openAdmin(t, there)
	eventually(t, "the open hold of the backup is ended", func() bool {
		r, err := a.Audit(t.Context())
		return err == nil && r.OpenHolds == 0
	})
	settle(t, restored, reserve(t, restored, ask(k.ID, 1000)).ID, 1, 1)
	shut(t, restored)
	mustBalance(t, there)
	var ours []string
	if err := openAdmin(t, there).store.read.Raw("SELECT id FROM charges ORDER BY id").Scan(&ours).Error; err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(ours[:7], theirs[:7]) {
		t.Fatalf("charges %q, want those of %q", ours, theirs)
	}
}

func mustKey(t *testing.T, b *Book, secret string) Key {
	t.Helper()
	k, err := b.Lookup(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Restoring over books keeps those, whole, where they can be opened again.
func testRestoreKeepsTheOldBooksAside(t *testing.T, at home) {
	o := at.options(t, newClock("2026-11-24T09:00:00Z"))
	b, secret := worked(t, o)
	_, path := backup(t, o)
	later, _ := createKey(t, o, Limits{})
	shut(t, b)
	done, err := Restore(t.Context(), o, path, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a := openAdmin(t, o)
	if _, err := a.Find(t.Context(), later.ID); !errors.Is(err, ErrUnknownKey) {
		t.Fatalf("a key that was made after the backup: %v", err)
	}
	if _, err := a.Find(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	mustBalance(t, o)
	old := o
	if at.server == nil {
		if filepath.Base(done.Aside) != "before-restore-20261124T090000000Z" {
			t.Fatalf("kept in %q", done.Aside)
		}
		old.DataDir = done.Aside
	} else {
		old.DataDir = t.TempDir()
		old.URL = at.url + "&search_path=" + done.Aside
	}
	if _, err := openAdmin(t, old).Find(t.Context(), later.ID); err != nil {
		t.Fatalf("the books kept in %s: %v", done.Aside, err)
	}
	mustBalance(t, old)
}

func testRestoreRefusesWhileAGatewayWorks(t *testing.T, at home) {
	o := at.options(t, nil)
	b, _ := worked(t, o)
	_, path := backup(t, o)
	if _, err := Restore(t.Context(), o, path, RestoreOptions{}); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	if at.server != nil { // another machine's directory: only the lease tells
		elsewhere := o
		elsewhere.DataDir = t.TempDir()
		if _, err := Restore(t.Context(), elsewhere, path, RestoreOptions{}); !errors.Is(err, ErrInUse) {
			t.Fatal(err)
		}
	}
	settle(t, b, reserve(t, b, ask(anyKey(t, b), 10)).ID, 1, 1)
}

func anyKey(t *testing.T, b *Book) string {
	t.Helper()
	b.keys.mu.RLock()
	defer b.keys.mu.RUnlock()
	for id := range b.keys.byID {
		return id
	}
	t.Fatal("no key")
	return ""
}

// A backup that is taken while a gateway works is the books of one instant.
func testBackupUnderLoadBalances(t *testing.T, at home) {
	o := at.options(t, nil)
	b, k := setup(t, o, Limits{})
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				h, err := b.Reserve(context.Background(), ask(k.ID, 100))
				if err == nil {
					err = b.Settle(context.Background(), h.ID, Outcome{Prompt: 10, Completion: 5, Provenance: Reported})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		before := b.Stats().Commits
		eventually(t, "traffic", func() bool { return b.Stats().Commits > before+20 })
		_, path := backup(t, o)
		there := home{}.options(t, nil)
		if _, err := Restore(t.Context(), there, path, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
		mustBalance(t, there)
	}
	stop.Store(true)
	wg.Wait()
}

func TestBackupsReplaceOnlyBackups(t *testing.T) {
	o := home{}.options(t, nil)
	b, _ := worked(t, o)
	a := openAdmin(t, o)
	path := filepath.Join(t.TempDir(), "books.zip")
	for range 2 {
		if _, err := a.Backup(t.Context(), path, BackupOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	database := filepath.Join(o.DataDir, databaseFile)
	if _, err := a.Backup(t.Context(), database, BackupOptions{}); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %q, %v", left, err)
	}
	shut(t, b)
	mustBalance(t, o)
}

// A restore that was cut off between moving the old books aside and the new
// ones in leaves a place where no gateway begins anew; restoring again ends it.
func TestARestoreCutOffCanBeRepeated(t *testing.T) {
	o := home{}.options(t, nil)
	b, secret := worked(t, o)
	_, path := backup(t, o)
	shut(t, b)
	if err := os.Rename(filepath.Join(o.DataDir, databaseFile), filepath.Join(t.TempDir(), "aside")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrMissingDatabase) {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), o, path, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	mustKey(t, openBook(t, o), secret)
}

// A database that is no longer readable is replaced and kept, like any other.
func TestARestoreReplacesDamagedBooks(t *testing.T) {
	o := home{}.options(t, nil)
	b, secret := worked(t, o)
	_, path := backup(t, o)
	shut(t, b)
	damaged := filepath.Join(o.DataDir, databaseFile)
	text, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	for i := 100; i < len(text); i++ {
		text[i] = 0xff
	}
	write(t, damaged, string(text))
	done, err := Restore(t.Context(), o, path, RestoreOptions{})
	if err != nil || done.Aside == "" {
		t.Fatalf("%v, %+v", err, done)
	}
	mustKey(t, openBook(t, o), secret)
}

func TestARestoreLeavesForeignDatabasesAlone(t *testing.T) {
	o := home{}.options(t, nil)
	b, _ := worked(t, o)
	_, path := backup(t, o)
	shut(t, b)
	other := home{}.options(t, nil)
	create(t, filepath.Join(other.DataDir, databaseFile), "CREATE TABLE api_key_usage (a)")
	if _, err := Restore(t.Context(), other, path, RestoreOptions{}); !errors.Is(err, ErrForeignDatabase) {
		t.Fatal(err)
	}
}

func TestARestoreNeedsThePepper(t *testing.T) {
	o := home{}.options(t, nil)
	o.Pepper = []byte("0123456789abcdef")
	b, _ := worked(t, o)
	_, path := backup(t, o)
	shut(t, b)
	for _, pepper := range []string{"", "another pepper of 16"} {
		there := home{}.options(t, nil)
		there.Pepper = []byte(pepper)
		if _, err := Restore(t.Context(), there, path, RestoreOptions{}); !errors.Is(err, ErrPepper) {
			t.Fatalf("%q: %v", pepper, err)
		}
	}
}

// Charges that wait in the spill file are posted in the books they belong to,
// restored or not, and never in others.
func TestARestoreKeepsWaitingChargesOfTheSameBooks(t *testing.T) {
	for name, same := range map[string]bool{"the same books": true, "other books": false} {
		t.Run(name, func(t *testing.T) {
			o := home{}.options(t, nil)
			b, secret := worked(t, o)
			_, path := backup(t, o)
			there := o
			if !same {
				there = home{}.options(t, nil)
				shut(t, openBook(t, there))
			}
			e := entry{ID: b.NewHoldID(), KeyID: mustKey(t, b, secret).ID, Day: "2026-11-24", Tokens: Tokens{Prompt: 3, Completion: 4}, Provenance: Reported, SettledAt: 1}
			shut(t, b)
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			waiting := filepath.Join(there.DataDir, spillFile)
			write(t, waiting, string(line)+"\n")
			done, err := Restore(t.Context(), there, path, RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Join(done.Aside, spillFile)); (err == nil) == same {
				t.Fatalf("kept aside: %v", err)
			}
			shut(t, openBook(t, there))
			posted := number(t, raw(t, there), "SELECT count(*) FROM charges WHERE id = ?", e.ID)
			if (posted == 1) != same {
				t.Fatalf("posted %d times", posted)
			}
			mustBalance(t, there)
		})
	}
}
