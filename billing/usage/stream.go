package usage

// doneMark ends OpenAI's streams. It is no JSON, so it is told apart before the scanner sees it.
const doneMark = "[DONE]"

// stream reads an event stream.
// An event's data is read as it comes, as a sequence of JSON values and doneMarks: one by the book, several at servers that leave out the empty lines between events.
type stream struct {
	tally tally
	lines lines
	json  scanner
	drop  dropper

	event event

	done      bool // doneMark was seen
	final     bool // the final usage was seen
	ended     bool // the upstream's end of stream
	announced bool // an Ending was returned
	committed int64
}

// event is the state of the event that is being read.
type event struct {
	bytes   int64 // its length so far, with line ends and comments
	reading bool  // a JSON value has begun and not ended
	marked  int   // bytes of a doneMark that were read
	stray   bool  // the rest of this line is no JSON
	values  int
	ours    bool // its last value is a usage-only chunk
	mixed   bool // it holds something that is no JSON value
}

var _ Meter = (*stream)(nil)

func newStream(o Options) *stream {
	m := &stream{tally: newTally(o), drop: dropper{on: o.DropUsageChunk}}
	m.json.to = &m.tally
	return m
}

// Write implements Meter.
func (m *stream) Write(piece []byte, last bool) Step {
	m.tally.body += int64(len(piece))
	m.drop.begin()
	for i := 0; i < len(piece); {
		t, text, n := m.lines.next(piece[i:])
		i += n
		if t == tokenTail && m.event.bytes == 0 { // it belongs to the event that its \r ended
			m.drop.tail(i)
			continue
		}
		m.event.bytes += int64(n)
		switch t {
		case tokenData:
			m.data(text)
		case tokenDataEnd:
			m.dataEnd()
		case tokenStray:
			m.stray(text)
		case tokenEventEnd:
			m.eventEnd(i)
		case tokenNone, tokenTail: // nothing but bytes
		}
	}
	if last && !m.ended {
		m.ended = true
		m.drop.eventEnd(len(piece), m.isOurs())
	}
	changed, body := m.drop.finish(piece, last, m.event.bytes)
	return Step{Changed: changed, Body: body, Ending: m.ending(last)}
}

// data reads a stretch of an event's data.
func (m *stream) data(text []byte) {
	for len(text) > 0 {
		switch c := text[0]; {
		case m.event.stray:
			m.stray(text)
			return
		case m.event.reading:
			text = text[m.feed(text):]
		case m.event.marked > 0 && c == doneMark[m.event.marked]:
			text = text[1:]
			if m.event.marked++; m.event.marked == len(doneMark) {
				m.event.marked, m.event.mixed, m.done = 0, true, true
			}
		case m.event.marked > 0:
			m.unmark()
		case c == '{':
			m.json.start()
			m.event.reading = true
		case c == '[':
			m.event.marked = 1
			text = text[1:]
		case isSpace(c):
			text = text[1:]
		default:
			m.event.stray = true
		}
	}
}

// unmark reads what looked like a doneMark as JSON.
func (m *stream) unmark() {
	begun := []byte(doneMark[:m.event.marked])
	m.event.marked = 0
	m.json.start()
	m.event.reading = true
	m.feed(begun)
	if m.event.stray {
		m.stray(begun)
	}
}

// feed gives text to the value that is being read and returns how much of it the value took.
func (m *stream) feed(text []byte) int {
	n, o := m.json.feed(text)
	switch o {
	case closed:
		m.event.reading = false
		m.event.values++
		m.event.ours = m.json.part.usageOnly()
		nonZero := m.tally.absorb(&m.json.part)
		if nonZero && (m.json.part.choices == 0 || m.tally.allFinished()) {
			m.final = true
		}
	case broken:
		m.event.reading, m.event.stray, m.event.mixed = false, true, true
	case more: // it goes on in the next stretch
	}
	return n
}

// stray notes text that is no JSON. The client sees it, so it counts as output.
func (m *stream) stray(text []byte) {
	m.event.mixed = true
	m.tally.output(text)
}

// dataEnd joins an event's lines: the line end is white space to what goes on, and what is no JSON ends with its line.
func (m *stream) dataEnd() {
	if !m.event.stray {
		m.data([]byte{'\n'})
	}
	m.event.stray = false
}

// isOurs says whether the event is nothing but the usage chunk we asked for.
func (m *stream) isOurs() bool {
	e := &m.event
	return e.ours && e.values == 1 && !e.mixed && !e.reading && e.marked == 0 && e.bytes <= maxHeld
}

// eventEnd closes the event, whose last byte stands before end. A value that is not whole by then is none.
func (m *stream) eventEnd(end int) {
	m.drop.eventEnd(end, m.isOurs())
	m.event = event{}
	m.tally.inChunk = false
}

// ending decides Step.Ending: at the first sight of the end, when a figure grows after that, and at the end of the stream.
func (m *stream) ending(last bool) bool {
	if !last && !m.final && !m.done {
		return false
	}
	verdict, tokens, _ := m.tally.figure.judge(m.tally.embeddings, m.tally.bytes)
	grown := verdict == Reported && tokens.Total > m.committed
	if grown {
		m.committed = tokens.Total
	}
	if !last && m.announced && !grown {
		return false
	}
	m.announced = true
	return true
}

// Report implements Meter.
func (m *stream) Report() Report {
	var pending *part
	if m.event.reading {
		pending = &m.json.part
	}
	r := m.tally.report(pending)
	r.Complete = m.done || m.final || m.ended && m.tally.allFinished()
	return r
}

// Close implements Meter.
func (m *stream) Close() {}

// size is the memory that is kept, in bytes, beside the structs themselves.
func (m *stream) size() int {
	return cap(m.tally.sample) + cap(m.tally.finished)*8 + cap(m.json.part.usage) + cap(m.json.part.groq) + cap(m.drop.held) + cap(m.drop.out)
}
