package usage

import (
	"mime"
	"strings"
)

// MaxOutputSample is the most output text, in bytes, that a Report carries.
const MaxOutputSample = 64 << 10

// Tokens is a usage figure in one normal form: Total == Prompt + Completion always.
type Tokens struct {
	Prompt     int64 // tokens read by the model, cached ones included
	Completion int64 // tokens produced by the model, reasoning included
	Total      int64 // Prompt + Completion

	// Parts, 0 when not stated. They may overlap; each is at most its whole.
	CachedPrompt    int64 // part of Prompt that came from a cache
	CacheWrite      int64 // part of Prompt that was written to a cache
	AudioPrompt     int64 // part of Prompt that was audio
	Reasoning       int64 // part of Completion that was reasoning
	AudioCompletion int64 // part of Completion that was audio
}

// Verdict says how far the upstream's figure can be believed.
type Verdict uint8

const (
	// Absent means that no usage object was seen, or only null, or one that states no token count at all.
	Absent Verdict = iota
	// Reported means that the last figure is plausible.
	Reported
	// Implausible means that a figure was seen and is not believed; Report.Reason says why.
	Implausible
)

// String returns the verdict's name in lower case.
func (v Verdict) String() string {
	switch v {
	case Absent:
		return "absent"
	case Reported:
		return "reported"
	case Implausible:
		return "implausible"
	}
	return "unknown"
}

// The closed vocabulary of Report.Reason.
const (
	ReasonNegative      = "negative"        // a count below zero
	ReasonNotAnInteger  = "not_an_integer"  // a count with a fraction
	ReasonNotANumber    = "not_a_number"    // a count that is a string, a bool, an array or an object
	ReasonTooLarge      = "too_large"       // a count above 10,000,000
	ReasonZeroForOutput = "zero_for_output" // no output tokens although output was delivered (for embeddings: no prompt tokens)
	ReasonFalling       = "falling"         // a cumulative figure below an earlier one
	ReasonMalformed     = "malformed"       // usage that is neither an object nor null
)

// Report is everything an answer has told so far.
type Report struct {
	Verdict Verdict
	Tokens  Tokens // meaningful when Verdict == Reported: the last cumulative figure
	Reason  string // one of the Reason constants when Verdict == Implausible, else ""
	Model   string // the answer's own model, "" when not seen, at most 256 bytes

	// Complete: the answer reached its proper end. For JSON the value closed; for an event stream [DONE] or the final usage came, or the stream ended after every choice had its finish_reason; for anything else the stream ended.
	Complete bool
	Failed   bool // an error object was seen inside the answer
	Decoded  bool // false: broken, unknown or bomb-like compression; only BodyBytes and Complete are known

	OutputText   string // sample of delivered output text of all choices in order, at most MaxOutputSample bytes
	OutputBytes  int64  // all bytes of such text, beyond the sample too; bytes that cannot be read as JSON count as text
	OutputChunks int64  // events that carried output text; at most 1 for JSON
	BodyBytes    int64  // bytes written to the meter, as received
}

// Options says what is known of an answer before its first body byte.
type Options struct {
	ContentType     string // the answer's content-type header, as received
	ContentEncoding string // the answer's content-encoding header: "" or identity, gzip, x-gzip, deflate (zlib or raw), br, zstd, or a comma list of at most two
	Embeddings      bool   // no output is expected, only prompt tokens; total_tokens alone means prompt
	Choices         int64  // choices the request asked for in all (n, best_of or prompts); below 1 counts as 1
	DropUsageChunk  bool   // usage in the stream was asked for by us and not by the client: the usage-only chunk is taken out; without effect on compressed answers
}

// Step is what one piece of the answer means for the exchange.
type Step struct {
	Changed bool   // the client must receive Body instead of the piece
	Body    []byte // valid when Changed, until the next Write; may be empty
	Ending  bool   // with this piece the client can see the end of the answer, or the final usage: the charge must be committed before the piece is released
}

// Meter reads one answer. Its methods must not be called concurrently.
type Meter interface {
	// Write reads the next piece and keeps no reference to it. last says that the upstream's end of stream came with it; the piece may be empty.
	Write(piece []byte, last bool) Step
	// Report says what is known so far. It never blocks and may be asked at any time, also after an abort or Close.
	Report() Report
	// Close frees what a decoder holds. It must be called, and may be called again.
	Close()
}

// NewMeter returns the meter for one answer.
// The media type text/event-stream is read as an event stream; everything else as JSON, because JSON also comes as application/octet-stream or without a type.
func NewMeter(o Options) Meter {
	o.Choices = max(o.Choices, 1)
	codings, known := parseCodings(o.ContentEncoding)
	if !known {
		return newOpaque()
	}
	if len(codings) == 0 {
		return newPlain(o)
	}
	o.DropUsageChunk = false
	return newDecoding(newPlain(o), codings)
}

// newPlain returns the meter for an answer that is not compressed.
func newPlain(o Options) Meter {
	if isEventStream(o.ContentType) {
		return newStream(o)
	}
	return newJSONMeter(o)
}

func isEventStream(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil { // broken parameters do not make it another type
		media, _, _ = strings.Cut(contentType, ";")
		media = strings.TrimSpace(media)
	}
	return strings.EqualFold(media, "text/event-stream")
}
