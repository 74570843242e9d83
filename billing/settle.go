package billing

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Provenance says where a charge's figures come from.
type Provenance string

// The provenances, from surest to least sure.
const (
	Reported  Provenance = "reported"  // the upstream's own figure of a complete answer
	Estimated Provenance = "estimated" // no usable figure
	Aborted   Provenance = "aborted"   // the answer ended early
	Recovered Provenance = "recovered" // posted after a crash from the last checkpoint
	Expired   Provenance = "expired"   // a hold found without a trace of forwarding: 0 tokens
)

// Progress is what was seen of an answer so far, in tokens, cumulative.
type Progress struct{ PromptTokens, CompletionTokens int64 }

// Outcome is what a request cost. Tokens are cumulative over the whole request.
type Outcome struct {
	Prompt, Completion int64
	Cached             int64 // part of Prompt that the provider had cached
	CacheWrite         int64 // part of Prompt that the provider wrote to its cache
	AudioPrompt        int64 // part of Prompt that was audio
	Reasoning          int64 // part of Completion that was hidden reasoning
	AudioCompletion    int64 // part of Completion that was audio
	Provenance         Provenance
	AnswerModel        string // the model the answer names
	Note               string // a word on anything odd; never content of a request
}

// entry turns an outcome into a row. Whatever a provider reported must be
// storable: a charge that cannot be written would be an answer given away.
func (o Outcome) entry(now time.Time) *entry {
	switch o.Provenance {
	case Reported, Estimated, Aborted, Recovered, Expired:
	default:
		o.Note = strings.TrimSpace("provenance unknown; " + o.Note)
		o.Provenance = Estimated
	}
	sane := func(n int64) int64 { return min(max(n, 0), maxFigure) }
	return &entry{
		Tokens: Tokens{
			Prompt: sane(o.Prompt), Completion: sane(o.Completion),
			Cached: sane(o.Cached), CacheWrite: sane(o.CacheWrite), AudioPrompt: sane(o.AudioPrompt),
			Reasoning: sane(o.Reasoning), AudioCompletion: sane(o.AudioCompletion),
		},
		Provenance: o.Provenance, AnswerModel: short(o.AnswerModel), Note: short(o.Note), SettledAt: micros(now),
	}
}

// storable drops what PostgreSQL cannot keep in a text.
func storable(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
}

// short keeps a foreign string from filling the books.
func short(s string) string {
	return storable(s[:min(len(s), 256)])
}

// Settle posts what a held request cost and gives back what it did not use,
// exactly once: settling or voiding the same hold again changes nothing and
// returns nil. It returns once the charge is committed or, after SettleWait or
// the end of ctx, once it is durable in the spill file.
//
// Any error but ErrUnknownHold means that the charge is not known to be
// durable: the answer must not be completed.
func (b *Book) Settle(ctx context.Context, holdID string, o Outcome) error {
	now := b.opt.Now()
	b.mu.Lock()
	h := b.holds[holdID]
	if h == nil {
		b.mu.Unlock()
		return b.ended(ctx, holdID)
	}
	if first := h.ending; first != nil {
		b.mu.Unlock()
		if first.kind != opSettle {
			return nil
		}
		return b.durable(ctx, first)
	}
	e := o.entry(now)
	e.ID, e.KeyID, e.Day, e.Model, e.Endpoint, e.RequestID = h.id, h.keyID, h.day, h.model, h.endpoint, h.requestID
	e.HoldTokens, e.HoldCost, e.AdmittedAt = h.tokens, h.cost, h.admittedAt
	e.priced(h.want.price)
	h.ending = newOp(opSettle, h, e)
	// Held becomes used in one step, here and in the commit: what a later
	// reserve may take of the rest is queued behind this settle.
	h.move(e.settling())
	if h.account != nil {
		h.ending.near = b.nearing(h.keyID, h.account, h.account.grown(h.day, e.amount()))
	}
	b.writer.q.push(h.ending, 0)
	b.mu.Unlock()
	return b.durable(ctx, h.ending)
}

