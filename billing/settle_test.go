package billing

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func testAHoldEndsOnce(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	db := raw(t, o)

	h := reserve(t, b, ask(k.ID, 100))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() { settle(t, b, h.ID, int64(i+1), 0) })
	}
	wg.Wait()
	first := number(t, db, "SELECT total FROM charges WHERE id = ?", h.ID)
	settle(t, b, h.ID, 99, 99)
	b.Void(h.ID)
	flush(t, b)
	if n := number(t, db, "SELECT total FROM charges WHERE id = ?", h.ID); n != first {
		t.Fatalf("first outcome %d became %d", first, n)
	}

	v := reserve(t, b, ask(k.ID, 100))
	b.Void(v.ID)
	settle(t, b, v.ID, 5, 5) // while the void is queued
	flush(t, b)
	settle(t, b, v.ID, 5, 5) // after its commit
	if n := number(t, db, "SELECT count(*) FROM charges"); n != 1 {
		t.Fatalf("%d charges, want 1", n)
	}
	if bal := balance(t, b, k.ID); bal.UsedToday != first || bal.HeldToday != 0 {
		t.Fatalf("balance is %+v", bal)
	}
	if err := b.Settle(context.Background(), "no-such-hold", Outcome{}); !errors.Is(err, ErrUnknownHold) {
		t.Fatalf("error is %v, want ErrUnknownHold", err)
	}
	mustBalance(t, o)
}

func testCorrectAppendsOnlyGrowth(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	h := reserve(t, b, ask(k.ID, 100))
	correct := func(prompt, completion int64) {
		t.Helper()
		if err := b.Correct(context.Background(), h.ID, Outcome{Prompt: prompt, Completion: completion, Provenance: Reported}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Correct(context.Background(), h.ID, Outcome{Prompt: 1}); !errors.Is(err, ErrUnknownHold) {
		t.Fatalf("correcting an open hold: %v, want ErrUnknownHold", err)
	}
	settle(t, b, h.ID, 10, 20)
	for _, step := range []struct{ prompt, completion, sum int64 }{{10, 20, 30}, {5, 10, 30}, {10, 50, 60}, {10, 50, 60}, {15, 50, 65}, {5, 65, 70}} {
		correct(step.prompt, step.completion)
		if bal := balance(t, b, k.ID); bal.UsedToday != step.sum {
			t.Fatalf("after %+v: used %d", step, bal.UsedToday)
		}
	}
	db := raw(t, o)
	if n := number(t, db, "SELECT count(*) FROM charges WHERE kind = 'adjust' AND ref = ? AND overshoot = total", h.ID); n != 3 {
		t.Fatalf("%d corrections, want 3", n)
	}
	if n := number(t, db, "SELECT requests FROM accounts"); n != 1 {
		t.Fatalf("%d requests, want 1", n)
	}
	if err := b.Correct(context.Background(), "no-such-hold", Outcome{Prompt: 1}); !errors.Is(err, ErrUnknownHold) {
		t.Fatalf("error is %v, want ErrUnknownHold", err)
	}
	mustBalance(t, o)
}

func testAbsurdOutcomesAreStorable(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	for _, out := range []Outcome{
		{Prompt: -5, Completion: math.MaxInt64, Provenance: Reported},
		{Prompt: 1, Provenance: "nonsense", Note: string(make([]byte, 10000)), AnswerModel: "\xff\xfe"},
	} {
		if err := b.Settle(context.Background(), reserve(t, b, ask(k.ID, 10)).ID, out); err != nil {
			t.Fatal(err)
		}
	}
	mustBalance(t, o)
}

// blocked holds a lock that the writer needs, as a backup or a person at a prompt might.
func blocked(t *testing.T, o Options) (release func()) {
	t.Helper()
	db := raw(t, o)
	if o.URL == "" {
		execSQL(t, db, "BEGIN IMMEDIATE")
		return func() { execSQL(t, db, "ROLLBACK") }
	}
	tx, err := db.Begin()
	if err == nil {
		_, err = tx.Exec("LOCK TABLE keys IN EXCLUSIVE MODE")
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

func testABlockedWriterRefusesReserves(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	o.ReserveWait = 20 * time.Millisecond
	b, k := setup(t, o, Limits{Daily: 100})
	release := blocked(t, o)
	for range 5 {
		if _, err := b.Reserve(context.Background(), ask(k.ID, 20)); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("error is %v, want ErrUnavailable", err)
		}
	}
	if err := b.Healthy(context.Background()); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("health is %v, want ErrUnavailable", err)
	}
	eventually(t, "memory is undone", func() bool { return balance(t, b, k.ID).HeldToday == 0 })
	release()
	eventually(t, "the writer works again", func() bool { return b.Healthy(context.Background()) == nil })
	if _, err := b.Reserve(context.Background(), ask(k.ID, 100)); err != nil {
		t.Fatalf("the whole budget is not free again: %v", err)
	}
	mustBalance(t, o)
}

func testAnAbandonedReserveDoesNotLeak(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{Daily: 200})
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%40)*20*time.Microsecond)
			defer cancel()
			h, err := b.Reserve(ctx, ask(k.ID, 1))
			var refusal *BudgetError
			switch {
			case err == nil:
				b.Void(h.ID)
			case !errors.Is(err, ErrUnavailable) && !errors.As(err, &refusal):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	eventually(t, "all holds end", func() bool { return b.Stats().OpenHolds == 0 })
	if bal := balance(t, b, k.ID); bal.HeldToday != 0 || bal.HeldMonth != 0 {
		t.Fatalf("balance is %+v", bal)
	}
	if b.Stats().Abandoned == 0 {
		t.Fatal("nothing was abandoned: this tests nothing")
	}
	if r := mustBalance(t, o); r.OpenHolds != 0 {
		t.Fatalf("%d holds are open in the database", r.OpenHolds)
	}
}

