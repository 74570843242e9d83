package billing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

func replaceOnce(s, old, now string) string { return strings.Replace(s, old, now, 1) }

// testNothingIsLostWhenTheServerIsKilled kills the whole server under load.
func testNothingIsLostWhenTheServerIsKilled(t *testing.T, at home) {
	books, o := at.replicas(t, 3, func(o *Options) {
		o.ReserveWait, o.SettleWait = 300*time.Millisecond, 300*time.Millisecond
	})
	k := newKeyFor(t, books, o, Limits{})
	settled := map[string]int64{} // acknowledged ones, by hold
	var mu sync.Mutex
	var wg sync.WaitGroup
	var spilled, unavailable atomic.Int64
	quit := make(chan struct{})
	for i := range 12 {
		b := books[i%3]
		wg.Go(func() {
			for n := int64(1); ; n++ {
				select {
				case <-quit:
					return
				default:
				}
				h, err := b.Reserve(context.Background(), ask(k.ID, 50))
				if err != nil {
					if !errors.Is(err, ErrUnavailable) {
						t.Error(err)
						return
					}
					unavailable.Add(1)
					time.Sleep(5 * time.Millisecond)
					continue
				}
				if n%5 == 0 {
					b.Void(h.ID)
					continue
				}
				if err := b.Settle(context.Background(), h.ID, Outcome{Prompt: n % 40, Completion: 3, Provenance: Reported}); err != nil {
					t.Errorf("settle: %v", err)
					continue
				}
				mu.Lock()
				settled[h.ID] = n%40 + 3
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(settled)
	}
	for range 5 {
		before := count()
		time.Sleep(400 * time.Millisecond)
		eventually(t, "traffic between two deaths", func() bool { return count() >= before+50 })
		at.server.KillAll()
		time.Sleep(200 * time.Millisecond)
		at.server.Restart()
	}
	time.Sleep(300 * time.Millisecond)
	close(quit)
	wg.Wait()
	for _, b := range books {
		eventually(t, "everything is committed", func() bool {
			s := b.Stats()
			spilled.Store(spilled.Load() + s.SettleLate)
			return s.Spilled == 0 && s.QueueDepth == 0 && s.OpenHolds == 0 && b.Healthy(context.Background()) == nil
		})
	}
	t.Logf("%d settles acknowledged, %d reserves refused", len(settled), unavailable.Load())
	if len(settled) < 250 || unavailable.Load() == 0 {
		t.Fatal("this tests nothing")
	}
	found := map[string]int64{}
	rows, err := raw(t, o).Query("SELECT coalesce(ref, id), CAST(sum(total) AS BIGINT) FROM charges WHERE provenance = 'reported' GROUP BY 1")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var total int64
		if err := rows.Scan(&id, &total); err != nil {
			t.Fatal(err)
		}
		found[id] = total
	}
	for id, want := range settled {
		if found[id] != want {
			t.Fatalf("an acknowledged settle of %d tokens is in the books with %d", want, found[id])
		}
	}
	if len(found) != len(settled) {
		t.Fatalf("%d charges for %d settles", len(found), len(settled))
	}
	if r := mustBalance(t, o); r.OpenHolds != 0 {
		t.Fatalf("audit is %+v", r)
	}
}

func testAServerThatIsOutOfReach(t *testing.T, at home) {
	for name, fail := range map[string]func(*rig.Proxy){
		"black hole": (*rig.Proxy).Hole, "refused": (*rig.Proxy).Refuse,
	} {
		t.Run(name, func(t *testing.T) {
			proxy := rig.StartProxy(t, at.server.Addr)
			o := at.options(t, nil)
			o.URL = at.through(proxy, o.URL)
			o.ReserveWait, o.SettleWait = 250*time.Millisecond, 100*time.Millisecond
			b, k := setup(t, o, Limits{Daily: 1000})
			open := reserve(t, b, ask(k.ID, 400))
			fail(proxy)
			took := func(most time.Duration, f func()) {
				t.Helper()
				began := time.Now()
				f()
				if d := time.Since(began); d > most {
					t.Errorf("took %s, want at most %s", d, most)
				}
			}
			for range 3 {
				took(500*time.Millisecond, func() {
					if _, err := b.Reserve(context.Background(), ask(k.ID, 100)); !errors.Is(err, ErrUnavailable) {
						t.Errorf("reserve: %v, want ErrUnavailable", err)
					}
				})
			}
			took(400*time.Millisecond, func() { settle(t, b, open.ID, 30, 40) })
			took(500*time.Millisecond, func() { _ = b.Budget(k.ID, 1) })
			if n := b.Stats().Spilled; n != 1 {
				t.Fatalf("%d spilled, want 1", n)
			}
			proxy.Pass()
			took(6*time.Second, func() {
				eventually(t, "everything lands", func() bool { s := b.Stats(); return s.Spilled == 0 && s.OpenHolds == 0 })
				eventually(t, "the books are healthy", func() bool { return b.Healthy(context.Background()) == nil })
			})
			// The whole rest is free: no reserve that failed left a hold.
			eventually(t, "the rest is free", func() bool {
				h, err := b.Reserve(context.Background(), ask(k.ID, 930))
				if err == nil {
					b.Void(h.ID)
				}
				return err == nil
			})
			flush(t, b)
			if r := mustBalance(t, o); r.OpenHolds != 0 || r.Charges != 1 {
				t.Fatalf("audit is %+v", r)
			}
		})
	}
}

// testAFlappingLineLeaksNoHold cuts connections at any moment, between the
// messages of a transaction too.
func testAFlappingLineLeaksNoHold(t *testing.T, at home) {
	proxy := rig.StartProxy(t, at.server.Addr)
	o := at.options(t, nil)
	direct := o
	o.URL = at.through(proxy, o.URL)
	o.ReserveWait, o.SettleWait = 100*time.Millisecond, 50*time.Millisecond
	b, k := setup(t, o, Limits{})
	quit := make(chan struct{})
	var wg sync.WaitGroup
	var settledTokens, failed atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				h, err := b.Reserve(context.Background(), ask(k.ID, 50))
				switch {
				case err != nil:
					failed.Add(1)
				case i%2 == 0:
					b.Void(h.ID)
				default:
					settle(t, b, h.ID, 5, 6)
					settledTokens.Add(11)
				}
			}
		})
	}
	for i := range 24 {
		time.Sleep(time.Duration(20+7*i) * time.Millisecond / 2)
		switch i % 3 {
		case 0:
			proxy.Cut()
		case 1:
			proxy.Hole()
			time.Sleep(30 * time.Millisecond)
			proxy.Cut()
			proxy.Pass()
		default:
			proxy.Slow(3 * time.Millisecond)
			time.Sleep(20 * time.Millisecond)
			proxy.Cut()
			proxy.Pass()
		}
	}
	close(quit)
	wg.Wait()
	eventually(t, "everything lands", func() bool { s := b.Stats(); return s.Spilled == 0 && s.OpenHolds == 0 && s.QueueDepth == 0 })
	r := mustBalance(t, direct)
	if r.OpenHolds != 0 {
		t.Fatalf("%d holds leaked", r.OpenHolds)
	}
	if n := number(t, raw(t, direct), "SELECT CAST(sum(used) AS BIGINT) FROM accounts"); n != settledTokens.Load() || failed.Load() == 0 {
		t.Fatalf("used %d, want %d; %d reserves failed", n, settledTokens.Load(), failed.Load())
	}
}

