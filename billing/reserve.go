package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// HoldRequest asks for the tokens that a request may cost at worst.
type HoldRequest struct {
	// ID becomes the hold's and later the charge's id: a UUIDv7 of NewHoldID, at
	// most five minutes old, never used before. "" = one is minted.
	ID                     string
	KeyID, Model, Endpoint string
	RequestID              string // the proxy's id, kept for reference, never an idempotency key

	PromptBound    int64                     // strict upper bound of the prompt's tokens, > 0
	PromptTokens   func() (n int64, ok bool) // the tokenizer's count, asked only when the bound does not fit; nil or !ok = unknown vocabulary
	PromptEstimate int64                     // cheap estimate, kept on the hold for recovery after a crash
	Ceiling        int64                     // output tokens per choice that the request allows, 0 = not given
	Choices        int64                     // choices x prompts, >= 1
	DefaultCeiling int64                     // taken when Ceiling is 0; 0 = no output expected
}

func (r *HoldRequest) validate() error {
	if r.PromptBound <= 0 || r.PromptEstimate < 0 || r.Ceiling < 0 || r.Choices < 1 || r.DefaultCeiling < 0 {
		return fmt.Errorf("reserve: %w: bounds must be positive", ErrInvalid)
	}
	if r.ID == "" {
		return nil
	}
	// Ids are compared as text and sort by time: only one spelling will do.
	if id, err := uuid.Parse(r.ID); err != nil || id.Version() != 7 || id.String() != r.ID {
		return fmt.Errorf("reserve: %w: the id is no UUIDv7", ErrInvalid)
	}
	return nil
}

// NewHoldID mints an id for a hold, a UUIDv7 by the clock of the books. It is
// "" when the machine has no random numbers; Reserve then fails by itself.
func (b *Book) NewHoldID() string {
	id, err := newUUID(b.opt.Now())
	if err != nil {
		return ""
	}
	return id.String()
}

// Hold is a committed reservation.
type Hold struct {
	ID         string // UUIDv7, later the charge's id
	KeyID      string
	Tokens     int64  // what is held, > 0
	Cost       Money  // what is held beside them
	Price      int64  // id of the price that applies; 0 = the model has none
	Rates      *Rates // of that price, nil without one
	Ceiling    int64  // effective output ceiling per choice
	Day, Month string // periods of admission: "2026-11-23", "2026-11"
	AdmittedAt time.Time

	Limit, Remaining int64         // of the tightest budget: its limit, and what is left after this hold
	ResetIn          time.Duration // until that budget's period ends
}

// CostOf is what an outcome of this hold is charged with, if it is the first.
func (h *Hold) CostOf(o Outcome) Money {
	if h.Rates == nil {
		return 0
	}
	return h.Rates.Cost(o.entry(time.Time{}).Tokens)
}

// CostBeyond is what Correct charges for an outcome of this hold where another
// one is in the books already: of the difference alone, rounded up by itself.
func (h *Hold) CostBeyond(before, o Outcome) Money {
	if h.Rates == nil {
		return 0
	}
	price := Price{ID: h.Price, Rates: *h.Rates}
	more, err := o.entry(time.Time{}).beyond(before.entry(time.Time{}), func(int64) (*Price, error) { return &price, nil })
	if err != nil || more == nil {
		return 0 // the price is known, so it is the latter
	}
	return Money(more.Cost)
}

// openHold is a hold in memory, from its admission until the commit that ends it.
type openHold struct {
	id, keyID, model, endpoint, requestID string
	promptBound, promptEstimate           int64

	want   want
	prompt int64 // the figure that counts for want
	grant        // once it is decided

	account *account // the account in memory that it is part of; nil where the database decides
	// Guarded by Book.mu:
	seen   Progress
	queued bool // a checkpoint waits in the queue
	ending *op  // the settle or void that ends it
}

// grant is what was decided for a hold.
type grant struct {
	day, month       string
	tokens, ceiling  int64
	cost             int64 // nano-units
	admittedAt       int64 // microseconds UTC
	limit, remaining int64
	resetIn          time.Duration
}

