package extproc

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

func TestLimitsOf(t *testing.T) {
	minute := func(n int64) ratelimit.Limit { return ratelimit.Limit{Max: n, Window: time.Minute} }
	defaults := ratelimit.Limits{Requests: ratelimit.Limit{Max: 30, Window: time.Hour}, Tokens: minute(900), Concurrent: 4}
	for _, c := range []struct {
		name string
		key  billing.Key
		want ratelimit.Limits
	}{
		{"nothing of its own", billing.Key{}, defaults},
		{"all of its own", billing.Key{RPM: 7, TPM: 500, Concurrent: 2}, ratelimit.Limits{Requests: minute(7), Tokens: minute(500), Concurrent: 2}},
	} {
		if d := cmp.Diff(c.want, LimitsOf(c.key, defaults)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func (r *rig) ask(key, body string) reply {
	r.t.Helper()
	c := r.begin()
	c.say(requestHeadersMsg(false, ":method", "POST", ":path", "/v1/chat/completions", "authorization", "Bearer "+key, "content-length", "10"))
	return c.say(requestBodyMsg(body))
}

// One id names a request under its rate limits, its hold and its charge: that
// is what lets an emptied store be rebuilt from the books without counting
// anything twice.
func TestTake_idIsTheHolds(t *testing.T) {
	r := newRig(t, nil)
	r.ask("sk-all", chatBody)
	if a, h := r.limits.asks[0], r.books.requests[0]; a.ID == "" || a.ID != h.ID || a.Subject != "key_4" || a.Limits.Concurrent != 2 {
		t.Fatalf("asked as %+v, held as %+v", a, h)
	}
}

func TestTake_tokens(t *testing.T) {
	const open = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
	bound := newRig(t, nil).boundOf(t, open)
	for _, c := range []struct {
		name, body  string
		tokens, min int64
	}{
		{"ceiling", chatBody, bound + 5, bound + 5},
		{"ceiling and choices", strings.Replace(chatBody, `"max_tokens":5`, `"max_tokens":5,"n":3`, 1), bound + 15, bound + 15},
		{"no ceiling", open, bound + 100, bound + 1},
	} {
		r := newRig(t, nil)
		r.ask("sk-all", c.body)
		if a := r.limits.asks[0]; a.Tokens != c.tokens || a.MinTokens != c.min {
			t.Errorf("%s: asked for %d, at least %d; want %d, %d", c.name, a.Tokens, a.MinTokens, c.tokens, c.min)
		}
	}

	r := newRig(t, nil)
	r.limits.granted = bound + 30
	r.ask("sk-all", open)
	if got := r.books.requests[0].DefaultCeiling; got != 30 {
		t.Errorf("a grant for 30 tokens of output became a ceiling of %d", got)
	}
}

// boundOf is the prompt's strict bound as the books see it.
func (r *rig) boundOf(t *testing.T, body string) int64 {
	t.Helper()
	r.ask(goodSecret, body)
	return r.books.requests[0].PromptBound
}

// The tokenizer is asked only when the bound is what does not fit.
func TestTake_countsAPromptThatDoesNotFit(t *testing.T) {
	body := `{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat("hello ", 50) + `"}],"max_tokens":5}`
	r := newRig(t, nil)
	r.limits.denied, r.limits.refused, r.limits.retryIn = true, ratelimit.NameTokens, time.Second
	r.ask("sk-all", body)
	if len(r.limits.asks) != 2 || r.limits.asks[1].MinTokens >= r.limits.asks[0].MinTokens/2 || r.limits.asks[0].ID != r.limits.asks[1].ID {
		t.Fatalf("asked %+v", r.limits.asks)
	}
	r = newRig(t, nil)
	r.limits.denied, r.limits.retryIn = true, time.Second
	r.ask("sk-all", body)
	if len(r.limits.asks) != 1 {
		t.Fatalf("a full request window was asked %d times", len(r.limits.asks))
	}
}

func TestPlace_endsOnceWithTheTrueTokens(t *testing.T) {
	for _, c := range []struct {
		name string
		talk func(*conversation)
		want []int64
	}{
		{"answered", func(c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
			c.say(responseBodyMsg(jsonAnswer, true))
		}, []int64{7}},
		{"upstream error", func(c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "500", "content-type", "application/json"))
		}, []int64{0}},
		{"unreachable", func(c *conversation) { c.say(responseHeadersMsg("upstream_reset", false, ":status", "503")) }, []int64{0}},
		{"client left", func(*conversation) {}, nil},
	} {
		r := newRig(t, nil)
		talk := r.admittedConversation(chatBody)
		c.talk(talk)
		talk.end()
		if c.want == nil { // whatever was charged
			c.want = []int64{r.books.outcomes[0].Prompt + r.books.outcomes[0].Completion}
		}
		if r.limits.leaks() != 0 || !slices.Equal(r.limits.settled, c.want) {
			t.Errorf("%s: settled %v, want %v", c.name, r.limits.settled, c.want)
		}
	}

	r := newRig(t, nil) // a list of models has no hold, and yet a place
	c := r.begin()
	c.say(requestHeadersMsg(true, ":method", "GET", ":path", "/v1/models", "authorization", "Bearer "+goodSecret))
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
	c.end()
	if r.limits.leaks() != 0 || !slices.Equal(r.limits.settled, []int64{0}) {
		t.Errorf("models: settled %v", r.limits.settled)
	}
}

func TestRateLimited_saysWhichLimit(t *testing.T) {
	for _, c := range []struct {
		name, refused string
		retryIn       time.Duration
		kind          string
		want          map[string]string
	}{
		{"requests", ratelimit.NameRequests, 1500 * time.Millisecond, "requests", map[string]string{"retry-after": "2", "retry-after-ms": "1500", "x-should-retry": "", "x-ratelimit-limit-tokens": "500", "x-ratelimit-reset-tokens": "2.5s"}},
		{"tokens", ratelimit.NameTokens, 30 * time.Second, "tokens", map[string]string{"retry-after": "30", "x-ratelimit-remaining-tokens": "0"}},
		{"concurrent", ratelimit.NameConcurrent, time.Second, "requests", map[string]string{"retry-after": "1"}},
		{"no wait helps", ratelimit.NameTokens, ratelimit.Never, "tokens", map[string]string{"retry-after": "", "retry-after-ms": "", "x-should-retry": "false"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.limits.denied, r.limits.refused, r.limits.retryIn = true, c.refused, c.retryIn
			a := r.ask("sk-all", chatBody)
			checkRefusal(t, a, 429, "rate_limit_exceeded")
			if body := string(a.GetImmediateResponse().GetBody()); !strings.Contains(body, `"type":"`+c.kind+`"`) {
				t.Errorf("body %s", body)
			}
			got := setHeaders(a.GetImmediateResponse().GetHeaders().GetSetHeaders())
			for name, want := range c.want {
				if got[name] != want {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
			if len(r.books.requests) != 0 {
				t.Error("the books were asked behind a full limit")
			}
		})
	}
}

func TestTake_closedWhenLimitsCannotBeAsked(t *testing.T) {
	r := newRig(t, nil)
	r.limits.away = true
	checkRefusal(t, r.ask("sk-all", chatBody), 503, "gateway_unavailable")
}
