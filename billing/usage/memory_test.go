package usage

import (
	"bytes"
	"testing"
)

// A meter may keep its sample, two usage objects, and in drop mode one unfinished event and the piece it answers with.
const keptMost = MaxOutputSample + 4*maxCapture + 8*maxHeld

func TestMemoryIsBounded(t *testing.T) {
	const pieceBytes, rounds = 32 << 10, 96 // 3 MiB each
	fill := bytes.Repeat([]byte("x"), pieceBytes)
	tests := []struct {
		name, head string
		stream     bool
		fill       []byte
	}{
		{"line that is no data", "x", true, fill},
		{"comment", ": ", true, fill},
		{"data that is no JSON", "data: ", true, fill},
		{"string in data", `data: {"choices":[{"delta":{"content":"`, true, fill},
		{"usage in data", `data: {"usage":{"a":"`, true, fill},
		{"key in data", `data: {"`, true, fill},
		{"nesting in data", `data: `, true, bytes.Repeat([]byte("["), pieceBytes)},
		{"lines of one event", "", true, bytes.Repeat([]byte("data: {}\n"), pieceBytes/9)},
		{"choices in data", `data: {"choices":[{"delta":{"content":"x"}}`, true, bytes.Repeat([]byte(",{}"), pieceBytes/3)},
		{"string", `{"choices":[{"message":{"content":"`, false, fill},
		{"usage", `{"usage":{"a":"`, false, fill},
		{"model", `{"model":"`, false, fill},
		{"key", `{"`, false, fill},
		{"number", `{"a":`, false, bytes.Repeat([]byte("1"), pieceBytes)},
		{"embeddings", `{"data":[0`, false, bytes.Repeat([]byte(",0.1"), pieceBytes/4)},
		{"nesting", "", false, bytes.Repeat([]byte("["), pieceBytes)},
		{"white space", "", false, bytes.Repeat([]byte("\n"), pieceBytes)},
		{"text", "", false, fill},
	}
	for _, tt := range tests {
		for _, drop := range []bool{false, true} {
			o := Options{DropUsageChunk: drop, Choices: 4}
			if tt.stream {
				o.ContentType = "text/event-stream"
			}
			m := newPlain(o)
			m.Write([]byte(tt.head), false)
			var most int
			for range rounds {
				m.Write(tt.fill, false)
				most = max(most, m.(interface{ size() int }).size())
			}
			if most > keptMost {
				t.Errorf("%s, drop %v: %d bytes kept of %d read", tt.name, drop, most, rounds*pieceBytes)
			}
			if got := m.Report().BodyBytes; got != int64(len(tt.head)+rounds*len(tt.fill)) {
				t.Errorf("%s: %d bytes counted", tt.name, got)
			}
			m.Close()
		}
	}
}