// decide grants what h wants from the account a, which it leaves as it is, or
// returns the *BudgetError that refuses it.
func (h *openHold) decide(a *account, p period, l Limits, now time.Time) error {
	bs := a.budgets(l, p, now)
	need, ceiling, refused := h.want.size(&bs, h.prompt)
	if refused != nil {
		return refused
	}
	least := tightest(&bs)
	h.grant = grant{
		day: p.day, month: p.month, tokens: need.tokens, cost: need.money, ceiling: ceiling, admittedAt: micros(now),
		limit: least.limit, remaining: least.left() - need.tokens, resetIn: least.resetIn,
	}
	return nil
}

// move changes the account in memory that the hold is part of.
func (h *openHold) move(d delta) {
	if h.account != nil {
		h.account.add(h.day, d)
	}
}

// holding and ended are what the hold's begin and its end move.
func (h *openHold) holding() delta { return delta{held: amount{h.tokens, h.cost}} }

func (h *openHold) ended() delta { return delta{held: amount{-h.tokens, -h.cost}} }

// priceID is the id of the price that applies, 0 for none.
func (h *openHold) priceID() int64 {
	if h.want.price == nil {
		return 0
	}
	return h.want.price.ID
}

// hold is the granted hold as its caller sees it.
func (h *openHold) hold() Hold {
	var rates *Rates
	if h.want.price != nil {
		rates = &h.want.price.Rates
	}
	return Hold{
		Rates: rates,

		ID: h.id, KeyID: h.keyID, Tokens: h.tokens, Cost: Money(h.cost), Price: h.priceID(), Ceiling: h.ceiling, Day: h.day, Month: h.month,
		AdmittedAt: instant(h.admittedAt),
		Limit:      h.limit, Remaining: h.remaining, ResetIn: h.resetIn,
	}
}

// Reserve holds the worst case of a request over the key's budgets, all or
// nothing, and returns once the hold is committed. Its money is reckoned with the
// price that the model has at that moment; the charge will use the same price.
//
// Errors: *BudgetError; ErrUnknownKey, with ErrRevokedKey or ErrExpiredKey for
// a key that may no longer be used; ErrUnavailable when the books are failing
// or took longer than ReserveWait, in which case nothing stays held;
// ErrUnpriced for a model without a price, where Options.RefuseUnpriced says so;
// ErrInvalid; ErrClosed.
func (b *Book) Reserve(ctx context.Context, r HoldRequest) (Hold, error) {
	if err := r.validate(); err != nil {
		return Hold{}, err
	}
	r.Model = storable(r.Model) // before its price is looked up: the books price what they name
	k := b.keys.get(r.KeyID)
	if k == nil {
		return Hold{}, fmt.Errorf("reserve: %w", ErrUnknownKey)
	}
	if err := k.usable(b.opt.Now()); err != nil {
		return Hold{}, fmt.Errorf("reserve: %w: %w", ErrUnknownKey, err)
	}
	hold, err := b.admit(ctx, k, &r, r.PromptBound, r.PromptTokens == nil)
	var refused *BudgetError
	if r.PromptTokens != nil && errors.As(err, &refused) {
		// Counting may take long: nothing is locked or held meanwhile.
		prompt := r.PromptBound
		if n, ok := r.PromptTokens(); ok && n > 0 {
			prompt = min(prompt, n)
		}
		hold, err = b.admit(ctx, k, &r, prompt, true)
	}
	return hold, err
}

// admit takes the tokens and returns once they are committed. last says that
// no better figure of the prompt will follow.
func (b *Book) admit(ctx context.Context, k *Key, r *HoldRequest, prompt int64, last bool) (Hold, error) {
	h, err := b.take(k, r, prompt, last)
	if err != nil {
		return Hold{}, err
	}
	if err := b.commitHold(ctx, h); err != nil {
		var refused *BudgetError
		if errors.As(err, &refused) {
			return Hold{}, refused
		}
		return Hold{}, fmt.Errorf("reserve: %w", err)
	}
	return h.hold(), nil
}

