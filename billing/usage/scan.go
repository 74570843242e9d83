package usage

import "strconv"

const (
	maxDepth   = 256      // levels of nesting; deeper is not an answer
	maxCapture = 64 << 10 // bytes of a usage object that are kept; a longer one is cut and so malformed
)

// outcome is what became of a JSON value after a feed.
type outcome uint8

const (
	more   outcome = iota // it goes on
	closed                // its last byte was read
	broken                // it is not JSON
)

type scanState uint8

const (
	wantValue scanState = iota
	wantValueOrEnd
	wantKey
	wantKeyOrEnd
	wantColon
	wantCommaOrEnd
	inString
	inEscape
	inHex
	inNumber
	inLiteral
)

type frame struct {
	node   node
	object bool
}

// scanner reads one JSON object or array that is pushed in pieces, and keeps nothing but the members fields.go names.
// Numbers are not checked to the last digit; whatever is believed of a number is read again by readUsage.
type scanner struct {
	to   *tally // hears of text, model and finished choices while they are read
	part part   // what the value says, whole once the outcome is closed

	state  scanState
	frames [maxDepth]frame
	depth  int
	value  node // what the current or next value is

	isKey   bool
	word    [maxModel]byte // the key, short string or number that is being read
	wordLen int
	wordCut bool

	hex     rune
	hexLen  int
	high    rune // first half of a surrogate pair, 0 when none waits
	literal string

	capture      *[]byte // where the raw bytes of the current value go
	captureDepth int
	captureFrom  int // where they begin in the data being fed

	choice struct {
		index    int64
		finished bool
	}
}

// start prepares for a new value, whose first byte must be { or [.
func (s *scanner) start() {
	s.part.reset()
	s.state, s.depth, s.value = wantValue, 0, nodeRoot
	s.isKey, s.high, s.capture = false, 0, nil
}

// feed reads on and returns how many bytes belong to the value.
func (s *scanner) feed(data []byte) (n int, o outcome) {
	s.captureFrom = 0
	i, ok := 0, true
	for ok && i < len(data) {
		c := data[i]
		switch s.state {
		case inString:
			end := i
			for end < len(data) && !endsText[data[end]] {
				end++
			}
			s.text(data[i:end])
			if i = end; i == len(data) {
				continue
			}
			ok = s.quoteOrEscape(data, i)
			i++
		case inEscape:
			ok = s.escape(c)
			i++
		case inHex:
			ok = s.hexDigit(c)
			i++
		case inNumber:
			end := i
			for end < len(data) && isNumberByte(data[end]) {
				end++
			}
			s.gather(data[i:end])
			if i = end; i < len(data) {
				s.endNumber(data, i)
			}
		case inLiteral:
			if ok = c == s.literal[0]; ok {
				i++
				if s.literal = s.literal[1:]; s.literal == "" {
					s.endValue(data, i)
				}
			}
		default:
			if !isSpace(c) {
				ok = s.token(data, i)
			}
			i++
		}
		if ok && s.depth == 0 && s.state == wantCommaOrEnd {
			return i, closed
		}
	}
	if !ok {
		s.capture = nil
		return i, broken
	}
	if s.capture != nil {
		s.keep(data[s.captureFrom:])
	}
	return i, more
}

// token reads a byte between values.
func (s *scanner) token(data []byte, i int) bool {
	c := data[i]
	switch s.state {
	case wantValueOrEnd:
		if c == ']' {
			return s.pop(data, i)
		}
		return s.beginValue(data, i)
	case wantValue:
		return s.beginValue(data, i)
	case wantKeyOrEnd, wantKey:
		if c == '}' && s.state == wantKeyOrEnd {
			return s.pop(data, i)
		}
		s.isKey, s.wordLen, s.wordCut, s.state = true, 0, false, inString
		return c == '"'
	case wantColon:
		s.state = wantValue
		return c == ':'
	default: // wantCommaOrEnd: feed keeps the states within a value to itself
	}
	top := s.frames[s.depth-1]
	switch {
	case c == ',' && top.object:
		s.state = wantKey
	case c == ',':
		s.value, s.state = top.node.element(), wantValue
	case c == '}' && top.object, c == ']' && !top.object:
		return s.pop(data, i)
	default:
		return false
	}
	return true
}

