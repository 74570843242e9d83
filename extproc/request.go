package extproc

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxModelBytes bounds what is kept on charges and in logs.
	maxModelBytes = 256
	// maxCeiling is the largest output ceiling per choice, in tokens. No model
	// comes near it; beyond it sums could lose their meaning.
	maxCeiling = 10_000_000
	// maxChoices is OpenAI's own bound of n.
	maxChoices = 128
)

// request is what the gateway reads of a request body. Nothing else in the
// body matters to it, and nothing else is changed.
type request struct {
	model   string
	stream  bool
	ceiling int64 // output tokens per choice; 0 = the client named none
	choices int64 // answers asked for in all: n (or best_of) x prompts
	prompt  promptSize

	usageAsked bool  // the client itself asked for usage in the stream
	usageEdit  *edit // how to ask for it otherwise
	end        int   // offset of the closing brace
	ceilingAt  *edit // a member that says null and may be given a ceiling
}

// edit replaces body[from:to] by text. An insertion has from == to.
type edit struct {
	from, to int
	text     string
}

// readRequest reads a body strictly: one JSON object, no duplicate members at
// any depth, valid UTF-8, nothing behind it. Members that the gateway uses may
// not come in another case either: encoding/json and others match names
// without case, so that gateway and upstream would read two different
// requests.
func readRequest(shape Shape, body []byte) (request, *refusal) {
	r := requestReader{shape: shape, body: body, dec: jsontext.NewDecoder(bytes.NewBuffer(body)), n: 1, bestOf: 1, prompts: 1}
	if bad := r.object(); bad != nil {
		return request{}, bad
	}
	return r.finish()
}

type requestReader struct {
	shape Shape
	body  []byte
	dec   *jsontext.Decoder

	out                request
	n, bestOf, prompts int64
	content            bool // messages, prompt or input was there
	modelSeen          bool
}

// names are the members the gateway reads, per shape. Others pass unread.
func (r *requestReader) reads(name string) bool {
	switch name {
	case "model":
		return true
	case "stream", "stream_options", "max_tokens", "max_completion_tokens", "n":
		return r.shape != ShapeEmbedding
	case "messages", "tools", "functions", "response_format":
		return r.shape == ShapeChat
	case "prompt", "suffix", "best_of":
		return r.shape == ShapeCompletion
	case "input":
		return r.shape == ShapeEmbedding
	}
	return false
}

// folded finds the member that a case-blind reader would take name for.
func (r *requestReader) folded(name string) string {
	for _, own := range [...]string{
		"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "best_of",
		"messages", "prompt", "input", "tools", "functions", "response_format", "suffix",
	} {
		if len(name) >= len(own) && name != own && strings.EqualFold(name, own) {
			return own
		}
	}
	return ""
}

func (r *requestReader) object() *refusal {
	if r.dec.PeekKind() != '{' {
		if _, err := r.dec.ReadValue(); err != nil {
			return r.syntax(err)
		}
		return badRequest("invalid_json", "", "The request body must be a JSON object.")
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.syntax(err)
	}
	for r.dec.PeekKind() != '}' {
		token, err := r.dec.ReadToken()
		if err != nil {
			return r.syntax(err)
		}
		if token.Kind() != '"' {
			return badRequest("invalid_json", "", "The request body is not valid JSON.")
		}
		name := token.String()
		if own := r.folded(name); own != "" {
			return badRequest("invalid_json", own, "The member "+strconv.Quote(clip(name))+" differs from "+strconv.Quote(own)+" only in its case. Write "+strconv.Quote(own)+".")
		}
		if bad := r.member(name); bad != nil {
			return bad
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return r.syntax(err)
	}
	r.out.end = int(r.dec.InputOffset()) - 1
	if _, err := r.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return badRequest("invalid_json", "", "The request body has data after its JSON object.")
	}
	return nil
}