func TestALateSettleIsSpilledAndReplayed(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	o.SettleWait = 10 * time.Millisecond
	b, k := setup(t, o, Limits{})
	a, c := reserve(t, b, ask(k.ID, 100)), reserve(t, b, ask(k.ID, 100))
	release := blocked(t, o)
	settle(t, b, a.ID, 10, 20)
	settle(t, b, c.ID, 1, 2)
	settle(t, b, a.ID, 9, 9) // again, while the first is only spilled
	if err := b.Correct(context.Background(), c.ID, Outcome{Prompt: 1, Completion: 7, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Spilled != 3 || s.SettleLate != 3 {
		t.Fatalf("stats are %+v, want 3 spilled", s)
	}
	crashed := copyDir(t, o.DataDir)

	eventually(t, "a commit fails and is tried again", func() bool { return b.Stats().FailedCommits > 1 })
	release()
	eventually(t, "the spill empties", func() bool { return b.Stats().Spilled == 0 })
	if info, err := os.Stat(filepath.Join(o.DataDir, spillFile)); err != nil || info.Size() != 0 {
		t.Fatalf("spill file: %v, %v", info, err)
	}

	o2 := o
	o2.DataDir = crashed
	for range 2 { // the second start finds nothing to do
		after := openBook(t, o2)
		if bal := balance(t, after, k.ID); bal.UsedToday != 38 || bal.HeldToday != 0 {
			t.Fatalf("after the crash: %+v", bal)
		}
		shut(t, after)
	}
	if bal := balance(t, b, k.ID); bal.UsedToday != 38 || bal.HeldToday != 0 {
		t.Fatalf("without a crash: %+v", bal)
	}
	for _, opt := range []Options{o, o2} {
		if r := mustBalance(t, opt); r.Charges != 3 {
			t.Fatalf("%d charges, want 3", r.Charges)
		}
	}
}

func testASpillReplayedTwiceChargesOnce(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	o.SettleWait = 10 * time.Millisecond
	b, k := setup(t, o, Limits{})
	h := reserve(t, b, ask(k.ID, 100))
	release := blocked(t, o)
	settle(t, b, h.ID, 10, 20)
	spilled, err := os.ReadFile(filepath.Join(o.DataDir, spillFile))
	if err != nil {
		t.Fatal(err)
	}
	release()
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The commit came, the emptying of the file did not; its last line is torn.
	torn := append(spilled, `{"id":"half`...)
	if err := os.WriteFile(filepath.Join(o.DataDir, spillFile), torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if bal := balance(t, openBook(t, o), k.ID); bal.UsedToday != 30 {
		t.Fatalf("used %d, want 30", bal.UsedToday)
	}
	mustBalance(t, o)
}

func TestNothingIsAppendedToATornRecord(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	o.SettleWait = 10 * time.Millisecond
	k, _ := createKey(t, o, Limits{})
	if err := os.WriteFile(filepath.Join(o.DataDir, spillFile), []byte(`{"id":"half`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := openBook(t, o)
	h := reserve(t, b, ask(k.ID, 100))
	release := blocked(t, o)
	settle(t, b, h.ID, 10, 20)
	o.DataDir = copyDir(t, o.DataDir)
	release()
	if bal := balance(t, openBook(t, o), k.ID); bal.UsedToday != 30 {
		t.Fatalf("used %d, want 30", bal.UsedToday)
	}
}

func TestADamagedSpillIsNotPassedOver(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	b, _ := setup(t, o, Limits{})
	shut(t, b)
	if err := os.WriteFile(filepath.Join(o.DataDir, spillFile), []byte("rubbish\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := Open(context.Background(), o); err == nil {
		_ = b.Close(context.Background())
		t.Fatal("books opened over a damaged spill file")
	}
}

func testWithoutDatabaseAndSpillTheSettleFails(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	o.SettleWait = 10 * time.Millisecond
	b, k := setup(t, o, Limits{})
	h := reserve(t, b, ask(k.ID, 100))
	release := blocked(t, o)
	b.spill.file.Close()
	if err := b.Settle(context.Background(), h.ID, Outcome{Prompt: 1}); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("error is %v, want ErrUnavailable", err)
	}
	release()
	eventually(t, "the charge is committed all the same", func() bool { return b.Stats().OpenHolds == 0 })
}

func testCloseSpillsWhatItCannotCommit(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	h := reserve(t, b, ask(k.ID, 100))
	release := blocked(t, o)
	done := make(chan error)
	go func() { done <- b.Settle(context.Background(), h.ID, Outcome{Prompt: 3, Provenance: Reported}) }()
	eventually(t, "the settle is under way", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.holds[h.ID].ending != nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	release()
	if bal := balance(t, openBook(t, o), k.ID); bal.UsedToday != 3 || bal.HeldToday != 0 {
		t.Fatalf("balance is %+v", bal)
	}
	if _, err := b.Reserve(context.Background(), ask(k.ID, 1)); !errors.Is(err, ErrClosed) {
		t.Fatalf("reserve after close: %v, want ErrClosed", err)
	}
	if err := b.Settle(context.Background(), "x", Outcome{}); !errors.Is(err, ErrClosed) {
		t.Fatalf("settle after close: %v, want ErrClosed", err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func testAnOperationThatCanNeverCommitHoldsUpNoOther(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b, k := setup(t, o, Limits{})
	bad, good := reserve(t, b, ask(k.ID, 100)), reserve(t, b, ask(k.ID, 10))
	db := raw(t, o)
	execSQL(t, db, "UPDATE accounts SET held = 50") // then -100 breaks a CHECK
	settle(t, b, bad.ID, 1, 1)                      // durable in the spill file
	settle(t, b, good.ID, 2, 2)
	if n := number(t, db, "SELECT count(*) FROM charges"); n != 1 {
		t.Fatalf("%d charges, want 1", n)
	}
	if n := b.Stats().Spilled; n != 1 {
		t.Fatalf("%d spilled, want 1", n)
	}
	execSQL(t, db, "UPDATE accounts SET held = 100")
	shut(t, b)
	openBook(t, o)
	mustBalance(t, o)
}