func (s *scanner) beginValue(data []byte, i int) bool {
	c := data[i]
	s.note(c)
	if c != 'n' { // a null later on takes no figure back
		s.beginCapture(i, c == '{')
	}
	s.wordLen, s.wordCut = 0, false
	switch {
	case c == '{':
		return s.push(true)
	case c == '[':
		return s.push(false)
	case c == '"':
		s.isKey, s.state = false, inString
	case c == 't':
		s.literal, s.state = "rue", inLiteral
	case c == 'f':
		s.literal, s.state = "alse", inLiteral //nolint:misspell // false without its first letter
	case c == 'n':
		s.literal, s.state = "ull", inLiteral
	case c == '-' || c >= '0' && c <= '9':
		s.state = inNumber
		s.gather(data[i : i+1])
	default:
		return false
	}
	return true
}

// note takes from a value's first byte what can be known from it.
func (s *scanner) note(c byte) {
	switch s.value {
	case nodeChoice:
		s.part.choices++
	case nodeChoices:
		if c != '[' && c != 'n' { // no server's choices: surely not a usage chunk
			s.part.extra = true
		}
	case nodeError:
		s.part.failed = s.part.failed || c != 'n'
	case nodePayload:
		s.part.extra = s.part.extra || c != 'n'
	default: // the first byte says nothing
	}
}

func (s *scanner) push(object bool) bool {
	if s.depth == maxDepth {
		return false
	}
	s.frames[s.depth] = frame{s.value, object}
	s.depth++
	if object {
		if s.value == nodeChoice {
			s.choice.index, s.choice.finished = 0, false
		}
		s.state = wantKeyOrEnd
		return true
	}
	s.value, s.state = s.value.element(), wantValueOrEnd
	return true
}

func (s *scanner) pop(data []byte, i int) bool {
	s.depth--
	if s.frames[s.depth] == (frame{nodeChoice, true}) && s.choice.finished {
		s.to.finish(s.choice.index)
	}
	s.endValue(data, i+1)
	return true
}

// endValue is called when a value's last byte stands before end.
func (s *scanner) endValue(data []byte, end int) {
	s.state = wantCommaOrEnd
	if s.capture == nil || s.depth != s.captureDepth {
		return
	}
	s.keep(data[s.captureFrom:end])
	if s.capture == &s.part.usage {
		s.part.hasUsage = true
	} else {
		s.part.hasGroq = true
	}
	s.capture = nil
}

func (s *scanner) beginCapture(i int, object bool) {
	switch s.value {
	case nodeUsage:
		s.capture, s.part.hasUsage, s.part.usageOpen = &s.part.usage, false, object
	case nodeGroqUsage:
		s.capture, s.part.hasGroq = &s.part.groq, false
	default:
		return
	}
	*s.capture = (*s.capture)[:0]
	s.captureDepth, s.captureFrom = s.depth, i
}

func (s *scanner) keep(raw []byte) {
	room := maxCapture - len(*s.capture)
	*s.capture = append(*s.capture, raw[:min(room, len(raw))]...)
}

// endsText holds the bytes that interrupt the plain text of a string: its quote, the backslash, and the control characters that must not stand in it.
var endsText = func() (t [256]bool) { //nolint:gochecknoglobals // a table that is only read, for every byte of an answer
	for c := range ' ' {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// isSpace says whether c is white space in JSON.
func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

func isNumberByte(c byte) bool {
	return c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-'
}

func (s *scanner) endNumber(data []byte, i int) {
	if s.value == nodeIndex {
		s.choice.index = -1
		if n, err := strconv.ParseInt(string(s.word[:s.wordLen]), 10, 64); err == nil {
			s.choice.index = n
		}
	}
	s.endValue(data, i)
}
