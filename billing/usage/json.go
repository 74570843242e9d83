package usage

type jsonState uint8

const (
	jsonLead  jsonState = iota // before the value: white space, some servers' keep-alive
	jsonValue                  // within it
	jsonAfter                  // behind it
	jsonRaw                    // the body is no JSON
)

// jsonMeter reads an answer that is one JSON value.
type jsonMeter struct {
	tally tally
	json  scanner
	state jsonState
	mark  int // bytes of a byte order mark seen
	ended bool
}

var _ Meter = (*jsonMeter)(nil)

func newJSONMeter(o Options) *jsonMeter {
	m := &jsonMeter{tally: newTally(o)}
	m.json.to = &m.tally
	return m
}

// Write implements Meter.
func (m *jsonMeter) Write(piece []byte, last bool) Step {
	m.tally.body += int64(len(piece))
	m.ended = m.ended || last
	ending := last
	for len(piece) > 0 {
		switch m.state {
		case jsonLead:
			piece = piece[m.lead(piece):]
		case jsonValue:
			n, o := m.json.feed(piece)
			piece = piece[n:]
			switch o {
			case closed:
				m.tally.absorb(&m.json.part)
				m.state, ending = jsonAfter, true
			case broken:
				m.state = jsonRaw
			case more: // it goes on in the next piece
			}
		case jsonAfter:
			piece = piece[m.after(piece):]
		case jsonRaw:
			m.tally.output(piece)
			piece = nil
		}
	}
	return Step{Ending: ending}
}

// lead reads what stands before the value, up to its first byte.
func (m *jsonMeter) lead(piece []byte) int {
	for i, c := range piece {
		switch {
		case m.mark < len(byteOrderMark) && c == byteOrderMark[m.mark]:
			m.mark++
		case m.mark > 0 && m.mark < len(byteOrderMark):
			m.state = jsonRaw
			return i
		case isSpace(c):
			m.mark = len(byteOrderMark)
		case c == '{' || c == '[':
			m.json.start()
			m.state = jsonValue
			return i
		default:
			m.state = jsonRaw
			return i
		}
	}
	return len(piece)
}

// after reads what stands behind the value. The client sees it, so what is not white space counts as output.
func (m *jsonMeter) after(piece []byte) int {
	i := 0
	for i < len(piece) && isSpace(piece[i]) {
		i++
	}
	from := i
	for i < len(piece) && !isSpace(piece[i]) {
		i++
	}
	m.tally.output(piece[from:i])
	return i
}

// Report implements Meter.
func (m *jsonMeter) Report() Report {
	var pending *part
	if m.state == jsonValue {
		pending = &m.json.part
	}
	if m.state == jsonRaw { // whatever was read before the break is bytes too
		whole := m.tally
		whole.bytes = m.tally.body
		whole.chunks = min(whole.body, 1)
		r := whole.report(nil)
		r.Complete = m.ended
		return r
	}
	r := m.tally.report(pending)
	r.Complete = m.state == jsonAfter
	return r
}

// Close implements Meter.
func (m *jsonMeter) Close() {}

// size is the memory that is kept, in bytes, beside the struct itself.
func (m *jsonMeter) size() int {
	return cap(m.tally.sample) + cap(m.tally.finished)*8 + cap(m.json.part.usage) + cap(m.json.part.groq)
}
