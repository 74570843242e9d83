package billing

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// testOthersEndingAHoldGivesNothingTwice ends a hold behind its replica's back
// and lets that one end it again together with a reserve.
func testOthersEndingAHoldGivesNothingTwice(t *testing.T, at home) {
	books, o := at.replicas(t, 1, nil)
	b := books[0]
	e := b.engine.(*pgBooks)
	ctx := context.Background()
	conn, err := pgConnect(ctx, b.store.pg)
	if err != nil {
		t.Fatal(err)
	}
	defer pgDrop(conn)
	for name, again := range map[string]func(id string){
		"void":   b.Void,
		"settle": func(id string) { settle(t, b, id, 1, 0) },
	} {
		for range 5 {
			k := newKeyFor(t, books, o, Limits{Daily: 100})
			h := reserve(t, b, ask(k.ID, 100))
			b.Checkpoint(h.ID, Progress{PromptTokens: 60, CompletionTokens: 40})
			flush(t, b)
			if n, err := e.endHolds(ctx, conn, "h.replica = $1", e.replica, "by others"); n != 1 || err != nil {
				t.Fatalf("%d holds ended, %v", n, err)
			}
			release := blocked(t, o) // so that both are in one batch
			var wg sync.WaitGroup
			wg.Go(func() { again(h.ID) })
			eventually(t, "it is queued", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.holds[h.ID].ending != nil
			})
			wg.Go(func() {
				if _, err := b.Reserve(ctx, ask(k.ID, 1)); err == nil {
					t.Errorf("%s: a spent budget admits", name)
				}
			})
			release()
			wg.Wait()
			flush(t, b)
			if bal := balance(t, b, k.ID); bal.UsedToday != 100 || bal.HeldToday != 0 {
				t.Fatalf("%s: balance is %+v", name, bal)
			}
		}
	}
	mustBalance(t, o)
}

// testASpillOutlivesItsProcess kills a gateway whose settles are only spilled.
func testASpillOutlivesItsProcess(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	o.SettleWait = 10 * time.Millisecond
	b, k := setup(t, o, Limits{})
	first, second := reserve(t, b, ask(k.ID, 100)), reserve(t, b, ask(k.ID, 100))
	release := blocked(t, o)
	settle(t, b, first.ID, 10, 20)
	settle(t, b, second.ID, 1, 2)
	if err := b.Correct(context.Background(), second.ID, Outcome{Prompt: 1, Completion: 7, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Spilled != 3 || s.SettleLate != 3 {
		t.Fatalf("stats are %+v, want 3 spilled", s)
	}
	kill(b)
	release()
	for range 2 { // the second start finds nothing to do
		after := openBook(t, o)
		if bal := balance(t, after, k.ID); bal.UsedToday != 38 || bal.HeldToday != 0 {
			t.Fatalf("balance is %+v", bal)
		}
		shut(t, after)
	}
	if r := mustBalance(t, o); r.Charges != 3 || r.OpenHolds != 0 {
		t.Fatalf("audit is %+v", r)
	}
}

// BenchmarkReplicas has 64 callers reserve and settle over books that share a
// database, all on one key or on 30, and reports what a reserve waits.
func BenchmarkReplicas(b *testing.B) {
	at := postgres15(b)
	for _, c := range []struct{ books, keys int }{{1, 1}, {1, 30}, {3, 1}, {3, 30}} {
		b.Run(fmt.Sprintf("books=%d/keys=%d", c.books, c.keys), func(b *testing.B) {
			o := at.options(b, nil)
			keys := make([]Key, c.keys)
			for i := range keys {
				keys[i], _ = createKey(b, o, Limits{})
			}
			books := make([]*Book, c.books)
			for i := range books {
				one := o
				one.DataDir = b.TempDir()
				books[i] = openBook(b, one)
			}
			var mu sync.Mutex
			var reserves, settles []time.Duration
			work := make(chan int)
			var wg sync.WaitGroup
			before := cpuTime(b)
			b.ResetTimer()
			for i := range 64 {
				book := books[i%len(books)]
				wg.Go(func() {
					for n := range work {
						began := time.Now()
						h, err := book.Reserve(context.Background(), ask(keys[n%len(keys)].ID, 1000))
						held := time.Now()
						if err == nil {
							err = book.Settle(context.Background(), h.ID, Outcome{Prompt: 10, Completion: 20, Provenance: Reported})
						}
						if err != nil {
							b.Error(err)
						}
						mu.Lock()
						reserves, settles = append(reserves, held.Sub(began)), append(settles, time.Since(held))
						mu.Unlock()
					}
				})
			}
			for n := range b.N {
				work <- n
			}
			close(work)
			wg.Wait()
			b.StopTimer()
			report := func(of []time.Duration, name string) {
				slices.Sort(of)
				b.ReportMetric(float64(of[len(of)/2].Microseconds()), name+"-p50-µs")
				b.ReportMetric(float64(of[len(of)*99/100].Microseconds()), name+"-p99-µs")
			}
			report(reserves, "reserve")
			report(settles, "settle")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "admissions/s")
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}
