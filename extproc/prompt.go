package extproc

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// How many prompt tokens a request can cost at most, and how many it is
// likely to cost.
//
// Every token of a byte-level BPE vocabulary covers at least one byte, so the
// UTF-8 length of a text is an upper bound of its tokens. Chat templates add a
// few tokens of their own around every message and once per request.
const (
	boundPerMessage = 8
	boundPerRequest = 8
	// What OpenAI's own counting recipe adds (cookbook, "How to count tokens
	// with tiktoken"): three tokens a message, one more for each that has a
	// name, and three for the answer's start. Roles and names are counted as text.
	countPerMessage = 3
	countPerName    = 1
	countPerRequest = 3

	// Media have no text to count. Images: the tile formula of the vision
	// models gives at most 1,105 tokens for a large picture (85 + 6 x 170) and
	// 85 at low detail; the patch formula of newer ones stays below 2,500.
	imageTokens    = 2_500
	imageLowTokens = 300
	// Audio: about 10 tokens a second; a second of 16 kHz 16-bit sound is 43 KB
	// in base64. One token per 100 characters leaves room for compressed sound.
	audioCharsPerToken = 100
	// Files are read as text (and pages as pictures) by the upstream.
	fileCharsPerToken = 4
	mediaFloor        = 100

	// sampleBytes is how much prompt text is tokenized for an estimate; longer
	// prompts are scaled up. It bounds the work one request can cause.
	sampleBytes = 64 << 10
)

// promptSize is what the text and media of a request amount to.
type promptSize struct {
	textBytes   int64 // UTF-8 bytes of all text that can reach the model
	messages    int64
	names       int64 // messages that have one
	chat        bool  // a chat template is put around the messages
	mediaTokens int64
	tokens      int64 // token ids given as numbers: exact
}

// bound is a strict upper bound of the prompt's tokens, always positive.
func (p promptSize) bound() int64 {
	return p.textBytes + p.mediaTokens + p.tokens + boundPerMessage*p.messages + boundPerRequest
}

// estimate is a cheap guess, always positive: four bytes a token.
func (p promptSize) estimate() int64 {
	return max(1, p.withText((p.textBytes+3)/4))
}

// withText is the prompt's tokens when its text has the given number. The text of
// completions and embeddings is sent to the model as it is.
func (p promptSize) withText(textTokens int64) int64 {
	n := textTokens + p.mediaTokens + p.tokens
	if p.chat {
		n += countPerMessage*p.messages + countPerName*p.names + countPerRequest
	}
	return n
}

// messageDepth is where the members of a message are: body, array, message.
const messageDepth = 3

// readContent measures messages, prompt or input and returns how many prompts
// were given.
func (r *requestReader) readContent(name string) (int64, *refusal) {
	switch kind := r.dec.PeekKind(); {
	case kind == 'n':
		return 0, r.skip()
	case name == "messages" && kind != '[':
		return 0, badRequest("invalid_type", name, "messages must be an array.")
	case name != "messages" && kind == '"':
		r.out.prompt.messages = 1
		return 1, r.text()
	case name != "messages" && kind != '[':
		return 0, badRequest("invalid_type", name, name+" must be a string or an array.")
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return 0, r.syntax(err)
	}
	r.out.prompt.chat = name == "messages"
	items, numbers := int64(0), false
	for ; r.dec.PeekKind() != ']'; items++ {
		numbers = numbers || r.dec.PeekKind() == '0'
		if bad := r.walk(); bad != nil {
			return 0, bad
		}
	}
	if _, err := r.dec.ReadToken(); err != nil {
		return 0, r.syntax(err)
	}
	if items == 0 {
		return 0, badRequest("invalid_value", name, name+" must not be empty.")
	}
	r.out.prompt.messages = items
	if name == "messages" || numbers {
		r.out.prompt.messages = max(1, items)
		if numbers { // one prompt, given as token ids
			r.out.prompt.messages = 1
		}
		return 1, nil
	}
	return items, nil
}

// walk measures one value of any depth: strings are text, numbers token ids,
// media by the table above.
func (r *requestReader) walk() *refusal {
	depth := r.dec.StackDepth()
	for {
		var bad *refusal
		switch r.dec.PeekKind() {
		case '"':
			bad = r.stringOrName()
		case '0':
			r.out.prompt.tokens++
			bad = r.skip()
		case 't', 'f', 'n':
			bad = r.skip()
		default: // a bracket, or an error that ReadToken reports
			if _, err := r.dec.ReadToken(); err != nil {
				bad = r.syntax(err)
			}
		}
		if bad != nil || r.dec.StackDepth() <= depth {
			return bad
		}
	}
}

