//go:build e2e

package e2e

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestBudgetForTenLetsTenPass sends 60 requests at once against a budget that
// is enough for exactly 10 of them: what is reported equals the ceiling, and
// the slack of 500 tokens is more than the prompt bounds need and less than
// one more answer.
func TestBudgetForTenLetsTenPass(t *testing.T) {
	const (
		rounds, callers, fits = 20, 60, 10
		ceiling, prompt       = 1000, 10
		budget                = fits*(ceiling+prompt) + 500
	)
	g := start(t, setup{})
	client := g.client(false)
	flag := []string{"--daily", "--monthly"}
	for round := range rounds {
		key := g.key(flag[round%2], strconv.Itoa(budget))
		before := g.up.Hits()
		var mu sync.Mutex
		passed, refused := 0, 0
		var begin sync.WaitGroup
		begin.Add(callers)
		parallel(callers, callers, func(i int) {
			body := rig.Chat{
				Model: fmt.Sprintf("b-%d", round), MaxTokens: ceiling, Stream: i%2 == 0,
				Script: rig.Script{Prompt: prompt, Completion: ceiling, FirstDelayMS: 20},
			}.Body()
			begin.Done()
			begin.Wait()
			r := client.Do(g.context(), rig.Request{Key: key.Key, Body: body})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case r.SawEnd():
				passed++
			case r.Status == 429:
				refused++
				wantProblem(t, "spent", r, 429, "insufficient_quota")
				after, err := strconv.Atoi(r.Header.Get("Retry-After"))
				if err != nil || after < 1 || r.Header.Get("X-Should-Retry") != "false" {
					t.Errorf("refused with Retry-After %q, x-should-retry %q", r.Header.Get("Retry-After"), r.Header.Get("X-Should-Retry"))
				}
			default:
				t.Errorf("status %d %q %v", r.Status, r.Body, r.Err)
			}
		})
		if hits := g.up.Hits() - before; passed != fits || refused != callers-fits || hits != fits {
			t.Fatalf("round %d: %d passed, %d refused, %d upstream hits; the budget is for %d", round, passed, refused, hits, fits)
		}
		table, err := g.cli.Usage("key", "--key", key.ID)
		if err != nil {
			t.Fatal(err)
		}
		if table.Total.Total != fits*(ceiling+prompt) || table.Total.Requests != fits {
			t.Errorf("round %d: books say %d tokens in %d requests", round, table.Total.Total, table.Total.Requests)
		}
	}
	g.balanced()
}
