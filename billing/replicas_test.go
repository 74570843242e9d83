package billing

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// replicas opens books that share a database, on its clock.
func (h home) replicas(t *testing.T, n int, change func(*Options)) ([]*Book, Options) {
	t.Helper()
	o := h.options(t, nil)
	if change != nil {
		change(&o)
	}
	books := make([]*Book, n)
	for i := range books {
		one := o
		one.DataDir = t.TempDir()
		books[i] = openBook(t, one)
	}
	o.DataDir = t.TempDir() // an operator's
	return books, o
}

// newKeyFor makes a key that all books know.
func newKeyFor(t *testing.T, books []*Book, o Options, l Limits) Key {
	t.Helper()
	k, _ := createKey(t, o, l)
	for _, b := range books {
		eventually(t, "the key is known everywhere", func() bool { _, ok := b.Key(k.ID); return ok })
	}
	return k
}

// watchLimits looks at the database all the time until stopped, and counts.
func watchLimits(t *testing.T, o Options) (stop func() int) {
	db := raw(t, o)
	quit, done := make(chan struct{}), make(chan struct{})
	looks := 0
	go func() {
		defer close(done)
		for ; ; looks++ {
			select {
			case <-quit:
				return
			default:
			}
			var over int64
			err := db.row(`SELECT count(*) FROM accounts a JOIN keys k ON k.id = a.key_id WHERE a.used + a.held > k.daily + (
				SELECT coalesce(sum(overshoot), 0) FROM charges c WHERE c.key_id = a.key_id AND c.day = a.day)`).Scan(&over)
			if err != nil || over > 0 {
				t.Errorf("%d accounts are over their limit, %v", over, err)
			}
		}
	}()
	end := sync.OnceFunc(func() {
		close(quit)
		<-done
	})
	t.Cleanup(end)
	return func() int {
		end()
		return looks
	}
}

