package extproc

import (
	"context"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// LimitsOf are a key's rate limits: its own or its plan's, per minute, where
// they have any, else the gateway's.
func LimitsOf(k billing.Key, defaults ratelimit.Limits) ratelimit.Limits {
	l := defaults
	rpm, tpm, concurrent := k.Rates()
	if rpm > 0 {
		l.Requests = ratelimit.Limit{Max: rpm, Window: time.Minute}
	}
	if tpm > 0 {
		l.Tokens = ratelimit.Limit{Max: tpm, Window: time.Minute}
	}
	if concurrent > 0 {
		l.Concurrent = concurrent
	}
	return l
}

// place is what an exchange holds of its key's rate limits, from a Take that
// allowed it until it is given back or settled, exactly once.
type place struct {
	ask      ratelimit.Ask
	decision ratelimit.Decision
	taken    bool
}

// take asks for a place. The prompt may be given in two figures: its strict
// bound, and what the tokenizer counts, which is asked only when the bound is
// what does not fit.
func (x *exchange) take(ctx context.Context, body []byte) *refusal {
	x.place.ask = ratelimit.Ask{ID: x.s.o.Books.NewHoldID(), Subject: x.key.ID, Limits: LimitsOf(x.key, x.set.Defaults)}
	prompt := x.request.prompt.bound()
	x.size(prompt)
	d, err := x.s.o.Limits.Take(ctx, x.place.ask)
	if err == nil && !d.Allowed && d.Refused == ratelimit.NameTokens {
		if n, known := x.countPrompt(body); known && n < prompt {
			x.size(n)
			d, err = x.s.o.Limits.Take(ctx, x.place.ask)
		}
	}
	if err != nil {
		return unavailable()
	}
	x.place.decision, x.place.taken = d, d.Allowed
	if !d.Allowed {
		return x.strictest()
	}
	return nil
}

// size sets the tokens to hold: prompt and ceiling, or as little as one token
// of output where the client named no ceiling.
func (x *exchange) size(prompt int64) {
	if !x.endpoint.Metered() {
		return
	}
	a := &x.place.ask
	a.MinTokens = x.least(prompt)
	a.Tokens = a.MinTokens
	if x.request.ceiling == 0 && x.endpoint.Shape != ShapeEmbedding {
		a.Tokens = prompt + x.set.DefaultOutputTokens*x.request.choices
	}
}

// least is the fewest tokens that the request can be let through with.
func (x *exchange) least(prompt int64) int64 {
	if x.endpoint.Shape == ShapeEmbedding {
		return prompt
	}
	return prompt + max(x.request.ceiling, 1)*x.request.choices
}

// defaultCeiling is what a request without a ceiling may produce per choice:
// the gateway's default, or what was left of the tokens per minute.
func (x *exchange) defaultCeiling() int64 {
	a, d := &x.place.ask, &x.place.decision
	if a.Limits.Tokens.Max == 0 || d.Granted >= a.Tokens {
		return x.set.DefaultOutputTokens
	}
	prompt := a.MinTokens - x.request.choices
	return max(1, (d.Granted-prompt)/x.request.choices)
}

// giveBack undoes the take: the request was refused after all.
func (x *exchange) giveBack(ctx context.Context) {
	if !x.place.taken {
		return
	}
	x.place.taken = false
	x.s.o.Limits.GiveBack(ctx, x.place.ask, x.place.decision)
	// The answer's headers say where the key stands now.
	d := &x.place.decision
	d.Requests.Remaining++
	d.Tokens.Remaining += d.Granted
	d.Concurrent.Remaining++
}

// leave ends the place with the tokens that the request really cost.
func (x *exchange) leave(tokens int64) {
	if !x.place.taken {
		return
	}
	x.place.taken = false
	x.s.o.Limits.Settle(x.place.ask, x.place.decision, tokens)
}

// strictest answers a full limit: when a budget refuses too, the one with the
// longer wait answers, so that a client that waits as told passes.
func (x *exchange) strictest() *refusal {
	standing := x.s.o.Books.Standing(x.key.ID)
	if x.endpoint.Metered() {
		if b := x.s.o.Books.Budget(x.key.ID, x.least(x.request.prompt.bound())); b != nil && b.ResetIn > x.place.decision.RetryIn {
			return budgetSpent(b, &x.place.decision, standing)
		}
	}
	return rateLimited(&x.place, standing)
}

// limitHeaders tell an admitted client where it stands.
func (x *exchange) limitHeaders() [][2]string {
	standing := billing.Standing{Limit: x.hold.Limit, Remaining: x.hold.Remaining, ResetIn: x.hold.ResetIn}
	if x.hold.ID == "" {
		standing = x.s.o.Books.Standing(x.key.ID)
	}
	return append(requestHeadersOf(&x.place.decision), tokenHeaders(&x.place.decision, standing)...)
}