func (r *requestReader) member(name string) *refusal {
	if !r.reads(name) {
		if err := r.dec.SkipValue(); err != nil {
			return r.syntax(err)
		}
		return nil
	}
	switch name {
	case "messages", "prompt", "input":
		r.content = r.dec.PeekKind() != 'n'
		prompts, bad := r.readContent(name)
		r.prompts = max(prompts, 1)
		return bad
	}
	value, err := r.dec.ReadValue()
	if err != nil {
		return r.syntax(err)
	}
	at := edit{from: int(r.dec.InputOffset()) - len(value), to: int(r.dec.InputOffset())}
	switch name {
	case "model":
		return r.readModel(value)
	case "stream":
		return r.readStream(value)
	case "stream_options":
		return r.readStreamOptions(value, at)
	case "max_tokens", "max_completion_tokens":
		n, bad := positive(name, value, maxCeiling)
		// Where both are given the upstream decides which one rules, so the
		// larger one is what it might produce.
		r.out.ceiling = max(r.out.ceiling, n)
		if bad == nil && n == 0 && r.out.ceilingAt == nil {
			r.out.ceilingAt = &at
		}
		return bad
	case "n":
		return r.count(name, value, &r.n)
	case "best_of":
		return r.count(name, value, &r.bestOf)
	case "tools", "functions", "response_format", "suffix":
		// These reach the model as text in a form the upstream chooses; their
		// JSON is the longest form in use.
		r.out.prompt.textBytes += int64(len(value))
	}
	return nil
}

func (r *requestReader) count(name string, value jsontext.Value, into *int64) *refusal {
	n, bad := positive(name, value, maxChoices)
	if n > 0 {
		*into = n
	}
	return bad
}

func (r *requestReader) readModel(value jsontext.Value) *refusal {
	if value.Kind() == 'n' {
		return nil
	}
	text, ok := unquote(value)
	if !ok || text == "" {
		return badRequest("invalid_value", "model", "The model must be a non-empty string.")
	}
	if len(text) > maxModelBytes {
		return badRequest("invalid_value", "model", "The model's name may have at most "+strconv.Itoa(maxModelBytes)+" bytes.")
	}
	if strings.ContainsFunc(text, func(c rune) bool { return c < 0x20 || c == 0x7f || c == utf8.RuneError }) {
		return badRequest("invalid_value", "model", "The model's name may not contain control characters.")
	}
	r.out.model, r.modelSeen = text, true
	return nil
}

func (r *requestReader) readStream(value jsontext.Value) *refusal {
	switch value.Kind() {
	case 't':
		r.out.stream = true
	case 'f', 'n':
	default:
		return badRequest("invalid_type", "stream", "stream must be true or false.")
	}
	return nil
}

// readStreamOptions finds out whether the client asked for usage in the
// stream, and where to ask for it when it did not.
func (r *requestReader) readStreamOptions(value jsontext.Value, at edit) *refusal {
	switch value.Kind() {
	case 'n':
		at.text = `{"include_usage":true}`
		r.out.usageEdit = &at
		return nil
	case '{':
	default:
		return badRequest("invalid_type", "stream_options", "stream_options must be an object.")
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(value))
	if _, err := dec.ReadToken(); err != nil {
		return r.syntax(err)
	}
	members := 0
	for ; dec.PeekKind() != '}'; members++ {
		token, err := dec.ReadToken()
		if err != nil {
			return r.syntax(err)
		}
		name := token.String()
		if name != "include_usage" {
			if strings.EqualFold(name, "include_usage") {
				return badRequest("invalid_json", "stream_options", `A member of stream_options differs from "include_usage" only in its case.`)
			}
			if err := dec.SkipValue(); err != nil {
				return r.syntax(err)
			}
			continue
		}
		asked, err := dec.ReadValue()
		if err != nil {
			return r.syntax(err)
		}
		switch asked.Kind() {
		case 't':
			r.out.usageAsked = true
		case 'f', 'n':
			to := at.from + int(dec.InputOffset())
			r.out.usageEdit = &edit{from: to - len(asked), to: to, text: "true"}
		default:
			return badRequest("invalid_type", "stream_options", "stream_options.include_usage must be true or false.")
		}
	}
	if !r.out.usageAsked && r.out.usageEdit == nil {
		text := `"include_usage":true`
		if members > 0 {
			text = "," + text
		}
		r.out.usageEdit = &edit{from: at.to - 1, to: at.to - 1, text: text}
	}
	return nil
}

