package billing

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testHoldsFoundOpenAreEndedByWhatWasSeen(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b, k := setup(t, o, Limits{})
	request := ask(k.ID, 100)
	request.PromptEstimate = 25
	quiet, forwarded, answering, voided := reserve(t, b, request), reserve(t, b, request), reserve(t, b, request), reserve(t, b, request)
	b.Checkpoint(forwarded.ID, Progress{})
	b.Checkpoint(answering.ID, Progress{PromptTokens: 7, CompletionTokens: 3})
	b.Checkpoint(answering.ID, Progress{PromptTokens: 7, CompletionTokens: 9})
	b.Void(voided.ID)
	flush(t, b)

	o = at.crash(t, b, o)
	again := openBook(t, o)
	if bal := balance(t, again, k.ID); bal.UsedToday != 25+16 || bal.HeldToday != 0 {
		t.Fatalf("balance is %+v", bal)
	}
	db := raw(t, o)
	for id, want := range map[string]struct {
		provenance         string
		prompt, completion int64
	}{quiet.ID: {"expired", 0, 0}, forwarded.ID: {"recovered", 25, 0}, answering.ID: {"recovered", 7, 9}} {
		var provenance string
		var prompt, completion int64
		if err := db.row("SELECT provenance, prompt, completion FROM charges WHERE id = ?", id).Scan(&provenance, &prompt, &completion); err != nil {
			t.Fatal(err)
		}
		if provenance != want.provenance || prompt != want.prompt || completion != want.completion {
			t.Fatalf("charge is %s %d+%d, want %+v", provenance, prompt, completion, want)
		}
	}
	if n := number(t, db, "SELECT count(*) FROM charges WHERE id = ?", voided.ID); n != 0 {
		t.Fatal("a voided hold was charged")
	}
	if r := mustBalance(t, o); r.OpenHolds != 0 || r.Charges != 3 {
		t.Fatalf("audit is %+v", r)
	}
}

func testAdmissionsListEveryAdmittedRequest(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b, k := setup(t, o, Limits{})
	settle(t, b, reserve(t, b, ask(k.ID, 1)).ID, 1, 0)
	c.Add(time.Minute)
	since := c.Now()
	old := reserve(t, b, ask(k.ID, 1))
	c.Add(time.Second)
	void := reserve(t, b, ask(k.ID, 1))
	b.Void(void.ID)
	c.Add(time.Second)
	settle(t, b, old.ID, 1, 0)
	if err := b.Correct(context.Background(), old.ID, Outcome{Prompt: 2, Provenance: Reported}); err != nil {
		t.Fatal(err)
	}
	open := reserve(t, b, ask(k.ID, 1))
	flush(t, b)
	all, err := b.Admissions(context.Background(), since)
	if err != nil {
		t.Fatal(err)
	}
	want := []Admission{
		{old.ID, k.ID, since, 2}, // settled for 1, corrected to 2
		{void.ID, k.ID, since.Add(time.Second), 0},
		{open.ID, k.ID, since.Add(2 * time.Second), 1},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Fatal(diff)
	}
}

func testVoidedHoldsAreForgottenAfterADay(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	b, k := setup(t, o, Limits{})
	b.Void(reserve(t, b, ask(k.ID, 1)).ID)
	open := reserve(t, b, ask(k.ID, 1))
	flush(t, b)
	db := raw(t, o)
	if n := number(t, db, "SELECT count(*) FROM holds WHERE state = 3"); n != 1 {
		t.Fatalf("%d voided holds, want 1", n)
	}
	c.Add(25 * time.Hour)
	eventually(t, "the void is pruned", func() bool { return number(t, db, "SELECT count(*) FROM holds WHERE state = 3") == 0 })
	settle(t, b, open.ID, 1, 0)
	mustBalance(t, o)
}

const childEnv = "BILLING_TEST_CHILD"

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := workUntilKilled(dir, os.Getenv(childEnv+"_URL"), os.Getenv(childEnv+"_KEY")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// workUntilKilled prints the id of each settle after it was acknowledged.
func workUntilKilled(dir, url, keyID string) error {
	b, err := Open(context.Background(), Options{DataDir: dir, URL: url, Defaults: plenty, ReserveWait: 30 * time.Second})
	if err != nil {
		return err
	}
	var out sync.Mutex
	failed := make(chan error)
	for i := range 8 {
		go func() {
			for {
				h, err := b.Reserve(context.Background(), ask(keyID, 50))
				if err != nil {
					failed <- err
					return
				}
				b.Checkpoint(h.ID, Progress{PromptTokens: 2, CompletionTokens: 1})
				if i == 0 {
					b.Void(h.ID)
					continue
				}
				if err := b.Settle(context.Background(), h.ID, Outcome{Prompt: 3, Completion: 4, Provenance: Reported}); err != nil {
					failed <- err
					return
				}
				out.Lock()
				fmt.Println(h.ID)
				out.Unlock()
			}
		}()
	}
	return <-failed
}

func testNoAcknowledgedSettleIsLostByKill(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	k, _ := createKey(t, o, Limits{})
	acknowledged := map[string]bool{}
	for round := range 6 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+o.DataDir, childEnv+"_URL="+o.URL, childEnv+"_KEY="+k.ID)
		child.Stderr = os.Stderr
		pipe, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(pipe)
		for n := 0; lines.Scan(); n++ {
			// What was printed before the kill was acknowledged, all of it.
			acknowledged[lines.Text()] = true
			if n == 50+37*round {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := child.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("child ended by itself: %v", err)
		}
	}
	b := openBook(t, o)
	db := raw(t, o)
	for id := range acknowledged {
		if len(id) != 36 {
			continue // a line torn by the kill
		}
		if n := number(t, db, "SELECT count(*) FROM charges WHERE id = ? AND total = 7 AND provenance = 'reported'", id); n != 1 {
			t.Fatalf("acknowledged settle %s is there %d times", id, n)
		}
	}
	if n := b.Stats().OpenHolds; n != 0 {
		t.Fatalf("%d holds are open", n)
	}
	if r := mustBalance(t, o); r.OpenHolds != 0 || r.Charges < int64(len(acknowledged)) {
		t.Fatalf("audit is %+v for %d acknowledged settles", r, len(acknowledged))
	}
	if _, err := os.Stat(filepath.Join(o.DataDir, instanceFile)); err != nil {
		t.Fatal(err)
	}
}
