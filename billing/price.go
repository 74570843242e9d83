package billing

import (
	"fmt"
	"time"
)

// Rates are prices for a million tokens, by kind of token. nil is "no price of
// its own": cached and audio tokens of the prompt cost as input, reasoning and
// audio of the answer as output; input and output themselves cost nothing.
type Rates struct {
	Input       *Money `json:"input,omitempty"`
	CachedRead  *Money `json:"cached_read,omitempty"`  // prompt tokens that the provider had cached
	CacheWrite  *Money `json:"cache_write,omitempty"`  // prompt tokens that it wrote to its cache
	Output      *Money `json:"output,omitempty"`       // delivered tokens
	Reasoning   *Money `json:"reasoning,omitempty"`    // hidden ones
	AudioInput  *Money `json:"audio_input,omitempty"`  // audio tokens of the prompt
	AudioOutput *Money `json:"audio_output,omitempty"` // audio tokens of the answer
}

// Kinds are the kinds of token by name, in the order of Rates.
func Kinds() []string {
	return []string{"input", "cached_read", "cache_write", "output", "reasoning", "audio_input", "audio_output"}
}

// list is the rates in the order of Kinds, to be read or set.
func (r *Rates) list() []**Money {
	return []**Money{&r.Input, &r.CachedRead, &r.CacheWrite, &r.Output, &r.Reasoning, &r.AudioInput, &r.AudioOutput}
}

// Each calls f for the rates that are given, in the order of Kinds.
func (r Rates) Each(f func(kind string, rate Money)) {
	for i, rate := range r.list() {
		if *rate != nil {
			f(Kinds()[i], **rate)
		}
	}
}

// Set sets one rate by its kind. ErrInvalid: no such kind.
func (r *Rates) Set(kind string, rate Money) error {
	for i, name := range Kinds() {
		if name == kind {
			*r.list()[i] = &rate
			return nil
		}
	}
	return fmt.Errorf("%w: no kind of token has this name", ErrInvalid)
}

// Price is the price of the models that match a pattern, from an instant on
// until the pattern's next one. A Price is never changed: charges refer to it.
type Price struct {
	ID        int64     // the version that charges store, > 0
	Model     string    // a name, or a pattern in which * stands for any text
	ValidFrom time.Time // UTC
	Rates
	CreatedAt time.Time // UTC
}

// Ends says that from ValidFrom on the pattern has no price.
func (p *Price) Ends() bool { return p.Rates == Rates{} }

// validate checks what a price may be.
func (p *Price) validate() error {
	if err := checkPattern(p.Model); err != nil {
		return err
	}
	var failed error
	p.Each(func(kind string, rate Money) {
		if rate < 0 || rate > maxPrice {
			failed = fmt.Errorf("%w: a price of %s is from 0 to %s for a million tokens", ErrInvalid, kind, maxPrice)
		}
	})
	if failed == nil && p.Input == nil && p.Output == nil && !p.Ends() {
		failed = fmt.Errorf("%w: give a price of input or output", ErrInvalid)
	}
	return failed
}

// rates are a price with every kind filled in.
type rates struct{ input, cached, write, output, reasoning, audioIn, audioOut Money }

func (r *Rates) filled() rates {
	or := func(rate *Money, fallback Money) Money {
		if rate == nil {
			return fallback
		}
		return *rate
	}
	f := rates{input: or(r.Input, 0), output: or(r.Output, 0)}
	f.cached, f.write, f.audioIn = or(r.CachedRead, f.input), or(r.CacheWrite, f.input), or(r.AudioInput, f.input)
	f.reasoning, f.audioOut = or(r.Reasoning, f.output), or(r.AudioOutput, f.output)
	return f
}

// Tokens are what one answer cost, by kind. Cached, CacheWrite and AudioPrompt
// are parts of Prompt; Reasoning and AudioCompletion are parts of Completion.
type Tokens struct {
	Prompt          int64 `json:"prompt"`
	Completion      int64 `json:"completion"`
	Cached          int64 `json:"cached,omitempty"`
	CacheWrite      int64 `json:"cache_write,omitempty"`
	AudioPrompt     int64 `json:"audio_prompt,omitempty"`
	Reasoning       int64 `json:"reasoning,omitempty"`
	AudioCompletion int64 `json:"audio_completion,omitempty"`
}

// kinds are tokens without overlap.
type kinds struct{ input, cached, write, output, reasoning, audioIn, audioOut int64 }

// split makes the parts disjoint: what does not fit into the whole beside the
// parts before it is cut off, so that no token is paid twice.
func (t Tokens) split() (k kinds) {
	sane := func(n int64) int64 { return min(max(n, 0), maxFigure) }
	k.input, k.output = sane(t.Prompt), sane(t.Completion)
	for _, part := range []struct {
		into  *int64
		whole *int64
		n     int64
	}{
		{&k.cached, &k.input, t.Cached},
		{&k.write, &k.input, t.CacheWrite},
		{&k.audioIn, &k.input, t.AudioPrompt},
		{&k.reasoning, &k.output, t.Reasoning},
		{&k.audioOut, &k.output, t.AudioCompletion},
	} {
		*part.into = min(max(part.n, 0), *part.whole)
		*part.whole -= *part.into
	}
	return k
}

// Cost is what the tokens cost: one sum over the disjoint kinds, rounded up
// once to a whole nano-unit.
func (r *Rates) Cost(t Tokens) Money {
	f, k := r.filled(), t.split()
	return Money(wide{}.
		plus(k.input, f.input).plus(k.cached, f.cached).plus(k.write, f.write).
		plus(k.output, f.output).plus(k.reasoning, f.reasoning).
		plus(k.audioIn, f.audioIn).plus(k.audioOut, f.audioOut).cost())
}

// worst are the dearest prices of a prompt's and of an answer's token.
func (r *Rates) worst() (prompt, output Money) {
	f := r.filled()
	return max(f.input, f.cached, f.write, f.audioIn), max(f.output, f.reasoning, f.audioOut)
}

// bound is the most that so many tokens can cost, of whatever kinds.
func (r *Rates) bound(prompt, output int64) int64 {
	p, o := r.worst()
	return wide{}.plus(min(prompt, maxFigure), p).plus(min(output, maxFigure), o).cost()
}

// affords is the largest number of output tokens, up to most, whose bound
// beside the prompt's stays within money; -1 when the prompt's alone does not.
func (r *Rates) affords(prompt, most, money int64) int64 {
	if r.bound(prompt, 0) > money {
		return -1
	}
	low, high := int64(0), most
	for low < high { // the bound only grows
		middle := low + (high-low+1)/2
		if r.bound(prompt, middle) <= money {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}
