package usage

import (
	"bufio"
	"errors"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Limits of decompression. A stage may always expand to maxExpanded bytes, beyond that to maxRatio times the compressed bytes received so far.
// So a bomb of n bytes costs the time of max(maxExpanded, n*maxRatio) bytes at most, and its memory is that of one window.
const (
	maxExpanded = 64 << 20
	maxRatio    = 200
	maxCodings  = 2
	maxWindow   = 8 << 20 // zstd; RFC 9659 allows no more on the wire
	decodeChunk = 32 << 10

	checksumBytes = 8 // CRC-32 and length behind a gzip member
)

var (
	errBomb   = errors.New("decode answer: expands beyond the limit")
	errClosed = errors.New("decode answer: meter closed")

	errDictionary = errors.New("decode answer: deflate with a preset dictionary")
)

// parseCodings reads a content-encoding header (RFC 9110 section 8.4) into the codings in the order they were applied. known is false when one is unknown or there are too many.
func parseCodings(header string) (codings []string, known bool) {
	for name := range strings.SplitSeq(header, ",") {
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case "", "identity":
		case "gzip", "x-gzip", "deflate", "br", "zstd":
			codings = append(codings, name)
		default:
			return nil, false
		}
	}
	return codings, len(codings) <= maxCodings
}

// input is one piece on its way to the decoder.
type input struct {
	piece []byte
	last  bool
}

// decoding reads a compressed answer beside the client's bytes, which stay as they are.
// Decoders pull, answers are pushed: one goroutine pulls, and Write hands it a piece and waits until it asks for more or ends, so at any time only one of the two runs.
//
// What a decoder releases is what its library can: brotli and zstd as much as was received, gzip and deflate up to the last flush of the sender.
type decoding struct {
	plain   Meter
	codings []string

	started bool
	pieces  chan input    // closed by Close
	idle    chan struct{} // the goroutine wants a piece; closed when it has ended
	over    bool          // the goroutine has ended

	// Written by whichever side runs.
	rest   []byte // of the piece in hand
	last   bool   // no piece comes after it
	body   int64  // compressed bytes
	ending bool   // the plain meter saw the end in this piece
	failed bool   // the body could not be decoded
	ended  bool
	closed bool
}

var _ Meter = (*decoding)(nil)

func newDecoding(plain Meter, codings []string) *decoding {
	return &decoding{plain: plain, codings: codings, pieces: make(chan input), idle: make(chan struct{})}
}

// newOpaque is the meter for an answer in a coding we cannot read.
func newOpaque() *decoding { return &decoding{over: true, failed: true} }

// Write implements Meter.
func (m *decoding) Write(piece []byte, last bool) Step {
	m.body += int64(len(piece))
	m.ending = false
	if !m.over && !m.closed && (len(piece) > 0 || last) {
		if !m.started {
			m.started = true
			go m.run()
			m.wait()
		}
		if !m.over {
			m.pieces <- input{piece, last}
			m.wait()
		}
		m.rest = nil
	}
	if last && !m.ended {
		m.ended = true
		if m.plain != nil && !m.failed {
			m.plain.Write(nil, true)
		}
	}
	return Step{Ending: m.ending || last}
}

// wait waits until the goroutine wants a piece or has ended.
func (m *decoding) wait() {
	_, running := <-m.idle
	m.over = !running
}

// Report implements Meter.
func (m *decoding) Report() Report {
	if m.failed {
		return Report{BodyBytes: m.body, Complete: m.ended}
	}
	r := m.plain.Report()
	r.BodyBytes = m.body
	return r
}

// Close implements Meter.
func (m *decoding) Close() {
	if m.closed {
		return
	}
	m.closed = true
	if m.started && !m.over {
		close(m.pieces)
		m.wait()
	}
}

// run decodes until the body or the meter ends.
func (m *decoding) run() {
	defer close(m.idle)
	err := m.decode()
	// A body that is cut is read as far as it goes: that is an abort, not a fault of its coding.
	m.failed = err != nil && !m.closed && !errors.Is(err, io.ErrUnexpectedEOF)
}

func (m *decoding) decode() error {
	var r io.Reader = (*source)(m)
	for i := len(m.codings) - 1; i >= 0; i-- { // the coding applied last comes off first
		stage, release, err := open(m.codings[i], r)
		if err != nil {
			return err
		}
		defer release()
		r = &limited{from: stage, wire: &m.body}
	}
	chunk := make([]byte, decodeChunk)
	for {
		n, err := r.Read(chunk)
		if n > 0 && m.plain.Write(chunk[:n], false).Ending {
			m.ending = true
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// open returns the decoder of one coding.
func open(coding string, r io.Reader) (stage io.Reader, release func(), err error) {
	nothing := func() {}
	switch coding {
	case "gzip", "x-gzip":
		return newMembers(r), nothing, nil
	case "br":
		return brotli.NewReader(r), nothing, nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	// "deflate" means zlib, and servers that send it bare exist; the two differ in the first two bytes.
	b := bufio.NewReader(r)
	head, err := b.Peek(2)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	if err == nil && head[0]&0x0f == 8 && head[0]>>4 <= 7 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		if head[1]&0x20 != 0 {
			return nil, nil, errDictionary
		}
		_, _ = b.Discard(2) // both are in the buffer
	}
	return flate.NewReader(b), nothing, nil // without the checksum, as for gzip
}

// members reads gzip (RFC 1952): members one behind the other.
// The library's own reader holds the end of a member back until its checksum and the next header are there, while the client can already see it; so only headers are read by it, and checksums are passed over.
type members struct {
	from   *bufio.Reader
	header gzip.Reader
	body   io.ReadCloser // nil between members
	first  bool
}

func newMembers(r io.Reader) *members {
	return &members{from: bufio.NewReader(r), first: true}
}

// Read implements io.Reader.
func (m *members) Read(p []byte) (int, error) {
	if m.body == nil {
		if err := m.open(); err != nil {
			return 0, err
		}
	}
	n, err := m.body.Read(p)
	if err == io.EOF {
		m.body, err = nil, nil
	}
	return n, err
}

// open reads up to the next member's data. The end of input is io.EOF where a member may be missing.
func (m *members) open() error {
	if !m.first {
		if _, err := m.from.Discard(checksumBytes); err != nil {
			return err
		}
	}
	if err := m.header.Reset(m.from); err != nil {
		return err
	}
	m.first = false
	m.body = flate.NewReader(m.from)
	return nil
}

// source is the compressed body as the decoders pull it.
type source decoding

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.last {
			return 0, io.EOF
		}
		s.idle <- struct{}{}
		in, ok := <-s.pieces
		if !ok {
			s.last = true
			return 0, errClosed
		}
		s.rest, s.last = in.piece, in.last
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// limited stops a stage that expands beyond the limits.
type limited struct {
	from io.Reader
	wire *int64 // compressed bytes received so far
	n    int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	l.n += int64(n)
	if l.n > maxExpanded && l.n > *l.wire*maxRatio {
		return n, errBomb
	}
	return n, err
}
