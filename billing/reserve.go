package billing

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// HoldRequest asks for the tokens that a request may cost at worst.
type HoldRequest struct {
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
	return nil
}

// Hold is a committed reservation.
type Hold struct {
	ID         string // UUIDv7, later the charge's id
	KeyID      string
	Tokens     int64  // what is held, > 0
	Ceiling    int64  // effective output ceiling per choice
	Day, Month string // periods of admission: "2026-11-23", "2026-11"
	AdmittedAt time.Time

	Limit, Remaining int64         // of the tightest budget: its limit, and what is left after this hold
	ResetIn          time.Duration // until that budget's period ends
}

// openHold is a hold in memory, from its admission until the commit that ends it.
type openHold struct {
	id, keyID, model, endpoint, requestID, day string
	tokens, promptBound, promptEstimate        int64
	admittedAt                                 int64 // microseconds UTC

	account *account
	// Guarded by Book.mu:
	seen   Progress
	queued bool // a checkpoint waits in the queue
	ending *op  // the settle or void that ends it
}

// Reserve holds the worst case of a request over the key's three budgets, all
// or nothing, and returns once the hold is committed.
//
// Errors: *BudgetError; ErrUnknownKey, with ErrRevokedKey or ErrExpiredKey for
// a key that may no longer be used; ErrUnavailable when the books are failing
// or took longer than ReserveWait, in which case nothing stays held;
// ErrInvalid; ErrClosed.
func (b *Book) Reserve(ctx context.Context, r HoldRequest) (Hold, error) {
	if err := r.validate(); err != nil {
		return Hold{}, err
	}
	k := b.keys.get(r.KeyID)
	if k == nil {
		return Hold{}, fmt.Errorf("reserve: %w", ErrUnknownKey)
	}
	if err := k.usable(b.opt.Now()); err != nil {
		return Hold{}, fmt.Errorf("reserve: %w: %w", ErrUnknownKey, err)
	}
	hold, open, err := b.admit(k, &r, r.PromptBound, r.PromptTokens == nil)
	var refused *BudgetError
	if r.PromptTokens != nil && errors.As(err, &refused) {
		prompt := r.PromptBound
		if n, ok := r.PromptTokens(); ok && n > 0 {
			prompt = min(prompt, n)
		}
		hold, open, err = b.admit(k, &r, prompt, true)
	}
	if err != nil {
		return Hold{}, err
	}
	if err := b.commitHold(ctx, open); err != nil {
		return Hold{}, fmt.Errorf("reserve: %w", err)
	}
	return hold, nil
}

// admit decides in memory and takes the tokens. last says that no better
// figure of the prompt will follow.
func (b *Book) admit(k *Key, r *HoldRequest, prompt int64, last bool) (Hold, *openHold, error) {
	now := b.opt.Now()
	id, err := newUUID(now)
	if err != nil {
		return Hold{}, nil, fmt.Errorf("reserve: %w: %w", ErrUnavailable, err)
	}
	w := want{ceiling: r.Ceiling, normal: r.DefaultCeiling, choices: r.Choices, shrink: last}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return Hold{}, nil, fmt.Errorf("reserve: %w", ErrClosed)
	}
	if len(b.holds) >= holdsMax {
		return Hold{}, nil, fmt.Errorf("reserve: %w: %d open holds", ErrUnavailable, len(b.holds))
	}
	acct, p := b.account(k.ID, now)
	bs := acct.budgets(k.Own.or(b.opt.Defaults), p, now)
	need, ceiling, refused := w.size(&bs, prompt)
	if refused != nil {
		return Hold{}, nil, refused
	}
	least := tightest(&bs)
	open := &openHold{
		id: id.String(), keyID: k.ID, model: r.Model, endpoint: r.Endpoint, requestID: r.RequestID, day: p.day,
		tokens: need, promptBound: r.PromptBound, promptEstimate: min(r.PromptEstimate, maxFigure),
		admittedAt: micros(now), account: acct,
	}
	acct.add(p.day, 0, need)
	b.holds[open.id] = open
	return Hold{
		ID: open.id, KeyID: k.ID, Tokens: need, Ceiling: ceiling, Day: p.day, Month: p.month,
		AdmittedAt: instant(open.admittedAt),
		Limit:      least.limit, Remaining: least.left() - need, ResetIn: least.resetIn,
	}, open, nil
}

// account is the key's account in the period of now. Book.mu is held.
func (b *Book) account(keyID string, now time.Time) (*account, period) {
	b.period = b.period.at(now)
	a := b.accounts[keyID]
	if a == nil {
		a = &account{}
		b.accounts[keyID] = a
	}
	a.roll(b.period)
	return a, b.period
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
		h.account.add(h.day, 0, -h.tokens)
	}
}

// Budget says which budget would refuse to hold need tokens now, nil when none
// would. It changes nothing. An unknown key is judged by the defaults.
func (b *Book) Budget(keyID string, need int64) *BudgetError {
	limits := b.opt.Defaults
	if k := b.keys.get(keyID); k != nil {
		limits = b.Effective(*k)
	}
	a, p, now := b.snapshot(keyID)
	bs := a.budgets(limits, p, now)
	return refusal(&bs, need)
}

// Balance is the key's account in its current periods.
func (b *Book) Balance(keyID string) (Balance, error) {
	if b.keys.get(keyID) == nil {
		return Balance{}, fmt.Errorf("balance: %w", ErrUnknownKey)
	}
	a, p, now := b.snapshot(keyID)
	return Balance{
		Day: p.day, Month: p.month,
		UsedToday: a.today.used, HeldToday: a.today.held,
		UsedMonth: a.thisMonth.used, HeldMonth: a.thisMonth.held,
		DayResetIn: p.dayEnd.Sub(now), MonthResetIn: p.monthEnd.Sub(now),
	}, nil
}

// snapshot copies an account as it is in the period of now.
func (b *Book) snapshot(keyID string) (account, period, time.Time) {
	now := b.opt.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.period.at(now)
	var a account
	if known := b.accounts[keyID]; known != nil {
		a = *known
	}
	a.roll(p)
	return a, p, now
}
