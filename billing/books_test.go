package billing

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is a clock that moves only when told.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock(s string) *clock {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return &clock{now: t}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var plenty = Limits{Tariff: 1 << 50, Daily: 1 << 50, Monthly: 1 << 50}

func options(dir string, c *clock) Options {
	// Waits are long: only tests of the waits themselves shorten them.
	o := Options{DataDir: dir, Defaults: plenty, ReserveWait: 30 * time.Second, SettleWait: 30 * time.Second}
	if c != nil {
		o.Now = c.Now
	}
	return o
}

func openBook(t testing.TB, o Options) *Book {
	t.Helper()
	b, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = b.Close(ctx) // some tests break the books; the others look at the outcome in shut
	})
	return b
}

// shut closes books before the test ends: what follows looks at what they left.
func shut(t testing.TB, b *Book) {
	t.Helper()
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func openAdmin(t testing.TB, o Options) *Admin {
	t.Helper()
	a, err := OpenAdmin(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func createKey(t testing.TB, o Options, l Limits) (Key, string) {
	t.Helper()
	a, err := OpenAdmin(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	k, secret, err := a.CreateKey(context.Background(), NewKey{Name: "test", Limits: l})
	if err != nil {
		t.Fatal(err)
	}
	return k, secret
}

// setup gives books with one key of the given limits, already open.
func setup(t testing.TB, o Options, l Limits) (*Book, Key) {
	t.Helper()
	k, _ := createKey(t, o, l)
	return openBook(t, o), k
}

// ask is a request for exactly n tokens.
func ask(keyID string, n int64) HoldRequest {
	return HoldRequest{KeyID: keyID, Model: "m", Endpoint: "/v1/chat/completions", PromptBound: n, Choices: 1}
}

func reserve(t testing.TB, b *Book, r HoldRequest) Hold {
	t.Helper()
	h, err := b.Reserve(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func settle(t testing.TB, b *Book, id string, prompt, completion int64) {
	t.Helper()
	if err := b.Settle(context.Background(), id, Outcome{Prompt: prompt, Completion: completion, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
}

func balance(t testing.TB, b *Book, keyID string) Balance {
	t.Helper()
	bal, err := b.Balance(keyID)
	if err != nil {
		t.Fatal(err)
	}
	return bal
}

// flush returns when everything queued so far is committed.
func flush(t testing.TB, b *Book) {
	t.Helper()
	if err := b.Healthy(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func audit(t testing.TB, o Options) AuditReport {
	t.Helper()
	a := openAdmin(t, o)
	r, err := a.Audit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustBalance(t testing.TB, o Options) AuditReport {
	t.Helper()
	r := audit(t, o)
	if !r.Balanced {
		t.Fatalf("books do not balance: %q", r.Problems)
	}
	return r
}

// rawDB is a connection past all of our code.
type rawDB struct {
	*sql.DB
	pg bool
}

func raw(t testing.TB, o Options) *rawDB {
	t.Helper()
	driver, dsn := "sqlite", "file:"+filepath.Join(o.DataDir, databaseFile)+"?_pragma=busy_timeout(5000)"
	if o.URL != "" {
		driver, dsn = "pgx", o.URL
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return &rawDB{db, o.URL != ""}
}

// words spells parameters as the database wants them.
func (db *rawDB) words(query string) string {
	for n := 1; db.pg && strings.Contains(query, "?"); n++ {
		query = strings.Replace(query, "?", fmt.Sprintf("$%d", n), 1)
	}
	return query
}

func (db *rawDB) row(query string, args ...any) *sql.Row {
	return db.QueryRow(db.words(query), args...)
}

func execSQL(t testing.TB, db *rawDB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(db.words(query), args...); err != nil {
		t.Fatal(err)
	}
}

func number(t testing.TB, db *rawDB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.row(query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// copyDir is what a crash at this moment would leave behind.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// eventually polls what another goroutine or process brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// testNow is in the middle of a day and a month.
const testNow = "2026-11-23T12:00:00Z"