func testForeignSchemasAreRefusedUntouched(t *testing.T, at home) {
	for name, tables := range map[string]string{
		"another gateway's":        "CREATE TABLE api_key_usage (a text)",
		"a table of the same name": "CREATE TABLE meta (other text)",
		"with the same columns":    "CREATE TABLE meta (k text, v text)",
		"a view":                   "CREATE VIEW something AS SELECT 1 AS a",
	} {
		t.Run(name, func(t *testing.T) {
			o := at.options(t, nil)
			db := raw(t, o)
			execSQL(t, db, tables)
			if b, err := Open(context.Background(), o); !errors.Is(err, ErrForeignDatabase) || strings.Contains(err.Error(), "\n") {
				t.Errorf("open: %v, %v, want one line of ErrForeignDatabase", b, err)
			}
			if _, err := OpenAdmin(context.Background(), o); !errors.Is(err, ErrForeignDatabase) {
				t.Errorf("open admin: %v, want ErrForeignDatabase", err)
			}
			if n := number(t, db, "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v')"); n != 1 {
				t.Errorf("%d tables, want 1", n)
			}
		})
	}
}

func testADirectoryKnowsItsBooks(t *testing.T, at home) {
	o := at.options(t, nil)
	b, _ := setup(t, o, Limits{})
	shut(t, b)
	empty := o
	empty.URL = at.schema(t)
	if _, err := Open(context.Background(), empty); !errors.Is(err, ErrMissingDatabase) {
		t.Fatalf("an emptied database: %v, want ErrMissingDatabase", err)
	}
	other := at.options(t, nil)
	shut(t, openBook(t, other))
	other.DataDir = o.DataDir
	write(t, filepath.Join(o.DataDir, spillFile), `{"id":"x"}`+"\n")
	if _, err := Open(context.Background(), other); !errors.Is(err, ErrMissingDatabase) {
		t.Fatalf("other books with a spill: %v, want ErrMissingDatabase", err)
	}
	write(t, filepath.Join(o.DataDir, spillFile), "")
	shut(t, openBook(t, other)) // nothing that could be posted to the wrong books
	// SQLite's directory may move to PostgreSQL.
	moved := options(t.TempDir(), nil)
	sqlite, _ := setup(t, moved, Limits{})
	shut(t, sqlite)
	moved.URL = at.schema(t)
	shut(t, openBook(t, moved))
}