func testReplicasAdmitExactlyTheBudget(t *testing.T, at home) {
	const callers, each, fit = 200, 7, 100
	books, o := at.replicas(t, 3, nil)
	stop := watchLimits(t, o)
	for round := range 20 {
		k := newKeyFor(t, books, o, Limits{Daily: fit * each, Monthly: fit*each + round64(round)})
		var admitted, denied atomic.Int64
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range callers {
			wg.Go(func() {
				<-start
				_, err := books[i%3].Reserve(context.Background(), ask(k.ID, each))
				var refusal *BudgetError
				switch {
				case err == nil:
					admitted.Add(1)
				case errors.As(err, &refusal):
					denied.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if admitted.Load() != fit || denied.Load() != callers-fit {
			t.Fatalf("round %d: admitted %d, denied %d, want %d and %d", round, admitted.Load(), denied.Load(), fit, callers-fit)
		}
	}
	if n := stop(); n < 20 {
		t.Fatalf("looked only %d times: this tests nothing", n)
	}
	mustBalance(t, o)
}

// round64 is a second budget's slack, which must make no difference.
func round64(n int) int64 { return int64(n % 3) }

// testReplicasChurn lets holds come and go at the limit all the time.
func testReplicasChurn(t *testing.T, at home) {
	books, o := at.replicas(t, 3, nil)
	k := newKeyFor(t, books, o, Limits{Daily: 5000})
	stop := watchLimits(t, o)
	var refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			b := books[i%3]
			for n := range 60 {
				h, err := b.Reserve(context.Background(), ask(k.ID, 400))
				var refusal *BudgetError
				switch {
				case errors.As(err, &refusal):
					refused.Add(1)
					continue
				case errors.Is(err, ErrUnavailable): // all want one key's lock: on a busy machine some wait too long
					continue
				case err != nil:
					t.Error(err)
					return
				}
				b.Checkpoint(h.ID, Progress{CompletionTokens: int64(n)})
				if n%3 == 0 {
					b.Void(h.ID)
				} else {
					settle(t, b, h.ID, 1, int64(n%4))
				}
			}
		})
	}
	wg.Wait()
	for _, b := range books {
		flush(t, b)
	}
	if n := stop(); n < 10 || refused.Load() == 0 {
		t.Fatalf("%d looks, %d refusals: this tests nothing", n, refused.Load())
	}
	if r := mustBalance(t, o); r.OpenHolds != 0 {
		t.Fatalf("audit is %+v", r)
	}
}

func testADeadReplicasHoldsAreEnded(t *testing.T, at home) {
	books, o := at.replicas(t, 3, func(o *Options) { o.Lease = time.Second })
	k := newKeyFor(t, books, o, Limits{Daily: 300})
	dead := books[0]
	quiet, answering := reserve(t, dead, ask(k.ID, 100)), reserve(t, dead, ask(k.ID, 200))
	dead.Checkpoint(answering.ID, Progress{PromptTokens: 7, CompletionTokens: 9})
	flush(t, dead)
	_ = refused(t, func() error { _, err := books[1].Reserve(context.Background(), ask(k.ID, 1)); return err }())
	eventually(t, "all know of three", func() bool { return books[1].Stats().Replicas == 3 })

	kill(dead)
	began := time.Now()
	eventually(t, "its budget is free again", func() bool {
		h, err := books[1].Reserve(context.Background(), ask(k.ID, 300-16))
		if err == nil {
			settle(t, books[1], h.ID, 4, 0)
		}
		return err == nil
	})
	if took := time.Since(began); took < 500*time.Millisecond || took > 5*time.Second {
		t.Fatalf("it took %s with a lease of 1 s", took)
	}
	db := raw(t, o)
	if n := number(t, db, "SELECT count(*) FROM charges WHERE id = ? AND provenance = 'expired' AND total = 0", quiet.ID); n != 1 {
		t.Fatal("the quiet hold did not expire")
	}
	if n := number(t, db, "SELECT count(*) FROM charges WHERE id = ? AND provenance = 'recovered' AND total = 16", answering.ID); n != 1 {
		t.Fatal("the answer that had begun was not charged as seen")
	}
	eventually(t, "it is off the list", func() bool {
		return books[2].Stats().Replicas == 2 && number(t, db, "SELECT count(*) FROM replicas") == 2
	})
	if n := books[1].Stats().Recovered + books[2].Stats().Recovered; n != 2 {
		t.Fatalf("%d holds recovered, want 2", n)
	}
	if r := mustBalance(t, o); r.OpenHolds != 0 {
		t.Fatalf("audit is %+v", r)
	}
}

// testTheLateSettleOfAReplicaTakenForDead cuts one off, so that others end its
// holds, and lets it come back with the truth.
func testTheLateSettleOfAReplicaTakenForDead(t *testing.T, at home) {
	books, o := at.replicas(t, 2, func(o *Options) { o.Lease = time.Second })
	proxy := rig.StartProxy(t, at.server.Addr)
	cut := o
	cut.URL, cut.DataDir, cut.SettleWait = at.through(proxy, o.URL), t.TempDir(), 50*time.Millisecond
	late := openBook(t, cut)
	k := newKeyFor(t, append(books, late), o, Limits{Daily: 1000})
	quiet, answering, cheap := reserve(t, late, ask(k.ID, 100)), reserve(t, late, ask(k.ID, 100)), reserve(t, late, ask(k.ID, 100))
	for _, h := range []Hold{answering, cheap} {
		late.Checkpoint(h.ID, Progress{PromptTokens: 7, CompletionTokens: 9})
	}
	flush(t, late)

	proxy.Hole()
	settle(t, late, quiet.ID, 10, 20)
	settle(t, late, answering.ID, 7, 43)
	settle(t, late, cheap.ID, 7, 2) // less than what was seen: the books take nothing back
	if n := late.Stats().Spilled; n != 3 {
		t.Fatalf("%d spilled, want 3", n)
	}
	db := raw(t, o)
	eventually(t, "the others end its holds", func() bool { return number(t, db, "SELECT count(*) FROM charges") == 3 })
	proxy.Pass()
	eventually(t, "the truth arrives", func() bool { return late.Stats().Spilled == 0 })
	check := func() {
		t.Helper()
		for id, want := range map[string]int64{quiet.ID: 30, answering.ID: 50, cheap.ID: 16} {
			if n := number(t, db, "SELECT CAST(sum(total) AS BIGINT) FROM charges WHERE id = ? OR ref = ?", id, id); n != want {
				t.Fatalf("charged %d, want %d", n, want)
			}
		}
		if n := number(t, db, "SELECT count(*) FROM charges WHERE kind = 'adjust' AND overshoot = total"); n != 2 {
			t.Fatalf("%d corrections, want 2", n)
		}
		if r := mustBalance(t, o); r.OpenHolds != 0 {
			t.Fatalf("audit is %+v", r)
		}
	}
	check()
	if bal := balance(t, late, k.ID); bal.UsedToday != 96 || bal.HeldToday != 0 {
		t.Fatalf("balance is %+v", bal)
	}
	// The same settle once more, as from a spill file that was not emptied.
	if stuck, err := books[0].replay([]entry{{ID: quiet.ID, KeyID: k.ID, Day: quiet.Day, Tokens: Tokens{Prompt: 10, Completion: 20}, Provenance: Reported, HoldTokens: 100}}); stuck != 0 || err != nil {
		t.Fatalf("replay: %d stuck, %v", stuck, err)
	}
	check()
}

// through is a database's URL by way of a proxy.
func (h home) through(p *rig.Proxy, url string) string {
	return replaceOnce(url, h.server.Addr, p.Addr)
}

func testChangesOfKeysReachAllReplicas(t *testing.T, at home) {
	books, o := at.replicas(t, 3, nil)
	a := openAdmin(t, o)
	ctx := context.Background()
	all := func(what string, ok func(*Book) bool) {
		t.Helper()
		began := time.Now()
		for i, b := range books {
			eventually(t, fmt.Sprintf("%s at %d", what, i), func() bool { return ok(b) })
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s: took %s, want at most 1 s", what, took)
		}
	}
	k, secret, err := a.CreateKey(ctx, NewKey{Limits: Limits{Daily: 100}, TPM: 5, Concurrent: 6})
	if err != nil {
		t.Fatal(err)
	}
	all("a new key", func(b *Book) bool {
		got, err := b.Lookup(secret)
		return err == nil && got.TPM == 5 && got.Concurrent == 6
	})
	ten, seven := int64(10), int64(7)
	if _, _, err := a.SetLimits(ctx, k.ID, LimitChange{Daily: &ten, TPM: &seven}); err != nil {
		t.Fatal(err)
	}
	// The database decides: no waiting for news.
	_ = refused(t, func() error { _, err := books[0].Reserve(ctx, ask(k.ID, 11)); return err }())
	all("a limit", func(b *Book) bool { got, _ := b.Key(k.ID); return got.Own.Daily == 10 && got.TPM == 7 })
	if _, err := a.Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := books[1].Reserve(ctx, ask(k.ID, 1)); !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrRevokedKey) {
		t.Fatalf("reserve right after the revocation: %v", err)
	}
	all("a revocation", func(b *Book) bool { _, err := b.Lookup(secret); return errors.Is(err, ErrRevokedKey) })
	// Without a notification the poll finds it.
	db := raw(t, o)
	execSQL(t, db, "UPDATE keys SET name = 'quiet', rev = 99")
	execSQL(t, db, "UPDATE meta SET v = '99' WHERE k = 'key_rev'")
	all("a change nobody told of", func(b *Book) bool { got, _ := b.Key(k.ID); return got.Name == "quiet" })
}

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
