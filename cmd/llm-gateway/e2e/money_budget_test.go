//go:build e2e

package e2e

import (
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestMoneyBudgetAdmitsExactlyWhatFits sends 50 requests at once against money
// for exactly 7 of them, then raises the budget for 3 more.
func TestMoneyBudgetAdmitsExactlyWhatFits(t *testing.T) {
	const callers, fits, more, ceiling = 50, 7, 3, 1000
	g := start(t, setup{})
	month := untilMonthEnds()
	// What is held is the dearest that the tokens can be: cache writes and reasoning.
	price := map[string]rates{
		"held": {"input": "0.3", "cache_write": "0.400000001", "output": "1.7", "reasoning": "1.900000003"},
		"free": {"input": "0"},
	}
	g.setPrices(price)
	time.Sleep(inForce)
	client := g.client(false)
	ask := func(k rig.NewKey, model string, s rig.Script) rig.Received {
		chat := rig.Chat{Model: model, MaxTokens: ceiling, Stream: s.Completion%2 == 0, Script: s}
		return client.Do(g.context(), rig.Request{Key: k.Key, Body: chat.Body()})
	}
	first := ask(g.key(), "held", rig.Script{Prompt: 1, Completion: 1})
	prompt := int64(g.line(first.Header.Get("X-Request-Id"))["held_tokens"].(float64)) - ceiling
	whole := rig.Script{ID: "crowd", Prompt: prompt, Completion: ceiling, Parts: rig.Parts{CacheWrite: prompt, Reasoning: ceiling}, Held: true}
	hold := bill(t, price["held"], prompt, ceiling, whole.Parts)
	least := big.NewInt(1)
	of := func(n int64) *big.Int { return new(big.Int).Mul(hold, big.NewInt(n)) }
	minus := func(a, b *big.Int) string { return decimal(new(big.Int).Sub(a, b)) }

	// One nano-unit less than for one more.
	budget := new(big.Int).Sub(of(fits+1), least)
	key := g.key("--budget", decimal(budget))
	standing := func(used, held *big.Int) {
		t.Helper()
		want := object{"limit": decimal(budget), "used": decimal(used), "held": decimal(held), "remaining": minus(budget, used), "resets_at": stampOf(month)}
		if diff := cmp.Diff(asJSON(t, want), g.told(owner{NewKey: key}, owner{}, "/limits")["money"]); diff != "" {
			t.Errorf("/limits (-want +got)\n%s", diff)
		}
	}
	refused := func(r rig.Received, used, held *big.Int) {
		t.Helper()
		p := wantProblem(t, "beyond the money", r, http.StatusTooManyRequests, "insufficient_quota")
		says := fmt.Sprintf("The money budget of this key cannot take this request: limit %s, used %s, held by running requests %s, needed %s. It starts anew in ",
			decimal(budget), decimal(used), decimal(held), decimal(hold))
		if !strings.HasPrefix(p.Error.Message, says) {
			t.Errorf("it says %q, want %q", p.Error.Message, says)
		}
		// Never early, and not later than a second beyond the truth.
		after, err := strconv.Atoi(r.Header.Get("Retry-After"))
		wait := time.Duration(after) * time.Second
		if err != nil || wait < month.Sub(r.Ended) || wait > month.Sub(r.Started)+time.Second || r.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("Retry-After %q, x-should-retry %q; the month ends in %s", r.Header.Get("Retry-After"), r.Header.Get("X-Should-Retry"), month.Sub(r.Ended))
		}
	}

	var running sync.WaitGroup
	ended := make(chan rig.Received, callers)
	for range callers {
		running.Go(func() { ended <- ask(key, "held", whole) })
	}
	for range callers - fits {
		select {
		case r := <-ended:
			refused(r, new(big.Int), of(fits))
		case <-time.After(20 * time.Second):
			t.Fatalf("more than %d requests were admitted: %d are at the upstream", fits, len(g.up.ByID("crowd")))
		}
	}
	g.answeredBy("crowd", fits)
	standing(new(big.Int), of(fits))
	g.up.Release("crowd")
	running.Wait()
	for range fits {
		if r := <-ended; !r.SawEnd() {
			t.Errorf("an admitted request: %d %s", r.Status, r.Body)
		}
	}
	standing(of(fits), new(big.Int))
	refused(ask(key, "held", whole), of(fits), new(big.Int))

	budget.Add(budget, of(more))
	g.command("set-limit", "--key", key.ID, "--budget", decimal(budget))
	g.obeys("the raised budget", func() (rig.Received, bool) { r := ask(key, "held", whole); return r, r.SawEnd() })
	var mu sync.Mutex
	passed := 0
	parallel(callers, callers, func(int) {
		if r := ask(key, "held", whole); r.SawEnd() {
			mu.Lock()
			passed++
			mu.Unlock()
		}
	})
	if hits := len(g.up.ByID("crowd")); passed != more-1 || hits != fits+more {
		t.Errorf("%d more passed, %d reached the upstream in all; want %d and %d", passed+1, hits, more, fits+more)
	}
	standing(of(fits+more), new(big.Int))
	if row := g.books("--key", key.ID)["held"]; row.Cost != decimal(of(fits+more)) || row.Requests != fits+more {
		t.Errorf("the books say %s for %d requests, want %s", row.Cost, row.Requests, decimal(of(fits+more)))
	}
	if said := g.proc.Stderr(); strings.Count(said, `"budget nearly used","key_id":"`+key.ID+`"`) != 1 || !strings.Contains(said, `"limit_money":"`+decimal(budget)+`"`) {
		t.Error("the log does not say once that the money is nearly used")
	}

	// An answer that costs more than was held takes the budget below nothing:
	// what costs money is refused, what costs none is not.
	over := g.key("--budget", decimal(hold))
	if r := ask(over, "held", rig.Script{Prompt: prompt, Completion: 10 * ceiling}); !r.SawEnd() {
		t.Errorf("up to the budget: %d %s", r.Status, r.Body)
	}
	wantProblem(t, "below nothing", ask(over, "held", whole), http.StatusTooManyRequests, "insufficient_quota")
	for _, model := range []string{"free", "without-a-price"} {
		if r := ask(over, model, rig.Script{Prompt: 1, Completion: 1}); !r.SawEnd() {
			t.Errorf("%s with no money left: %d %s", model, r.Status, r.Body)
		}
	}
	if money := g.told(owner{NewKey: over}, owner{}, "/limits")["money"].(object); money["remaining"] != "0" || money["held"] != "0" {
		t.Errorf("money below nothing: %v", money)
	}
	g.balanced()
}

// untilMonthEnds is the end of this month. A test that begins just before it waits.
func untilMonthEnds() time.Time {
	end := func() time.Time {
		now := time.Now().UTC()
		return time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	}
	if left := time.Until(end()); left < time.Minute {
		time.Sleep(left + time.Second)
	}
	return end()
}
