package rig

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// UsageKind says what the mock upstream claims about the tokens used.
type UsageKind string

// The kinds of usage an upstream may report. All but UsageTrue are what broken
// or lying providers were seen to send.
const (
	UsageTrue     UsageKind = ""         // the script's figures
	UsageNone     UsageKind = "none"     // no usage member, no usage chunk
	UsageNull     UsageKind = "null"     // "usage":null
	UsageNegative UsageKind = "negative" // a negative completion count
	UsageString   UsageKind = "string"   // a string where a number belongs
	UsageFloat    UsageKind = "float"    // a fraction of a token
	UsageHuge     UsageKind = "huge"     // more than any model can produce
	UsageZero     UsageKind = "zero"     // zero completion tokens for delivered output
)

// EndKind says how the mock upstream ends its answer.
type EndKind string

// The ways an answer may end.
const (
	EndNormal EndKind = ""        // complete, as the protocol wants it
	EndNoDone EndKind = "no_done" // SSE that ends cleanly without [DONE]
	EndReset  EndKind = "reset"   // TCP RST (HTTP/2: RST_STREAM) after EndAfter pieces
	EndClose  EndKind = "close"   // connection closed without the answer's end, after EndAfter pieces
)

// Script tells the mock upstream what to answer. It travels inside the request
// (member "rig" of the request's "metadata", or the header X-Rig for requests
// without a body), so that parallel tests steer their own answers.
type Script struct {
	ID           string            `json:"id,omitempty"`         // copied to the record
	Status       int               `json:"status,omitempty"`     // HTTP status, 0 = 200
	Prompt       int64             `json:"prompt,omitempty"`     // prompt tokens to report
	Completion   int64             `json:"completion,omitempty"` // completion tokens to report
	Parts        Parts             `json:"parts,omitzero"`       // of them, as OpenAI details them
	Chunks       int               `json:"chunks,omitempty"`     // content chunks of a stream, 0 = 3
	ChunkBytes   int               `json:"chunk_bytes,omitempty"`
	Text         string            `json:"text,omitempty"`           // content of every chunk, "" = numbered
	FirstDelayMS int               `json:"first_delay_ms,omitempty"` // before the headers
	ChunkDelayMS int               `json:"chunk_delay_ms,omitempty"` // before every piece but the first
	Usage        UsageKind         `json:"usage,omitempty"`
	End          EndKind           `json:"end,omitempty"`
	EndAfter     int               `json:"end_after,omitempty"`  // pieces sent before EndReset or EndClose
	Held         bool              `json:"held,omitempty"`       // waits for Upstream.Release(ID)
	HeldAfter    int               `json:"held_after,omitempty"` // pieces sent before that, 0 = it waits before the headers
	Split        int               `json:"split,omitempty"`      // bytes a write, 0 = one piece a write
	CRLF         bool              `json:"crlf,omitempty"`       // CR LF line ends in SSE
	Gzip         bool              `json:"gzip,omitempty"`       // compressed though nobody accepts it
	Header       map[string]string `json:"header,omitempty"`     // more answer headers
}

// Parts are the tokens that a usage object tells apart.
type Parts struct {
	Cached          int64 `json:"cached,omitempty"`
	CacheWrite      int64 `json:"cache_write,omitempty"`
	AudioPrompt     int64 `json:"audio_prompt,omitempty"`
	Reasoning       int64 `json:"reasoning,omitempty"`
	AudioCompletion int64 `json:"audio_completion,omitempty"`
}

// Ask is the part of a request that an answer depends on.
type Ask struct {
	Path         string
	Model        string
	Stream       bool
	IncludeUsage bool // stream_options.include_usage as the upstream saw it
}

// Piece is a part of an answer that is written at once: a whole JSON document
// or one SSE event.
type Piece struct {
	Bytes []byte
	Usage bool // the chunk that carries nothing but usage
}

// Answer is a rendered answer. The same script and ask always give the same
// bytes.
type Answer struct {
	Status      int
	ContentType string
	Pieces      []Piece
}

// Body is everything the upstream sends when nothing cuts it.
func (a Answer) Body() []byte { return a.join(true) }

// BodyWithoutUsage is Body minus the chunk that carries nothing but usage.
func (a Answer) BodyWithoutUsage() []byte { return a.join(false) }

func (a Answer) join(usage bool) []byte {
	var b bytes.Buffer
	for _, p := range a.Pieces {
		if usage || !p.Usage {
			b.Write(p.Bytes)
		}
	}
	return b.Bytes()
}

// Reported tells whether the answer carries the script's true figures all the
// way to its end, so that they are what the books must show.
func (s Script) Reported(a Ask) bool {
	ok := s.Status == 0 || s.Status/100 == 2
	return ok && s.Usage == UsageTrue && s.End == EndNormal && (!a.Stream || a.IncludeUsage)
}

// FirstDelay is the silence before the answer's headers.
func (s Script) FirstDelay() time.Duration { return time.Duration(s.FirstDelayMS) * time.Millisecond }

// ChunkDelay is the silence between two pieces.
func (s Script) ChunkDelay() time.Duration { return time.Duration(s.ChunkDelayMS) * time.Millisecond }

