//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestBudgetForAHundredOnThreeGateways sends 200 requests at once through
// three gateways against a budget that is enough for exactly 100.
func TestBudgetForAHundredOnThreeGateways(t *testing.T) {
	const rounds, callers, fits, ceiling = 20, 200, 100, 1000
	f := startFleet(t, 3)
	// The upstream reports exactly what was held, so that nothing comes back.
	prompt := f.bound(ceiling)
	budget := fits * (ceiling + prompt)
	client := f.client(true)
	for round := range rounds {
		k := f.key(plenty, "--daily", strconv.FormatInt(budget, 10))
		before := f.up.Hits()
		var mu sync.Mutex
		passed, refused := 0, 0
		var begin sync.WaitGroup
		begin.Add(callers)
		parallel(callers, callers, func(i int) {
			body := rig.Chat{
				Model: fmt.Sprintf("p-%d", round), MaxTokens: ceiling, Stream: i%2 == 0,
				// Long enough for all holds to meet: a hold that came back early would let another in.
				Script: rig.Script{Prompt: prompt, Completion: ceiling, FirstDelayMS: 300},
			}.Body()
			begin.Done()
			begin.Wait()
			r := client.Do(f.context(), rig.Request{Key: k.Key, Body: body})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case r.SawEnd():
				passed++
			case r.Status == 429:
				refused++
			default:
				t.Errorf("status %d %q %v", r.Status, r.Body, r.Err)
			}
		})
		if hits := f.up.Hits() - before; passed != fits || refused != callers-fits || hits != fits {
			t.Fatalf("round %d: %d passed, %d refused, %d upstream hits; the budget is for %d", round, passed, refused, hits, fits)
		}
	}
	f.balanced()
}

// bound is what the gateway holds for the prompt of these tests' requests, as
// the refusal of a key that may use nothing tells it.
func (f *fleet) bound(ceiling int64) int64 {
	f.t.Helper()
	k := f.key(plenty, "--daily", "1")
	r := f.client(false).Do(f.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "b", MaxTokens: ceiling}.Body()})
	p := wantProblem(f.t, "bound", r, 429, "insufficient_quota")
	_, text, _ := strings.Cut(p.Detail, "needed ")
	needed, err := strconv.ParseInt(strings.TrimRight(strings.SplitN(text, " ", 2)[0], "."), 10, 64)
	if err != nil || needed <= ceiling {
		f.t.Fatalf("no figure in %q", p.Detail)
	}
	return needed - ceiling
}

// TestNodeDiesAndNothingIsStuck kills one of three gateways in the middle of
// requests that use a budget up: what it held is settled by the others, and
// the budget is used to its end, not beyond.
func TestNodeDiesAndNothingIsStuck(t *testing.T) {
	const ceiling, fits = 1000, 60
	f := startFleet(t, 3)
	prompt := f.bound(ceiling)
	k := f.key(plenty, "--daily", strconv.FormatInt(fits*(ceiling+prompt), 10))
	client := f.client(true)
	var mu sync.Mutex
	got := map[int]int{}
	var done sync.WaitGroup
	done.Go(func() {
		parallel(30, 30, func(int) {
			r := client.Do(f.context(), rig.Request{Key: k.Key, Body: rig.Chat{
				Model: "dying", MaxTokens: ceiling, Stream: true,
				Script: rig.Script{Prompt: prompt, Completion: ceiling, Chunks: 20, ChunkDelayMS: 100},
			}.Body()})
			mu.Lock()
			defer mu.Unlock()
			if r.SawEnd() {
				got[200]++
			} else {
				got[0]++
			}
		})
	})
	f.eventually("answers to run", func() bool { return len(ofModel(f.up, "dying")) == 30 })
	time.Sleep(500 * time.Millisecond)
	f.nodes[1].proc.Kill()
	killed := time.Now()
	done.Wait()
	t.Logf("answers seen to their end: %d, cut: %d", got[200], got[0])
	f.within(lease+5*time.Second, "the dead node's holds to be settled", func() bool {
		report, err := f.cli.Audit()
		if err != nil {
			t.Fatal(err)
		}
		return report.OpenHolds == 0
	})
	t.Logf("nothing open %s after the kill (lease %s)", time.Since(killed).Round(100*time.Millisecond), lease)
	f.balanced()
	rows := f.books("--key", k.ID)
	if row := rows["dying"]; row.Requests != 30 || row.Total > 30*(ceiling+prompt) {
		t.Errorf("30 requests, and the books have %d of %d tokens (%s)", row.Requests, row.Total, row.Words())
	}
	// The other two go on, and the node comes back.
	f.run(f.nodes[1])
	f.nodeReady(f.nodes[1])
	for i := range 12 {
		r := client.Do(f.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "after", MaxTokens: 10}.Body()})
		if r.Status != 200 {
			t.Errorf("request %d after the kill: %d %s", i, r.Status, r.Body)
		}
	}
	f.balanced()
}

// TestPostgresKilledLosesNothing kills PostgreSQL with all its processes five
// times under load, and reconciles clients, upstream and books.
func TestPostgresKilledLosesNothing(t *testing.T) {
	f := startFleet(t, 3)
	k := f.key(plenty)
	l := startLoadWith(f.gateway, k.Key, 12)
	for round := range 5 {
		l.more(60)
		f.postgres.KillAll()
		l.refused(t, round)
		f.postgres.Restart()
	}
	l.more(60)
	l.finish()
}

// TestKeyChangesReachEveryNode revokes, limits and makes keys under traffic.
func TestKeyChangesReachEveryNode(t *testing.T) {
	f := startFleet(t, 3)
	for range 3 {
		k := f.key(plenty)
		revoked := time.Now()
		if err := f.cli.RevokeKey(k.ID); err != nil {
			t.Fatal(err)
		}
		committed := time.Now()
		for _, n := range f.nodes {
			f.within(time.Second, n.name+" to refuse a revoked key", func() bool { return f.standing(n, k).Status == 403 })
		}
		t.Logf("revoked in all nodes %s after the command began, %s after it ended", time.Since(revoked).Round(time.Millisecond), time.Since(committed).Round(time.Millisecond))
	}
	k := f.key(plenty)
	if err := f.cli.SetLimit(k.ID, "--rpm", "7"); err != nil {
		t.Fatal(err)
	}
	for _, n := range f.nodes {
		f.within(time.Second, n.name+" to know the new limit", func() bool {
			return containsAll(string(f.standing(n, k).Body), `"limit":7`, `"window_seconds":60`)
		})
	}
}