func TestNoPasswordIsInAnError(t *testing.T) {
	const password = "s3cr3t-p4ss"
	for _, url := range []string{
		"postgres://u:" + password + "@127.0.0.1:1/books",
		"postgres://u:" + password + "@127.0.0.1:notaport/books",
		"postgres://u:" + password + "@127.0.0.1:1/books?sslmode=" + password,
		"postgres://u:%zz" + password + "@127.0.0.1/books",
		"postgres://127.0.0.1:1/books?password=" + password,
		"postgresql://" + password + "@:" + password + "@@/",
		"mysql://u:" + password + "@127.0.0.1/books",
	} {
		o := options(t.TempDir(), nil)
		o.URL = url
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_, err := Open(ctx, o)
		cancel()
		if err == nil || strings.Contains(err.Error(), password) {
			t.Errorf("the error of opening %q is %v", url, err)
		}
	}
}

func TestHide(t *testing.T) {
	c, err := pgConfig("postgres://u:s3cr3t-p4ss@127.0.0.1/books")
	if err != nil {
		t.Fatal(err)
	}
	got := hide(fmt.Errorf("no entry for s3cr3t-p4ss: %w", ErrForeignDatabase), c)
	if text := fmt.Sprintf("%v %+v", got, errors.Join(got)); strings.Contains(text, "s3cr3t") || !errors.Is(got, ErrForeignDatabase) {
		t.Fatalf("the error is %s", text)
	}
}

func testARoleThatLosesCommitsIsOverruled(t *testing.T, at home) {
	o := at.options(t, nil)
	o.URL += "&synchronous_commit=off"
	b := openBook(t, o)
	flush(t, b)
	var setting string
	if err := b.engine.(*pgBooks).conn.QueryRow(context.Background(), "SHOW synchronous_commit").Scan(&setting); err != nil || setting != "on" {
		t.Fatalf("synchronous_commit is %q, %v", setting, err)
	}
}

func testFilesOfAReplicaAreItsOwn(t *testing.T, at home) {
	o := at.options(t, nil)
	b, k := setup(t, o, Limits{})
	settle(t, b, reserve(t, b, ask(k.ID, 1)).ID, 1, 0)
	for path := range contentOf(t, o.DataDir) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(path), info.Mode())
		}
	}
}
