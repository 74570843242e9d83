package usage

import (
	"unicode/utf16"
	"unicode/utf8"
)

// quoteOrEscape reads the byte that interrupts a string's plain text.
func (s *scanner) quoteOrEscape(data []byte, i int) bool {
	switch data[i] {
	case '"':
		s.loneHigh()
		s.endString(data, i+1)
		return true
	case '\\':
		s.state = inEscape
		return true
	}
	return false // a control character
}

func (s *scanner) endString(data []byte, end int) {
	word := s.word[:s.wordLen]
	if s.isKey {
		s.isKey, s.state = false, wantColon
		s.value = nodeOther
		if owner := s.frames[s.depth-1].node; !s.wordCut {
			s.value = owner.member(string(word))
		} else if owner == nodeRoot {
			s.value = nodePayload
		}
		return
	}
	switch s.value {
	case nodeModel:
		s.to.named(word)
	case nodeKind:
		s.part.failed = s.part.failed || string(word) == "error"
	case nodeFinish:
		s.choice.finished = s.choice.finished || len(word) > 0
	default: // output was counted as it came, nothing else is read
	}
	s.endValue(data, end)
}

func (s *scanner) escape(c byte) bool {
	s.state = inString
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		s.hex, s.hexLen, s.state = 0, 0, inHex
		return true
	default:
		return false
	}
	s.text([]byte{c})
	return true
}

func (s *scanner) hexDigit(c byte) bool {
	switch {
	case c >= '0' && c <= '9':
		c -= '0'
	case c >= 'a' && c <= 'f':
		c -= 'a' - 10
	case c >= 'A' && c <= 'F':
		c -= 'A' - 10
	default:
		return false
	}
	s.hex = s.hex<<4 | rune(c)
	if s.hexLen++; s.hexLen == 4 {
		s.state = inString
		s.codeUnit(s.hex)
	}
	return true
}

// codeUnit adds one \u escape; two of them make a character beyond the basic plane.
func (s *scanner) codeUnit(u rune) {
	if s.high != 0 {
		if r := utf16.DecodeRune(s.high, u); r != utf8.RuneError {
			s.high = 0
			s.character(r)
			return
		}
		s.loneHigh()
	}
	if u >= 0xD800 && u < 0xDC00 {
		s.high = u
		return
	}
	s.character(u)
}

// loneHigh gives up waiting for the second half of a surrogate pair, as JSON readers do: by a replacement character.
func (s *scanner) loneHigh() {
	if s.high != 0 {
		s.high = 0
		s.character(utf8.RuneError)
	}
}

func (s *scanner) character(r rune) {
	var b [utf8.UTFMax]byte
	s.text(b[:utf8.EncodeRune(b[:], r)])
}

// text takes decoded bytes of the string that is being read.
func (s *scanner) text(b []byte) {
	if len(b) == 0 {
		return
	}
	if s.high != 0 {
		s.loneHigh()
	}
	if s.isKey || !s.value.isText() {
		s.gather(b)
		return
	}
	s.to.output(b)
}

// gather adds to the word when somebody will look at it.
func (s *scanner) gather(b []byte) {
	if !s.isKey && !s.value.isWord() {
		return
	}
	n := copy(s.word[s.wordLen:], b)
	s.wordLen += n
	s.wordCut = s.wordCut || n < len(b)
}
