package billing

import (
	"math/bits"
	"slices"
	"strings"
	"sync"

	"github.com/tiktoken-go/tokenizer"
)

const (
	countMax  = 4 << 20   // bytes; counting more would take longer than a request may wait
	sampleMax = 256 << 10 // bytes; an estimate needs no more
	// unknownBytesPerToken is the rule of thumb for text nobody has seen.
	unknownBytesPerToken = 4
)

// Each vocabulary is made once, when it is first needed: they are large.
var (
	o200k  = lazyCodec(tokenizer.O200kBase)  //nolint:gochecknoglobals // never assigned again; one copy for the process
	cl100k = lazyCodec(tokenizer.Cl100kBase) //nolint:gochecknoglobals // the same
)

// codecFunc makes a vocabulary, or returns the one it made.
type codecFunc = func() (tokenizer.Codec, error)

func lazyCodec(e tokenizer.Encoding) codecFunc {
	return sync.OnceValues(func() (tokenizer.Codec, error) { return tokenizer.Get(e) })
}

// families are the model names whose vocabulary is public. A name stands for
// itself and for its versions, which follow after a hyphen.
var families = []struct { //nolint:gochecknoglobals // a table that is only read
	name  string
	codec codecFunc
}{
	{"gpt-5", o200k},
	{"gpt-4.1", o200k},
	{"gpt-4o", o200k},
	{"chatgpt-4o", o200k},
	{"o1", o200k},
	{"o3", o200k},
	{"o4", o200k},
	{"gpt-4", cl100k},
	{"gpt-3.5", cl100k},
	{"gpt-35", cl100k},
	{"davinci-002", cl100k},
	{"babbage-002", cl100k},
	{"text-embedding-ada-002", cl100k},
	{"text-embedding-3", cl100k},
}

// codecOf is the vocabulary of a model, nil when it is not known.
func codecOf(model string) codecFunc {
	if tuned, ok := strings.CutPrefix(model, "ft:"); ok {
		model, _, _ = strings.Cut(tuned, ":")
	}
	for _, f := range families {
		if rest, ok := strings.CutPrefix(model, f.name); ok && (rest == "" || rest[0] == '-') {
			return f.codec
		}
	}
	return nil
}

// CountTokens counts texts as the model's tokenizer does, each by itself: no token
// reaches from one into the next. known is false for models whose vocabulary is
// not public and for texts over 4 MiB.
func CountTokens(model string, texts ...string) (n int64, known bool) {
	codec := codecOf(model)
	if codec == nil || lengthOf(texts) > countMax {
		return 0, false
	}
	return count(codec, texts)
}

func count(codec codecFunc, texts []string) (n int64, ok bool) {
	c, err := codec()
	if err != nil {
		return 0, false
	}
	for _, text := range texts {
		tokens, err := c.Count(text)
		if err != nil {
			return 0, false
		}
		n += int64(tokens)
	}
	return n, true
}

func lengthOf(texts []string) (bytes int) {
	for _, text := range texts {
		bytes += len(text)
	}
	return bytes
}

// EstimateTokens is a best guess at the tokens of totalBytes of text, of which
// texts are a sample from the beginning (or all), counted as by [CountTokens].
// Models with an unknown vocabulary are counted with a modern one. It is at
// least 1 for any text.
func EstimateTokens(model string, totalBytes int64, texts ...string) int64 {
	texts = firstOf(texts, sampleMax)
	sampled := int64(lengthOf(texts))
	totalBytes = max(totalBytes, sampled)
	if totalBytes == 0 {
		return 0
	}
	codec := codecOf(model)
	if codec == nil {
		codec = o200k
	}
	n, ok := count(codec, texts)
	if !ok || sampled == 0 {
		return max(1, totalBytes/unknownBytesPerToken)
	}
	return max(1, scale(n, totalBytes, sampled))
}

// firstOf is so many bytes of the texts.
func firstOf(texts []string, bytes int) []string {
	for i, text := range texts {
		if bytes -= len(text); bytes < 0 {
			return append(slices.Clone(texts[:i]), text[:len(text)+bytes])
		}
	}
	return texts
}

// scale is n * total / part, rounded up, for part <= total and n <= part.
//
//nolint:gosec // none is negative, and the result is at most total
func scale(n, total, part int64) int64 {
	hi, lo := bits.Mul64(uint64(n), uint64(total))
	if hi >= uint64(part) {
		return total
	}
	q, rest := bits.Div64(hi, lo, uint64(part))
	if rest > 0 {
		q++
	}
	return int64(min(q, uint64(total)))
}