// stringOrName takes a string value as text, and looks at a member's name for
// media whose value is not text.
func (r *requestReader) stringOrName() *refusal {
	kind, length := r.dec.StackIndex(r.dec.StackDepth())
	if kind != '{' || length%2 == 1 {
		return r.text()
	}
	name, err := r.dec.ReadToken()
	if err != nil {
		return r.syntax(err)
	}
	var measure func(jsontext.Value) int64
	switch name.String() {
	case "name":
		if r.dec.StackDepth() == messageDepth {
			r.out.prompt.names++
		}
		return nil
	case "image_url":
		measure = imageCost
	case "input_audio":
		measure = func(v jsontext.Value) int64 { return mediaFloor + int64(len(v))/audioCharsPerToken }
	case "file":
		measure = func(v jsontext.Value) int64 { return mediaFloor + int64(len(v))/fileCharsPerToken }
	default:
		return nil
	}
	value, err := r.dec.ReadValue()
	if err != nil {
		return r.syntax(err)
	}
	r.out.prompt.mediaTokens += measure(value)
	return nil
}

func imageCost(v jsontext.Value) int64 {
	if bytes.Contains(v, []byte(`"low"`)) {
		return imageLowTokens
	}
	return imageTokens
}

// text counts a string's UTF-8 bytes after unescaping.
func (r *requestReader) text() *refusal {
	value, err := r.dec.ReadValue()
	if err != nil {
		return r.syntax(err)
	}
	r.out.prompt.textBytes += decodedLength(value)
	return nil
}

func (r *requestReader) skip() *refusal {
	if err := r.dec.SkipValue(); err != nil {
		return r.syntax(err)
	}
	return nil
}

// decodedLength is the UTF-8 length of a valid JSON string without decoding
// it: an escape stands for one byte, \u for the bytes of its code point.
func decodedLength(value jsontext.Value) int64 {
	n := len(value) - 2
	if bytes.IndexByte(value, '\\') < 0 {
		return int64(n)
	}
	for i := 1; i < len(value)-1; i++ {
		if value[i] != '\\' {
			continue
		}
		i++
		if value[i] != 'u' {
			n-- // \n and the like
			continue
		}
		// \uXXXX is six bytes for at most three; a surrogate pair is twelve
		// for four, so counting two bytes for each half is exact.
		switch high := strings.ToLower(string(value[i+1 : i+5])); {
		case high < "0080":
			n -= 5
		case high < "0800", high >= "d800" && high < "e000":
			n -= 4
		default:
			n -= 3
		}
		i += 4
	}
	return int64(n)
}

// promptTexts collects the texts of a request again, for a tokenizer: at most
// sampleBytes of them. They are counted each by itself, as the recipe has it. It is
// only asked when a count is needed, so that the usual request pays nothing for it.
func promptTexts(shape Shape, body []byte) []string {
	member := shape.content()
	if shape == ShapeCompletion {
		member = "prompt"
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	texts := textSample{room: sampleBytes}
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			break
		}
		switch name.String() {
		case member:
			collect(dec, &texts)
		case "tools", "functions", "response_format", "suffix":
			if value, err := dec.ReadValue(); err == nil {
				texts.add(string(value))
			}
		default:
			if dec.SkipValue() != nil {
				return texts.list
			}
		}
	}
	return texts.list
}

// textSample takes texts until it has no more room.
type textSample struct {
	list []string
	room int // bytes
}

func (s *textSample) add(text string) {
	text = text[:min(len(text), s.room)]
	if text != "" {
		s.list, s.room = append(s.list, text), s.room-len(text)
	}
}

// collect adds every string value below the next value, media left out.
func collect(dec *jsontext.Decoder, texts *textSample) {
	depth := dec.StackDepth()
	for {
		if dec.PeekKind() == '"' {
			kind, length := dec.StackIndex(dec.StackDepth())
			name := kind == '{' && length%2 == 0
			value, err := dec.ReadValue()
			if err != nil {
				return
			}
			switch {
			case !name:
				if texts.room > 0 {
					s, _ := unquote(value)
					texts.add(s)
				}
			case string(value) == `"image_url"`, string(value) == `"input_audio"`, string(value) == `"file"`:
				if dec.SkipValue() != nil {
					return
				}
			}
		} else if _, err := dec.ReadToken(); err != nil {
			return
		}
		if dec.StackDepth() <= depth {
			return
		}
	}
}