// Answer renders what the upstream sends for an ask.
func (s Script) Answer(a Ask) Answer {
	var out Answer
	switch {
	case s.Status >= 300:
		out = Answer{Status: s.Status, ContentType: "application/json", Pieces: []Piece{{Bytes: fmt.Appendf(nil,
			`{"error":{"message":"scripted error","type":"rig","param":null,"code":"rig_%d"}}`, s.Status)}}}
	case strings.HasSuffix(a.Path, "/models"):
		out = document(`{"object":"list","data":[{"id":"rig-model","object":"model","created":1700000000,"owned_by":"rig"}]}`)
	case strings.HasSuffix(a.Path, "/embeddings"):
		out = document(`{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-0.25,0.125]}],"model":` +
			quote(a.Model) + s.usageMember() + `}`)
	case a.Stream:
		out = s.stream(a)
	default:
		out = s.document(a)
	}
	if s.Gzip {
		out.Pieces = compress(out.Pieces)
	}
	return out
}

func document(body string) Answer {
	return Answer{Status: 200, ContentType: "application/json", Pieces: []Piece{{Bytes: []byte(body)}}}
}

func (s Script) document(a Ask) Answer {
	var text strings.Builder
	for i := range s.chunks() {
		text.WriteString(s.text(i))
	}
	object, choice := "chat.completion", `{"index":0,"message":{"role":"assistant","content":`+quote(text.String())+`},"finish_reason":"stop"}`
	if !isChat(a.Path) {
		object, choice = "text_completion", `{"index":0,"text":`+quote(text.String())+`,"logprobs":null,"finish_reason":"stop"}`
	}
	return document(`{"id":"rig-1","object":"` + object + `","created":1700000000,"model":` + quote(a.Model) +
		`,"choices":[` + choice + `]` + s.usageMember() + `}`)
}

func (s Script) stream(a Ask) Answer {
	out := Answer{Status: 200, ContentType: "text/event-stream"}
	event := func(data string, usage bool) {
		end := "\n\n"
		if s.CRLF {
			end = "\r\n\r\n"
		}
		out.Pieces = append(out.Pieces, Piece{Bytes: []byte("data: " + data + end), Usage: usage})
	}
	object := "chat.completion.chunk"
	if !isChat(a.Path) {
		object = "text_completion"
	}
	head := `{"id":"rig-1","object":"` + object + `","created":1700000000,"model":` + quote(a.Model) + `,"choices":[`
	tail := `]}`
	if a.IncludeUsage {
		tail = `],"usage":null}` // as OpenAI sends it
	}
	for i := range s.chunks() {
		event(head+s.choice(a, s.text(i), "null")+tail, false)
	}
	event(head+s.choice(a, "", `"stop"`)+tail, false)
	if a.IncludeUsage && s.Usage != UsageNone && s.Usage != UsageNull {
		event(head+`]`+s.usageMember()+`}`, true)
	}
	if s.End != EndNoDone {
		event("[DONE]", false)
	}
	return out
}

func (s Script) choice(a Ask, text, finish string) string {
	if isChat(a.Path) {
		return `{"index":0,"delta":{"content":` + quote(text) + `},"finish_reason":` + finish + `}`
	}
	return `{"index":0,"text":` + quote(text) + `,"logprobs":null,"finish_reason":` + finish + `}`
}

func (s Script) usageMember() string {
	completion, total := strconv.FormatInt(s.Completion, 10), s.Prompt+s.Completion
	switch s.Usage {
	case UsageTrue:
	case UsageNone:
		return ""
	case UsageNull:
		return `,"usage":null`
	case UsageNegative:
		completion = "-5"
	case UsageString:
		completion = `"` + completion + `"`
	case UsageFloat:
		completion += ".5"
	case UsageHuge:
		completion = "99999999999999"
	case UsageZero:
		completion, total = "0", s.Prompt // a total that says more would tell the truth
	}
	return fmt.Sprintf(`,"usage":{"prompt_tokens":%d,"completion_tokens":%s,"total_tokens":%d%s}`,
		s.Prompt, completion, total, s.Parts.members())
}

func (p Parts) members() string {
	if p == (Parts{}) {
		return ""
	}
	return fmt.Sprintf(`,"prompt_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d,"audio_tokens":%d}`+
		`,"completion_tokens_details":{"reasoning_tokens":%d,"audio_tokens":%d}`,
		p.Cached, p.CacheWrite, p.AudioPrompt, p.Reasoning, p.AudioCompletion)
}

func (s Script) chunks() int {
	if s.Chunks == 0 {
		return 3
	}
	return s.Chunks
}

// text is the content of chunk i. The multi-byte letters are there to be cut
// in two by odd splits.
func (s Script) text(i int) string {
	if s.Text != "" {
		return s.Text
	}
	t := "tok" + strconv.Itoa(i) + " é☃ "
	if n := s.ChunkBytes - len(t); n > 0 {
		t += strings.Repeat("x", n)
	}
	return t
}

func isChat(path string) bool { return strings.HasSuffix(path, "/chat/completions") }

func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// compress makes one gzip stream of all pieces, flushed after each so that a
// stream stays a stream.
func compress(pieces []Piece) []Piece {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	out := make([]Piece, 0, len(pieces)+1)
	take := func(usage bool) {
		out = append(out, Piece{Bytes: bytes.Clone(buf.Bytes()), Usage: usage})
		buf.Reset()
	}
	for _, p := range pieces {
		_, _ = z.Write(p.Bytes) // a bytes.Buffer takes everything
		_ = z.Flush()
		take(p.Usage)
	}
	_ = z.Close()
	take(false)
	return out
}