func (r *requestReader) finish() (request, *refusal) {
	if !r.modelSeen && r.shape != ShapeCompletion {
		// Single-model servers need no model on the legacy endpoint, and its
		// clients often send none.
		return request{}, badRequest("missing_required_parameter", "model", "You must provide a model parameter.")
	}
	if !r.content {
		if name := r.shape.content(); name != "" {
			return request{}, badRequest("missing_required_parameter", name, "Missing required parameter: '"+name+"'.")
		}
	}
	out := r.out
	out.choices = max(r.n, r.bestOf) * r.prompts
	if out.stream && !out.usageAsked && out.usageEdit == nil {
		out.usageEdit = &edit{from: out.end, to: out.end, text: `,"stream_options":{"include_usage":true}`}
	}
	if !out.stream {
		out.usageEdit = nil
	}
	return out, nil
}

// content is the member an endpoint cannot do without; "" = it can.
func (s Shape) content() string {
	switch s {
	case ShapeChat:
		return "messages"
	case ShapeEmbedding:
		return "input"
	case ShapeCompletion, ShapeNone:
	}
	return ""
}

// positive reads a whole number from 1 to limit; null is 0, "absent".
func positive(name string, value jsontext.Value, limit int64) (int64, *refusal) {
	if value.Kind() == 'n' {
		return 0, nil
	}
	if value.Kind() == '0' {
		// Only plain digits: 1e3 and 5.0 are whole numbers to some readers
		// and errors to others.
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil && n >= 1 && n <= limit {
			return n, nil
		}
	}
	return 0, badRequest("invalid_value", name, name+" must be a whole number from 1 to "+strconv.FormatInt(limit, 10)+".")
}

// syntax turns a reader's error into an answer that says where, without
// repeating what the client sent.
func (r *requestReader) syntax(err error) *refusal {
	var at *jsontext.SyntacticError
	if !errors.As(err, &at) {
		return badRequest("invalid_json", "", "The request body is not complete JSON.")
	}
	param := ""
	if path := string(at.JSONPointer); path != "" {
		param, _, _ = strings.Cut(path[1:], "/")
		if !r.reads(param) {
			param = ""
		}
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return badRequest("invalid_json", param, "The request body has a member twice; which one counts would be a guess.")
	}
	return badRequest("invalid_json", param, "The request body is not valid JSON (near byte "+strconv.FormatInt(at.ByteOffset, 10)+").")
}

// apply writes the edits into a copy of body; edits may not overlap.
func apply(body []byte, edits ...*edit) []byte {
	sorted := make([]*edit, 0, len(edits))
	size := len(body)
	for _, e := range edits {
		if e == nil {
			continue
		}
		size += len(e.text)
		i := len(sorted)
		for i > 0 && sorted[i-1].from > e.from {
			i--
		}
		sorted = append(sorted[:i], append([]*edit{e}, sorted[i:]...)...)
	}
	out := make([]byte, 0, size)
	done := 0
	for _, e := range sorted {
		out = append(append(out, body[done:e.from]...), e.text...)
		done = e.to
	}
	return append(out, body[done:]...)
}

// unquote decodes a JSON string.
func unquote(value jsontext.Value) (string, bool) {
	if value.Kind() != '"' {
		return "", false
	}
	text, err := jsontext.AppendUnquote(nil, value)
	return string(text), err == nil
}

// clip shortens a client's text for a message.
func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "..."
	}
	return s
}
