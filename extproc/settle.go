package extproc

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/billing/usage"
)

// Checkpoints bound what a crash can lose of a running stream: this many
// output tokens, or this much time.
const (
	checkpointTokens = 256
	checkpointEvery  = 2 * time.Second
	// closeTimeout bounds the settlement of a stream that is already gone.
	closeTimeout = 10 * time.Second
)

// progressMarks remember what the books were told last of a running stream.
type progressMarks struct {
	tokens int64
	at     time.Time
}

// progress tells the books now and then how far a stream has come.
func (x *exchange) progress() {
	if !x.request.stream || x.resolved {
		return
	}
	report := x.meter.Report()
	seen := roughOutput(report)
	if seen-x.marks.tokens < checkpointTokens && time.Since(x.marks.at) < checkpointEvery {
		return
	}
	x.checkpoint(report)
}

func (x *exchange) checkpoint(report usage.Report) {
	p := billing.Progress{CompletionTokens: roughOutput(report)}
	if report.Verdict == usage.Reported {
		p.PromptTokens = report.Tokens.Prompt
	}
	x.marks.tokens, x.marks.at = p.CompletionTokens, time.Now()
	x.s.o.Books.Checkpoint(x.hold.ID, p)
}

// roughOutput is the output so far without a tokenizer: a stream's pieces are
// about one token each, and a token is about four bytes.
func roughOutput(r usage.Report) int64 {
	if r.Verdict == usage.Reported {
		return r.Tokens.Completion
	}
	return max(r.OutputChunks, (r.OutputBytes+3)/4)
}

// settle commits the charge before the piece that shows the end is released.
// A later call corrects it when the upstream's cumulative figure has grown.
// complete = the answer came to its proper end, or its final figure is known;
// an upstream that stops in the middle is not complete.
func (x *exchange) settle(ctx context.Context, report usage.Report, complete bool) error {
	ctx = context.WithoutCancel(ctx) // a client that leaves now is charged all the same
	switch {
	case !x.resolved:
		x.resolved = true
		outcome := x.outcome(report, complete)
		x.note(outcome)
		if x.notes.ending = EndingServed; !complete {
			x.notes.ending = EndingAborted
		}
		err := x.charge(ctx, outcome)
		x.leave(x.charged.Total)
		return err
	case report.Verdict == usage.Reported && report.Tokens.Total > x.charged.Total:
		outcome := x.outcome(report, true)
		// A correction is a charge of its own: the two are rounded up each.
		cost := x.notes.cost + x.hold.CostBeyond(x.inTheBooks(), outcome)
		x.note(outcome)
		x.notes.cost = cost
		return x.s.o.Books.Correct(ctx, x.hold.ID, outcome)
	}
	return nil
}

// charge makes the charge durable, and notes how long that took.
func (x *exchange) charge(ctx context.Context, o billing.Outcome) error {
	began := time.Now()
	err := x.s.o.Books.Settle(ctx, x.hold.ID, o)
	if x.notes.settle = time.Since(began); err != nil {
		x.notes.ending = EndingFailed // the client does not get the end
	}
	return err
}

func (x *exchange) note(o billing.Outcome) {
	x.notes.note, x.notes.answer = o.Note, o.AnswerModel
	x.charged = usage.Tokens{
		Prompt: o.Prompt, Completion: o.Completion, Total: o.Prompt + o.Completion,
		CachedPrompt: o.Cached, CacheWrite: o.CacheWrite, AudioPrompt: o.AudioPrompt,
		Reasoning: o.Reasoning, AudioCompletion: o.AudioCompletion,
	}
	x.notes.cost = x.hold.CostOf(o)
	x.provenance = o.Provenance
	x.body, x.sample = nil, nil // nothing is counted any more
}

// inTheBooks is what was charged so far.
func (x *exchange) inTheBooks() billing.Outcome {
	c := &x.charged
	return billing.Outcome{
		Prompt: c.Prompt, Completion: c.Completion, Cached: c.CachedPrompt, CacheWrite: c.CacheWrite, AudioPrompt: c.AudioPrompt,
		Reasoning: c.Reasoning, AudioCompletion: c.AudioCompletion, Provenance: x.provenance,
	}
}

// outcome maps what was seen of an answer to its charge. complete tells that
// the answer came to its proper end, or that its final figure is known.
//
//	complete, plausible figure       that figure                reported
//	complete, none or implausible    prompt and output counted  estimated
//	broken off                       last figure, else counted  aborted
func (x *exchange) outcome(r usage.Report, complete bool) billing.Outcome {
	o := billing.Outcome{Note: r.Reason}
	if r.Model != x.request.model {
		o.AnswerModel = r.Model
	}
	if r.Failed && o.Note == "" {
		o.Note = "upstream_error"
	}
	if r.Verdict == usage.Reported {
		o.Provenance = billing.Reported
		o.Prompt, o.Completion = r.Tokens.Prompt, r.Tokens.Completion
		o.Cached, o.CacheWrite, o.AudioPrompt = r.Tokens.CachedPrompt, r.Tokens.CacheWrite, r.Tokens.AudioPrompt
		o.Reasoning, o.AudioCompletion = r.Tokens.Reasoning, r.Tokens.AudioCompletion
	} else {
		o.Provenance = billing.Estimated
		o.Prompt, o.Completion = x.promptTokens(), x.outputTokens(r)
	}
	if !complete {
		o.Provenance = billing.Aborted
	}
	return o
}

// promptTokens counts the prompt as the model would, where its vocabulary is
// known, and estimates it otherwise.
func (x *exchange) promptTokens() int64 {
	texts := x.sample
	if texts == nil {
		texts = promptTexts(x.endpoint.Shape, x.body)
	}
	return x.request.prompt.withText(billing.EstimateTokens(x.request.model, x.request.prompt.textBytes, texts...))
}

func (x *exchange) outputTokens(r usage.Report) int64 {
	if x.endpoint.Shape == ShapeEmbedding {
		return 0
	}
	if !r.Decoded {
		// Compressed beyond our means: the wire's bytes are all there is.
		return (r.BodyBytes + 3) / 4
	}
	if r.OutputBytes == 0 {
		return 0
	}
	return max(1, billing.EstimateTokens(x.request.model, r.OutputBytes, r.OutputText))
}

// close settles whatever is still open when the stream has ended, for whatever
// reason: a client or upstream that went away, an error, a panic. The stream's
// own context is dead by now, so the books get one that outlives it.
func (x *exchange) close(ctx context.Context) {
	defer x.s.observer.ended(x) // last: the record is of everything
	if x.meter != nil {
		defer x.meter.Close()
	}
	defer func() { x.leave(x.charged.Total) }()
	if x.hold.ID == "" || x.resolved {
		return
	}
	x.resolved = true
	outcome := billing.Outcome{Provenance: billing.Aborted, Note: "abort_before_first_byte"}
	if x.meter != nil {
		outcome = x.outcome(x.meter.Report(), false)
	} else {
		outcome.Prompt = x.promptTokens()
	}
	x.note(outcome)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := x.charge(ctx, outcome); err != nil {
		// The hold stays open and is settled when the books are next opened.
		x.s.o.Log.Error("charge of an ended answer not written", zap.String("hold_id", x.hold.ID), zap.String("key_id", x.key.ID), zap.Error(err))
	}
}
