package extproc

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/billing/usage"
)

// A budget of money refuses in money, not in nano-units.
func TestExchange_moneyBudgetSpent(t *testing.T) {
	r := newRig(t, nil)
	r.books.reserveErr = &billing.BudgetError{
		Budget: billing.BudgetMoney, Limit: 25_000_000_000, Used: 24_999_000_000, Held: 500_000, Needed: 1_250_000, ResetIn: time.Hour,
	}
	talk := r.begin()
	talk.say(post("/v1/chat/completions"))
	a := talk.say(requestBodyMsg(chatBody))
	checkRefusal(t, a, 429, "insufficient_quota")
	var body struct{ Detail string }
	if err := json.Unmarshal(a.GetImmediateResponse().GetBody(), &body); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"money budget", "limit 25,", "used 24.999,", "needed 0.00125."} {
		if !strings.Contains(body.Detail, want) {
			t.Errorf("%q lacks %q", body.Detail, want)
		}
	}
}

// Where models without a price are refused, the answer says so.
func TestExchange_modelWithoutAPrice(t *testing.T) {
	r := newRig(t, nil)
	r.books.reserveErr = billing.ErrUnpriced
	talk := r.begin()
	talk.say(post("/v1/chat/completions"))
	checkRefusal(t, talk.say(requestBodyMsg(chatBody)), 403, "model_not_priced")
	if len(r.limits.taken) != r.limits.returned {
		t.Error("a refused request takes a place")
	}
}

// All parts of the upstream's figure reach the books, which price them apart.
func TestOutcome_hasAllKindsOfTokens(t *testing.T) {
	x := &exchange{}
	got := x.outcome(usage.Report{Verdict: usage.Reported, Tokens: usage.Tokens{
		Prompt: 90, Completion: 80, Total: 170, CachedPrompt: 1, CacheWrite: 2, AudioPrompt: 3, Reasoning: 4, AudioCompletion: 5,
	}}, true)
	want := billing.Outcome{
		Prompt: 90, Completion: 80, Cached: 1, CacheWrite: 2, AudioPrompt: 3, Reasoning: 4, AudioCompletion: 5, Provenance: billing.Reported,
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A figure that grows after the charge is charged by itself and rounded up by
// itself; the line tells the sum of both, as the books do.
func TestLineHasTheCostOfCorrections(t *testing.T) {
	r, logs := watched(t, zap.InfoLevel, nil)
	input, output := billing.Money(0), billing.Money(100_000) // a tenth of a nano-unit each
	r.books.rates = &billing.Rates{Input: &input, Output: &output}
	talk := r.begin()
	talk.say(post("/v1/chat/completions"))
	talk.say(requestBodyMsg(streamBody))
	talk.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream"))
	for _, piece := range []string{delta, finish, usageChunk, strings.ReplaceAll(usageChunk, `:4`, `:9`), done} {
		talk.say(responseBodyMsg(piece, false))
	}
	talk.say(responseBodyMsg("", true))
	talk.end()
	_, got := line(t, logs)
	if got["completion_tokens"] != int64(9) || got["cost"] != "0.000000002" {
		t.Errorf("the line is %v, after %v", got, r.books.events)
	}
}
