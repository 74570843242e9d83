package usage

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// want is what a .want file says of the recording beside it.
type want struct {
	Options struct {
		Choices    int64
		Embeddings bool
	}
	DroppedAt    int // the chunk that drop mode takes out
	DroppedBytes int
	EndsAt       int // bytes after which the client can see the end
	Verdict      string
	Tokens       Tokens
	Reason       string
	Model        string
	Complete     bool
	Failed       bool
	OutputText   string
	OutputBytes  int64
	OutputChunks int64
}

type fixture struct {
	name    string
	body    []byte
	options Options
	want    want
	report  Report
}

// dropped is what the client gets in drop mode.
func (f fixture) dropped() []byte {
	head, tail := f.body[:f.want.DroppedAt], f.body[f.want.DroppedAt+f.want.DroppedBytes:]
	return append(bytes.Clone(head), tail...)
}

func fixtures(t testing.TB) []fixture {
	t.Helper()
	wants, err := filepath.Glob("testdata/openai/*.want")
	if err != nil || len(wants) < 14 {
		t.Fatalf("found %d recordings, error %v", len(wants), err)
	}
	var all []fixture
	for _, path := range wants {
		f := fixture{name: strings.TrimSuffix(filepath.Base(path), ".want")}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&f.want); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if f.body, err = os.ReadFile(strings.TrimSuffix(path, ".want")); err != nil {
			t.Fatal(err)
		}
		f.options = Options{ContentType: "application/json"}
		if strings.HasSuffix(f.name, ".sse") {
			f.options.ContentType = "text/event-stream; charset=utf-8"
		}
		f.options.Choices = f.want.Options.Choices
		f.options.Embeddings = f.want.Options.Embeddings
		f.report = f.want.report(len(f.body))
		all = append(all, f)
	}
	return all
}

func (w want) report(bodyBytes int) Report {
	verdicts := map[string]Verdict{"absent": Absent, "reported": Reported, "implausible": Implausible}
	return Report{
		Verdict: verdicts[w.Verdict], Tokens: w.Tokens, Reason: w.Reason, Model: w.Model,
		Complete: w.Complete, Failed: w.Failed, Decoded: true,
		OutputText: w.OutputText, OutputBytes: w.OutputBytes, OutputChunks: w.OutputChunks,
		BodyBytes: int64(bodyBytes),
	}
}

// answer is what came of one reading.
type answer struct {
	report Report
	client []byte
	ending []bool // of each piece
	change []bool
}

// read writes the pieces; the last one carries the end of the stream.
func read(t testing.TB, o Options, pieces ...[]byte) answer {
	t.Helper()
	m := NewMeter(o)
	defer m.Close()
	var a answer
	for i, piece := range pieces {
		lent := bytes.Clone(piece) // the meter must not keep it
		step := m.Write(lent, i == len(pieces)-1)
		if step.Changed {
			a.client = append(a.client, step.Body...)
		} else {
			a.client = append(a.client, lent...)
		}
		for k := range lent {
			lent[k] = '#'
		}
		a.ending = append(a.ending, step.Ending)
		a.change = append(a.change, step.Changed)
	}
	a.report = m.Report()
	return a
}

func singles(body []byte) (pieces [][]byte) {
	for i := range body {
		pieces = append(pieces, body[i:i+1])
	}
	return pieces
}

// modes calls check for each recording as it is and in drop mode, with the bytes the client must get.
func modes(t *testing.T, check func(t *testing.T, f fixture, client []byte)) {
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) { check(t, f, f.body) })
		if strings.HasSuffix(f.name, ".sse") {
			f.options.DropUsageChunk = true
			t.Run(f.name+"/drop", func(t *testing.T) { check(t, f, f.dropped()) })
		}
	}
}

func same(t testing.TB, at any, got answer, report Report, client []byte) {
	t.Helper()
	if diff := cmp.Diff(report, got.report); diff != "" {
		t.Fatalf("at %v: report (-want +got):\n%s", at, diff)
	}
	if !bytes.Equal(client, got.client) {
		t.Fatalf("at %v: the client's bytes (-want +got):\n%s", at, cmp.Diff(string(client), string(got.client)))
	}
}

func TestRecordingsWholeAndSplitEverywhere(t *testing.T) {
	modes(t, func(t *testing.T, f fixture, client []byte) {
		same(t, "whole", read(t, f.options, f.body), f.report, client)
		same(t, "single bytes", read(t, f.options, singles(f.body)...), f.report, client)
		for i := 1; i < len(f.body); i++ {
			same(t, i, read(t, f.options, f.body[:i], f.body[i:]), f.report, client)
			same(t, i, read(t, f.options, f.body[:i], nil, f.body[i:], nil), f.report, client)
		}
	})
}

func TestRecordingsSplitAtRandom(t *testing.T) {
	modes(t, func(t *testing.T, f fixture, client []byte) {
		rapid.Check(t, func(r *rapid.T) {
			same(t, "random splits", read(t, f.options, split(r, f.body)...), f.report, client)
		})
	})
}

func split(r *rapid.T, body []byte) (pieces [][]byte) {
	for len(body) > 0 {
		n := rapid.IntRange(0, min(len(body), 200)).Draw(r, "piece")
		pieces = append(pieces, body[:n])
		if body = body[n:]; n == 0 {
			body, pieces = body[1:], append(pieces, body[:1])
		}
	}
	return append(pieces, nil)
}

func TestEndingComesExactlyWithTheByteThatShowsTheEnd(t *testing.T) {
	modes(t, func(t *testing.T, f fixture, _ []byte) {
		end := f.want.EndsAt
		for i := 1; i < len(f.body); i++ {
			a := read(t, f.options, f.body[:i], f.body[i:], nil)
			if shown := i >= end; a.ending[0] != shown {
				t.Fatalf("split at %d, the end shows at %d: Ending = %v", i, end, a.ending[0])
			} else if a.ending[1] == shown {
				t.Fatalf("split at %d, the end shows at %d: second Ending = %v", i, end, a.ending[1])
			}
			if !a.ending[2] {
				t.Fatalf("split at %d: no Ending with the end of the stream", i)
			}
		}
		var first int
		for i, ending := range read(t, f.options, append(singles(f.body), nil)...).ending {
			if ending {
				first = i + 1
				break
			}
		}
		if first != end {
			t.Fatalf("single bytes: Ending with byte %d, want %d", first, end)
		}
	})
}

func TestFigureIsThereWithTheEnding(t *testing.T) {
	modes(t, func(t *testing.T, f fixture, _ []byte) {
		m := NewMeter(f.options)
		defer m.Close()
		for _, piece := range singles(f.body) {
			if !m.Write(piece, false).Ending {
				continue
			}
			if got := m.Report(); got.Verdict != f.report.Verdict || got.Tokens != f.report.Tokens || !got.Complete {
				t.Fatalf("with the Ending the report is %+v", got)
			}
			return
		}
	})
}

func TestNothingIsCopiedOnEventBounds(t *testing.T) {
	modes(t, func(t *testing.T, f fixture, _ []byte) {
		if f.want.DroppedBytes != 0 || bytes.Contains(f.body, []byte("\r")) {
			return
		}
		pieces := bytes.SplitAfter(f.body, []byte("\n\n"))
		for i, changed := range read(t, f.options, pieces...).change {
			if changed {
				t.Errorf("event %d was copied", i)
			}
		}
	})
}
