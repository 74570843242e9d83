package billing

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
)

func testCallersMayNameTheirHolds(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{Daily: 100})
	r := ask(k.ID, 40)
	r.ID = b.NewHoldID()
	if h := reserve(t, b, r); h.ID != r.ID {
		t.Fatalf("hold is %s, want %s", h.ID, r.ID)
	}
	for name, id := range map[string]string{
		"in use": r.ID, "no uuid": "x", "another version": "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "another spelling": "{" + b.NewHoldID() + "}",
	} {
		again := r
		again.ID = id
		if _, err := b.Reserve(context.Background(), again); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error is %v, want ErrInvalid", name, err)
		}
	}
	settle(t, b, r.ID, 1, 2)
	// The name lasts over both tries of one request.
	counted := ask(k.ID, 400)
	counted.ID, counted.PromptTokens = b.NewHoldID(), func() (int64, bool) { return 50, true }
	if h := reserve(t, b, counted); h.ID != counted.ID || h.Tokens != 50 {
		t.Fatalf("hold is %+v", h)
	}
	if r := mustBalance(t, o); r.OpenHolds != 1 {
		t.Fatalf("audit is %+v", r)
	}
}

// testFreedTokensAreFreeAtOnce takes what a void or a settle has just given back.
func testFreedTokensAreFreeAtOnce(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{Daily: 100})
	left := int64(100)
	for i := range 20 {
		h := reserve(t, b, ask(k.ID, left))
		if i%2 == 0 {
			b.Void(h.ID)
			continue
		}
		settle(t, b, h.ID, 1, 0)
		left--
	}
	flush(t, b)
	if r := mustBalance(t, o); r.OpenHolds != 0 {
		t.Fatalf("audit is %+v", r)
	}
}

func testOneFirstKeyIsMade(t *testing.T, at home) {
	o := at.options(t, nil)
	var made atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range 8 {
		a := openAdmin(t, o)
		if _, err := a.Keys(context.Background()); err != nil { // it is connected
			t.Fatal(err)
		}
		wg.Go(func() {
			<-start
			_, secret, first, err := a.CreateFirstKey(context.Background(), NewKey{Name: "first"})
			if err != nil || first != (secret != "") {
				t.Errorf("first key: %v, secret of %d bytes, %v", first, len(secret), err)
			}
			if first {
				made.Add(1)
			}
		})
	}
	close(start)
	wg.Wait()
	if made.Load() != 1 {
		t.Fatalf("%d first keys, want 1", made.Load())
	}
	if b := openBook(t, o); b.Storage() != map[bool]string{true: "sqlite", false: "postgresql"}[at.server == nil] {
		t.Fatalf("storage is %q", b.Storage())
	}
}

// TestBooksOfTheFirstSchemaMigrate opens books as the first release left them.
func TestBooksOfTheFirstSchemaMigrate(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	path := filepath.Join(o.DataDir, databaseFile)
	db, err := sql.Open("sqlite", dsn(path, time.Second, "&_txlock=immediate"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := steps.UpTo(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	old := &rawDB{DB: db}
	sum := plain("sk-test-old")
	execSQL(t, old, `INSERT INTO keys (id, digest, digest_kind, name, description, display, tariff, daily, monthly, rpm, models, origin,
		created_at, expires_at, revoked_at, rev) VALUES ('key_0123456789abcdefghjkmnpqrs', ?, 'sha256', 'old', '', '', 0, 50, 0, 3, '', 'created', 1, 0, 0, 1)`, sum[:])
	execSQL(t, old, "UPDATE meta SET v = '1' WHERE k = 'key_rev'")
	db.Close()

	b := openBook(t, o)
	k, err := b.Lookup("sk-test-old")
	if err != nil || k.TPM != 0 || k.Concurrent != 0 || k.RPM != 3 {
		t.Fatalf("lookup: %+v, %v", k, err)
	}
	settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 1, 2)
	five := int64(5)
	if _, now, err := openAdmin(t, o).SetLimits(context.Background(), k.ID, LimitChange{Concurrent: &five}); err != nil || now.Concurrent != 5 || now.TPM != 0 {
		t.Fatalf("set limits: %+v, %v", now, err)
	}
	mustBalance(t, o)
}

// TestBudgetsHoldOverManyClocks drives the arithmetic of budgets through the
// ends of days and months and through clocks that jump, beside plain sums.
func TestBudgetsHoldOverManyClocks(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		now := time.Date(2027, time.Month(1+rnd.IntN(12)), 25+rnd.IntN(9), rnd.IntN(24), 50, 0, 0, time.UTC)
		limits := Limits{Daily: 1 + rnd.Int64N(500), Monthly: 1 + rnd.Int64N(2000), Tariff: 1 + rnd.Int64N(2000)}
		p := periodOf(now)
		var a account
		taken, newest := map[string]int64{}, p.day // by day: used + held
		for range 60 {
			now = now.Add(time.Duration(rnd.Int64N(int64(20*time.Hour))) - 8*time.Hour)
			p = p.at(now)
			a.roll(p)
			newest = max(newest, now.Format(dayLayout))
			if p.day != newest || p.month != newest[:7] {
				t.Fatalf("seed %d: period is %s, want %s", seed, p.day, newest)
			}
			need := 1 + rnd.Int64N(300)
			h := openHold{want: want{choices: 1}, prompt: need}
			err := h.decide(&a, p, limits, now)
			fits := taken[newest]+need <= limits.Daily && month(taken, newest)+need <= min(limits.Monthly, limits.Tariff)
			if (err == nil) != fits {
				t.Fatalf("seed %d, %s: %d tokens: %v, want admission: %v", seed, now, need, err, fits)
			}
			if err != nil {
				var b *BudgetError
				if !errors.As(err, &b) || b.ResetIn <= 0 {
					t.Fatalf("seed %d: refusal is %v", seed, err)
				}
				continue
			}
			a.add(h.day, h.holding())
			cost := rnd.Int64N(need + 1)
			a.add(h.day, h.ended())
			a.add(h.day, delta{used: amount{tokens: cost}})
			taken[h.day] += cost
		}
	}
}
