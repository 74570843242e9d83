package usage

import "bytes"

// token is what a stretch of an event stream is.
type token uint8

const (
	tokenNone     token = iota // nothing to know: a comment, a field we ignore, a byte order mark
	tokenData                  // a stretch of a data line's value
	tokenDataEnd               // the end of a data line
	tokenStray                 // a stretch of a line that is no field: some clients read it all the same
	tokenEventEnd              // the empty line that ends an event
	tokenTail                  // the \n of a \r\n whose \r ended the line before
)

type lineKind uint8

const (
	lineNew lineKind = iota // its field name is not whole yet
	lineData
	lineIgnored
	lineStray
)

// longestField is the length of the longest field name of the format, "event" and "retry", and one byte more to see that a name is longer.
const longestField = len("event") + 1

// searchBytes is how far a line end is searched for at a time.
const searchBytes = 4 << 10

// lines splits an event stream (WHATWG HTML, section 9.2.6 "Interpreting an event stream") into tokens and keeps nothing but an unfinished field name.
// Lines end with \n, \r\n or \r. A \r ends its line at once and takes a \n that follows with it, in whatever piece that comes.
type lines struct {
	mark    int // bytes of a byte order mark seen; past its length once the stream has begun
	afterCR bool
	begun   bool // the line has at least one byte
	kind    lineKind
	space   bool // the one optional space after the colon may still come
	name    [longestField]byte
	nameLen int
}

const byteOrderMark = "\xEF\xBB\xBF"

// next reads the first token of piece, which is not empty. text is the token's value and n the bytes it took.
func (l *lines) next(piece []byte) (t token, text []byte, n int) {
	c := piece[0]
	if l.mark < len(byteOrderMark) {
		if c == byteOrderMark[l.mark] {
			l.mark++
			return tokenNone, nil, 1
		}
		if l.mark > 0 { // other bytes that began alike
			l.begun, l.kind = true, lineStray
		}
		l.mark = len(byteOrderMark)
	}
	if l.afterCR {
		l.afterCR = false
		if c == '\n' {
			return tokenTail, nil, 1
		}
	}
	if c == '\n' || c == '\r' {
		l.afterCR = c == '\r'
		t, text := l.end()
		return t, text, 1
	}
	// Without the bound every short line of a long piece without \n would search all of it.
	stretch := piece[:min(len(piece), searchBytes)]
	if end := bytes.IndexByte(stretch, '\n'); end >= 0 {
		stretch = stretch[:end]
	}
	if end := bytes.IndexByte(stretch, '\r'); end >= 0 {
		stretch = stretch[:end]
	}
	return l.within(stretch)
}

// end closes the line.
func (l *lines) end() (t token, text []byte) {
	if l.kind == lineNew && l.begun { // all of it is a name, which then has an empty value
		if l.kind = l.kindOf(); l.kind == lineStray {
			t, text = tokenStray, l.name[:l.nameLen]
		}
	}
	switch {
	case !l.begun:
		t = tokenEventEnd
	case l.kind == lineData:
		t = tokenDataEnd
	}
	l.begun, l.kind, l.nameLen, l.space = false, lineNew, 0, false
	return t, text
}

// within reads a stretch of one line.
func (l *lines) within(stretch []byte) (token, []byte, int) {
	l.begun = true
	switch l.kind {
	case lineNew:
		return l.field(stretch)
	case lineData:
		if l.space {
			l.space = false
			if stretch[0] == ' ' {
				return tokenNone, nil, 1
			}
		}
		return tokenData, stretch, len(stretch)
	case lineStray:
		return tokenStray, stretch, len(stretch)
	case lineIgnored: // its field says nothing to us
	}
	return tokenNone, nil, len(stretch)
}

// field reads the field name up to its colon.
func (l *lines) field(stretch []byte) (token, []byte, int) {
	for i, c := range stretch {
		if c == ':' {
			l.kind = l.kindOf()
			if l.kind == lineStray {
				return tokenStray, l.name[:l.nameLen], i
			}
			l.space = true
			return tokenNone, nil, i + 1
		}
		l.name[l.nameLen] = c
		l.nameLen++
		if l.nameLen == longestField {
			l.kind = lineStray
			return tokenStray, l.name[:l.nameLen], i + 1
		}
	}
	return tokenNone, nil, len(stretch)
}

func (l *lines) kindOf() lineKind {
	switch {
	case l.named("data"):
		return lineData
	case l.nameLen == 0, l.named("event"), l.named("id"), l.named("retry"):
		return lineIgnored
	}
	return lineStray
}

func (l *lines) named(name string) bool { return string(l.name[:l.nameLen]) == name }
