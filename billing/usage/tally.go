package usage

import "unicode/utf8"

const (
	maxModel          = 256     // bytes of a model name that are kept
	maxTrackedChoices = 1 << 16 // above it the choices' ends are not told apart, and only [DONE], the usage chunk or the stream's end end an answer
)

// tally adds up what an answer tells.
type tally struct {
	embeddings bool
	choices    int64

	figure   figure
	model    string
	failed   bool
	finished []uint64 // set of the choices that have a finish_reason
	closed   int64    // size of that set

	sample  []byte
	bytes   int64
	chunks  int64
	inChunk bool // the current event has carried text already
	body    int64
}

func newTally(o Options) tally {
	return tally{embeddings: o.Embeddings, choices: o.Choices}
}

// output notes a stretch of output text.
func (t *tally) output(text []byte) {
	if len(text) == 0 {
		return
	}
	if !t.inChunk {
		t.inChunk = true
		t.chunks++
	}
	t.bytes += int64(len(text))
	room := MaxOutputSample - len(t.sample)
	t.sample = append(t.sample, text[:min(room, len(text))]...)
}

// named notes the answer's model; the first name stays.
func (t *tally) named(model []byte) {
	if t.model == "" && len(model) > 0 {
		t.model = string(wholeRunes(model))
	}
}

// finish notes that a choice has its finish_reason. A single choice is finished whatever number the server gives it.
func (t *tally) finish(index int64) {
	if t.choices == 1 {
		index = 0
	}
	if index < 0 || index >= t.choices || t.choices > maxTrackedChoices {
		return
	}
	if t.finished == nil {
		t.finished = make([]uint64, (t.choices+63)/64)
	}
	word, bit := index/64, uint64(1)<<(index%64)
	if t.finished[word]&bit == 0 {
		t.finished[word] |= bit
		t.closed++
	}
}

func (t *tally) allFinished() bool { return t.closed == t.choices }

// absorb takes over what one JSON value of the answer said, and tells whether it held a figure other than zeros.
func (t *tally) absorb(p *part) (nonZero bool) {
	t.failed = t.failed || p.failed
	return t.figure.absorb(p, t)
}

func (f *figure) absorb(p *part, t *tally) (nonZero bool) {
	raw := p.figure()
	if raw == nil {
		return false
	}
	tokens, reason, stated := readUsage(raw, t.embeddings)
	if !stated {
		return false
	}
	f.take(tokens, reason, p.choices > 0 && !t.allFinished())
	return reason != "" || tokens.Total > 0
}

// report is the Report so far. pending is the value that is still being read, nil when there is none: a usage object that closed before an abort counts.
func (t *tally) report(pending *part) Report {
	figure, failed := t.figure, t.failed
	if pending != nil {
		figure.absorb(pending, t)
		failed = failed || pending.failed
	}
	r := Report{
		Model:        t.model,
		Failed:       failed,
		Decoded:      true,
		OutputText:   string(wholeRunes(t.sample)),
		OutputBytes:  t.bytes,
		OutputChunks: t.chunks,
		BodyBytes:    t.body,
	}
	r.Verdict, r.Tokens, r.Reason = figure.judge(t.embeddings, t.bytes)
	return r
}

// wholeRunes returns b without a character that is cut at its end.
func wholeRunes(b []byte) []byte {
	for back := 1; back < utf8.UTFMax && back <= len(b); back++ {
		if start := len(b) - back; utf8.RuneStart(b[start]) {
			if !utf8.FullRune(b[start:]) {
				return b[:start]
			}
			break
		}
	}
	return b
}
