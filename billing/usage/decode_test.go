package usage

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

type flusher interface {
	io.WriteCloser
	Flush() error
}

// packers compress as servers do: each with a flush behind every event.
var packers = map[string]func(w io.Writer) (flusher, error){
	"gzip":     func(w io.Writer) (flusher, error) { return gzip.NewWriter(w), nil },
	"x-gzip":   func(w io.Writer) (flusher, error) { return gzip.NewWriter(w), nil },
	"deflate":  func(w io.Writer) (flusher, error) { return zlib.NewWriter(w), nil },
	"deflate ": func(w io.Writer) (flusher, error) { return flate.NewWriter(w, 6) },
	"BR":       func(w io.Writer) (flusher, error) { return brotli.NewWriter(w), nil },
	"zstd":     func(w io.Writer) (flusher, error) { return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1)) },
}

// pack returns the compressed events, each with its flush, and what closes the body.
func pack(t testing.TB, coding string, events ...[]byte) (packed [][]byte) {
	t.Helper()
	var b bytes.Buffer
	w, err := packers[coding](&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range events {
		_, err := w.Write(event)
		if err := errors.Join(err, w.Flush()); err != nil {
			t.Fatal(err)
		}
		packed = append(packed, bytes.Clone(b.Bytes()))
		b.Reset()
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(packed, bytes.Clone(b.Bytes()))
}

func TestCompressedRecordings(t *testing.T) {
	for coding := range packers {
		for _, f := range fixtures(t) {
			t.Run(coding+"/"+f.name, func(t *testing.T) {
				body := bytes.Join(pack(t, coding, f.body), nil)
				f.options.ContentEncoding = coding
				f.options.DropUsageChunk = true // must do nothing here
				f.report.BodyBytes = int64(len(body))
				same(t, "whole", read(t, f.options, body), f.report, body)
				same(t, "single bytes", read(t, f.options, append(singles(body), nil)...), f.report, body)
				for i := 1; i < len(body); i += 1 + len(body)/60 {
					same(t, i, read(t, f.options, body[:i], body[i:], nil), f.report, body)
				}
			})
		}
	}
}

func TestCompressedEndingComesWithTheFlushedEvent(t *testing.T) {
	events := [][]byte{[]byte(helloEvent), []byte(stopEvent), []byte(usageEvent), []byte(doneEvent)}
	for coding := range packers {
		t.Run(coding, func(t *testing.T) {
			o := stream1(false)
			o.ContentEncoding = coding
			got := read(t, o, append(pack(t, coding, events...), nil)...)
			for i, want := range []bool{false, false, true, false, false, true} {
				if got.ending[i] != want {
					t.Errorf("Ending of piece %d: %v", i, got.ending[i])
				}
			}
		})
	}
}

// A client sees a member's end without its checksum.
func TestCompressedEndingDoesNotWaitForTheChecksum(t *testing.T) {
	body := []byte(`{"usage":{"prompt_tokens":1,"completion_tokens":2}}`)
	for coding, checksum := range map[string]int{"gzip": 8, "deflate": 4, "deflate ": 0} {
		packed := bytes.Join(pack(t, coding, body), nil)
		cut := len(packed) - checksum
		got := read(t, Options{ContentEncoding: coding}, packed[:cut], packed[cut:], nil)
		if !got.ending[0] {
			t.Errorf("%s: no Ending with the last byte of the data", coding)
		}
	}
}

func TestStackedAndPlainCodings(t *testing.T) {
	body := []byte(`{"usage":{"prompt_tokens":1,"completion_tokens":2}}`)
	both := bytes.Join(pack(t, "gzip", bytes.Join(pack(t, "BR", body), nil)), nil)
	members := append(bytes.Join(pack(t, "gzip", body[:10]), nil), bytes.Join(pack(t, "gzip", body[10:]), nil)...)
	tests := []struct {
		header  string
		body    []byte
		decoded bool
	}{
		{"br, gzip", both, true},
		{"br, identity , GZIP", both, true},
		{"gzip", members, true},
		{"", body, true},
		{"identity", body, true},
		{"gzip, br", both, false},
		{"gzip, gzip, gzip", both, false},
		{"compress", body, false},
		{"gzip", body, false},
		{"br", body, false},
		{"zstd", body, false},
		{"deflate", []byte("\xff\xff\xff\xff\xff"), false},
		{"deflate", []byte("\x78\xbb\x00\x00\x00\x00"), false}, // a preset dictionary
	}
	for _, tt := range tests {
		t.Run(tt.header, func(t *testing.T) {
			for _, p := range [][][]byte{{tt.body}, append(singles(tt.body), nil)} {
				a := read(t, Options{ContentEncoding: tt.header}, p...)
				if !bytes.Equal(a.client, tt.body) {
					t.Error("the client's bytes changed")
				}
				if !a.ending[len(p)-1] {
					t.Error("no Ending with the end of the stream")
				}
				want := Report{BodyBytes: int64(len(tt.body)), Complete: true}
				if tt.decoded {
					want.Decoded, want.Verdict, want.Tokens = true, Reported, Tokens{1, 2, 3, 0, 0, 0, 0, 0}
				}
				if a.report != want {
					t.Errorf("%d pieces: %+v", len(p), a.report)
				}
			}
		})
	}
}

func TestCompressedAbort(t *testing.T) {
	for coding := range packers {
		packed := pack(t, coding, []byte(helloEvent), []byte(usageEvent))
		o := stream1(false)
		o.ContentEncoding = coding
		for _, last := range []bool{false, true} {
			m := NewMeter(o)
			m.Write(packed[0], false)
			m.Write(packed[1][:len(packed[1])/2], last)
			before := m.Report()
			m.Close()
			m.Close()
			if got := m.Report(); got != before || !got.Decoded || got.OutputText != "hello" || got.Complete {
				t.Errorf("%s, last %v: %+v, before Close %+v", coding, last, got, before)
			}
			if step := m.Write(packed[1], true); !step.Ending {
				t.Errorf("%s: no Ending at the end of the stream after Close", coding)
			}
		}
	}
}

func TestBombIsNotDecoded(t *testing.T) {
	zeros := bytes.Repeat([]byte(" "), 1<<20)
	for _, coding := range []string{"gzip", "zstd", "BR"} {
		var b bytes.Buffer
		w, err := packers[coding](&b)
		if err != nil {
			t.Fatal(err)
		}
		for range maxExpanded>>20 + 2 {
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := read(t, Options{ContentEncoding: coding}, b.Bytes()).report; got.Decoded {
			t.Errorf("%s: %d bytes became %d", coding, b.Len(), (maxExpanded>>20+2)<<20)
		}
	}
}

// An honest large answer is no bomb.
func TestLargeAnswerIsDecoded(t *testing.T) {
	l := limited{from: strings.NewReader("0123456789"), wire: new(int64), n: maxExpanded}
	*l.wire = maxExpanded/maxRatio + 1
	if _, err := l.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	*l.wire = 1
	l.from = strings.NewReader("0123456789")
	if _, err := l.Read(make([]byte, 10)); !errors.Is(err, errBomb) {
		t.Errorf("bomb: %v", err)
	}
}

// A bubble fails when a goroutine that was started in it outlives it.
func TestCloseEndsTheDecoder(t *testing.T) {
	for coding := range packers {
		body := bytes.Join(pack(t, coding, []byte(helloEvent), []byte(usageEvent)), nil)
		for _, n := range []int{0, 1, len(body) / 2, len(body)} {
			for _, last := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					m := NewMeter(Options{ContentEncoding: coding})
					m.Write(body[:n], last)
					m.Report()
					m.Close()
					m.Close()
				})
			}
		}
	}
}

func TestCloseBeforeTheFirstPiece(t *testing.T) {
	m := NewMeter(Options{ContentEncoding: "gzip"})
	m.Close()
	if got := m.Report(); !got.Decoded || got.BodyBytes != 0 {
		t.Errorf("%+v", got)
	}
}

func TestNoPieceIsKept(t *testing.T) {
	raw, err := os.ReadFile("testdata/openai/chat.json")
	if err != nil {
		t.Fatal(err)
	}
	packed := bytes.Join(pack(t, "gzip", raw), nil)
	m := newDecoding(newPlain(Options{Choices: 1}), []string{"gzip"})
	defer m.Close()
	m.Write(packed[:len(packed)/2], false)
	if m.rest != nil {
		t.Error("the piece is still referenced")
	}
}
