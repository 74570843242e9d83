package billing

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func testReplicasBeginTogether(t *testing.T, at home) {
	o := at.options(t, nil)
	o.Pepper = []byte("pepper")
	var made atomic.Int64
	var wg sync.WaitGroup
	for range 5 {
		one := o
		one.DataDir = t.TempDir()
		wg.Go(func() {
			b, err := Open(context.Background(), one)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = b.Close(context.Background()) }()
			a, err := OpenAdmin(context.Background(), one)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Close() }()
			_, secret, first, err := a.CreateFirstKey(context.Background(), NewKey{Name: "first"})
			if err != nil || first != (secret != "") {
				t.Errorf("first key: %v, secret of %d bytes, %v", first, len(secret), err)
			}
			if first {
				made.Add(1)
			}
			if _, err := b.Import(context.Background(), []string{"sk-test-one", "sk-test-two"}, OriginEnv); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() > 1 {
		t.Fatalf("%d first keys", made.Load())
	}
	if n := number(t, raw(t, o), "SELECT count(*) FROM keys"); n != 2+made.Load() {
		t.Fatalf("%d keys, want 2 and %d", n, made.Load())
	}
	if n := number(t, raw(t, o), "SELECT count(*) FROM replicas"); n != 0 {
		t.Fatalf("%d replicas are left on the list", n)
	}
}

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