// take gives a request its place among the open holds.
func (b *Book) take(k *Key, r *HoldRequest, prompt int64, last bool) (*openHold, error) {
	now := b.opt.Now()
	price := b.keys.price(r.Model, now)
	if price == nil {
		if err := b.unpriced(r.Model); err != nil {
			return nil, fmt.Errorf("reserve: %w", err)
		}
	}
	id := r.ID
	if id == "" {
		minted, err := newUUID(now)
		if err != nil {
			return nil, fmt.Errorf("reserve: %w: %w", ErrUnavailable, err)
		}
		id = minted.String()
	}
	h := &openHold{
		id: id, keyID: k.ID, model: r.Model, endpoint: storable(r.Endpoint), requestID: storable(r.RequestID),
		promptBound: r.PromptBound, promptEstimate: min(r.PromptEstimate, maxFigure),
		want:   want{ceiling: r.Ceiling, normal: r.DefaultCeiling, choices: r.Choices, shrink: last, price: price},
		prompt: prompt, grant: grant{admittedAt: micros(now)},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, fmt.Errorf("reserve: %w", ErrClosed)
	case len(b.holds) >= holdsMax:
		return nil, fmt.Errorf("reserve: %w: %d open holds", ErrUnavailable, len(b.holds))
	case b.holds[id] != nil:
		return nil, fmt.Errorf("reserve: %w: the id is in use", ErrInvalid)
	}
	if err := b.engine.take(h, k); err != nil {
		return nil, err
	}
	b.holds[id] = h
	return h, nil
}

// commitHold waits for the hold's commit, or gives it up without a trace.
func (b *Book) commitHold(ctx context.Context, h *openHold) error {
	o := newOp(opReserve, h, nil)
	if !b.writer.q.push(o, reserveMax) {
		b.undo(h)
		return fmt.Errorf("%w: too many operations wait", ErrUnavailable)
	}
	timer := time.NewTimer(b.opt.ReserveWait)
	defer timer.Stop()
	var cause error
	select {
	case <-o.done:
		return o.err
	case <-timer.C:
		cause = fmt.Errorf("not committed within %s", b.opt.ReserveWait)
	case <-ctx.Done():
		cause = context.Cause(ctx)
	}
	switch {
	case o.state.CompareAndSwap(opQueued, opAbandoned):
		b.undo(h)
	case !o.state.CompareAndSwap(opRunning, opAbandoned):
		<-o.done // it was just decided
		return o.err
	}
	b.abandoned.Add(1)
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

// undo takes a hold that is not in the database out of memory.
func (b *Book) undo(h *openHold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holds[h.id] == h {
		delete(b.holds, h.id)
		h.move(h.ended())
	}
}

// Budget says which budget of tokens would refuse to hold need tokens now, nil
// when none would. It changes nothing and decides nothing: with PostgreSQL it looks at a
// copy that may be a second old. An unknown key is judged by the defaults.
func (b *Book) Budget(keyID string, need int64) *BudgetError {
	limits := b.defaults()
	if k := b.keys.get(keyID); k != nil {
		limits = b.Effective(*k)
	}
	a, p := b.engine.snapshot(keyID)
	bs := a.budgets(limits, p, b.opt.Now())
	return refusal(&bs, amount{tokens: need})
}

// Balance is the key's account in its current periods.
func (b *Book) Balance(keyID string) (Balance, error) {
	if b.keys.get(keyID) == nil {
		return Balance{}, fmt.Errorf("balance: %w", ErrUnknownKey)
	}
	a, p := b.engine.snapshot(keyID)
	now := b.opt.Now()
	return Balance{
		Day: p.day, Month: p.month,
		UsedToday: a.today.used, HeldToday: a.today.held,
		UsedMonth: a.thisMonth.used, HeldMonth: a.thisMonth.held,
		SpentMonth: Money(a.money.used), ReservedMonth: Money(a.money.held),
		DayResetIn: p.dayEnd.Sub(now), MonthResetIn: p.monthEnd.Sub(now),
	}, nil
}