// durable waits until o is committed or spilled.
func (b *Book) durable(ctx context.Context, o *op) error {
	timer := time.NewTimer(b.opt.SettleWait)
	defer timer.Stop()
	select {
	case <-o.done:
		return o.err
	case <-timer.C:
	case <-ctx.Done():
	case <-b.writer.ended:
	}
	select {
	case <-o.done:
		return o.err
	default:
	}
	if err := b.spill.append(o); err != nil {
		return fmt.Errorf("settle: %w: %w", ErrUnavailable, err)
	}
	return nil
}

// ended answers for a hold that is not open: nil when it was settled or voided.
func (b *Book) ended(ctx context.Context, holdID string) error {
	if b.isClosed() {
		return fmt.Errorf("settle: %w", ErrClosed)
	}
	var n int64
	err := b.store.read.WithContext(ctx).Raw(`SELECT (SELECT count(*) FROM charges WHERE id = ?) +
		(SELECT count(*) FROM holds WHERE id = ? AND state = 3)`, holdID, holdID).Scan(&n).Error
	switch {
	case err != nil:
		return fmt.Errorf("settle: %w: %w", ErrUnavailable, err)
	case n == 0:
		return fmt.Errorf("settle: %w", ErrUnknownHold)
	}
	return nil
}

// Correct is for an upstream whose cumulative figure grew after Settle: it
// appends a charge of the difference, when that is positive, and is as durable
// as Settle. All of it is overshoot, since the hold is long gone.
// ErrUnknownHold: the hold was never settled.
func (b *Book) Correct(ctx context.Context, holdID string, o Outcome) error {
	b.mu.Lock()
	h := b.holds[holdID]
	open := h != nil && (h.ending == nil || h.ending.kind != opSettle)
	closed := b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("correct: %w", ErrClosed)
	case open:
		return fmt.Errorf("correct: %w: it is not settled", ErrUnknownHold)
	}
	e := o.entry(b.opt.Now())
	e.ID, e.Adjust = holdID, true
	c := newOp(opCorrect, nil, e)
	if !b.writer.q.push(c, queueMax) {
		return fmt.Errorf("correct: %w: too many operations wait", ErrUnavailable)
	}
	return b.durable(ctx, c)
}

// Void ends a hold without a charge. It does not wait; a hold that has ended
// already is left alone.
func (b *Book) Void(holdID string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.holds[holdID]
	if h == nil || h.ending != nil {
		return
	}
	h.ending = newOp(opVoid, h, nil)
	h.move(h.ended())
	b.writer.q.push(h.ending, 0)
}

// Checkpoint marks a hold as forwarded and remembers what was seen of the
// answer, for recovery after a crash. It does not wait; several checkpoints of
// a hold become one write.
func (b *Book) Checkpoint(holdID string, p Progress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.holds[holdID]
	if h == nil || h.ending != nil {
		return
	}
	h.seen.PromptTokens = min(max(h.seen.PromptTokens, p.PromptTokens), maxFigure)
	h.seen.CompletionTokens = min(max(h.seen.CompletionTokens, p.CompletionTokens), maxFigure)
	if !h.queued {
		h.queued = true
		b.writer.q.mark(h)
	}
}

// progressMark is a checkpoint to be written.
type progressMark struct {
	id, keyID string
	Progress
}

// takeMarks reads what the queued checkpoints are by now.
func (b *Book) takeMarks(holds []*openHold) []progressMark {
	if len(holds) == 0 {
		return nil
	}
	marks := make([]progressMark, 0, len(holds))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range holds {
		h.queued = false
		if h.ending == nil {
			marks = append(marks, progressMark{h.id, h.keyID, h.seen})
		}
	}
	return marks
}

// remark returns the checkpoints of a failed commit that nobody queued again.
func (b *Book) remark(holds []*openHold) []*openHold {
	b.mu.Lock()
	defer b.mu.Unlock()
	again := holds[:0]
	for _, h := range holds {
		if !h.queued && h.ending == nil {
			h.queued = true
			again = append(again, h)
		}
	}
	return again
}

// forget brings memory up to what was committed.
func (b *Book) forget(ops []*op) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, o := range ops {
		switch o.kind {
		case opSettle, opVoid:
			delete(b.holds, o.hold.id)
		case opErase:
			if b.holds[o.hold.id] == o.hold {
				delete(b.holds, o.hold.id)
				o.hold.move(o.hold.ended())
			}
		case opReserve, opCorrect, opPing, opTask: // a hold is in memory first; the others are the database's
		}
	}
}
