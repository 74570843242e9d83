package billing

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
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
	return Options{DataDir: dir, Defaults: plenty, Now: c.Now, ReserveWait: 30 * time.Second, SettleWait: 30 * time.Second}
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

// raw is a connection past all of our code.
func raw(t testing.TB, dir string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, databaseFile)+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func execSQL(t testing.TB, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
}

func number(t testing.TB, db *sql.DB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
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

func BenchmarkReserveSettle(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(map[int]string{1: "1", 64: "64"}[callers], func(b *testing.B) {
			o := Options{DataDir: b.TempDir(), Defaults: plenty, ReserveWait: 30 * time.Second, SettleWait: 30 * time.Second}
			book, k := setup(b, o, Limits{})
			before := cpuTime(b)
			work := make(chan struct{})
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for range work {
						h, err := book.Reserve(context.Background(), ask(k.ID, 1000))
						if err == nil {
							err = book.Settle(context.Background(), h.ID, Outcome{Prompt: 10, Completion: 20, Provenance: Reported})
						}
						if err != nil {
							b.Error(err)
						}
					}
				})
			}
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
