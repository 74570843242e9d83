package envoy

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	maxLine  = 64 << 10 // a longer one is passed on in pieces
	tailSize = 40       // lines kept to explain a death
)

// lineWriter passes on whole lines, each a JSON object, so that Envoy's output
// and our own log can share a stream, and keeps the last ones. It is safe for
// concurrent use.
type lineWriter struct {
	to  io.Writer // may be nil
	now func() time.Time

	mu      sync.Mutex
	partial []byte
	tail    []string
}

// Write never fails: a closed stderr is no reason to let Envoy die of a broken
// pipe.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = append(w.partial, p...)
	end := bytes.LastIndexByte(w.partial, '\n') + 1
	if end == 0 && len(w.partial) < maxLine {
		return len(p), nil
	}
	if end == 0 {
		end = len(w.partial)
	}
	w.pass(w.partial[:end])
	w.partial = append(w.partial[:0], w.partial[end:]...)
	return len(p), nil
}

// flush passes on what came after the last end of line.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.partial) > 0 {
		w.pass(append(w.partial, '\n'))
		w.partial = nil
	}
}

func (w *lineWriter) pass(lines []byte) {
	if w.to != nil {
		_, _ = w.to.Write(w.inJSON(lines))
	}
	for line := range strings.Lines(string(lines)) {
		w.tail = append(w.tail, strings.TrimRight(line, "\r\n"))
	}
	if n := len(w.tail); n > tailSize {
		w.tail = append([]string(nil), w.tail[n-tailSize:]...)
	}
}

// inJSON wraps what is no JSON object: what Envoy says before it has read how
// to log, and its crash reports.
func (w *lineWriter) inJSON(lines []byte) []byte {
	var out []byte
	for line := range bytes.Lines(lines) {
		switch text := bytes.TrimSpace(line); {
		case len(text) == 0:
		case text[0] == '{' && json.Valid(text):
			out = append(out, line...)
		default:
			entry, err := json.Marshal(map[string]string{
				"ts":    w.now().UTC().Format("2006-01-02T15:04:05.000Z"),
				"level": "warning", "logger": "envoy", "msg": string(text),
			})
			if err != nil {
				panic(err) // strings always can be marshalled
			}
			out = append(append(out, entry...), '\n')
		}
	}
	return out
}

func (w *lineWriter) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.tail...)
}

// reasonOf finds in Envoy's output why it ended: its errors when there are
// any, else what it said outside of its log, else its last words.
func reasonOf(lines []string) string {
	var serious, plain, all []string
	for _, line := range lines {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg == "" {
			plain, all = append(plain, line), append(all, line)
			continue
		}
		if entry.Level == "error" || entry.Level == "critical" {
			serious = append(serious, entry.Msg)
		}
		all = append(all, entry.Msg)
	}
	for _, found := range [][]string{serious, plain, all} {
		if n := len(found); n > 0 {
			return strings.Join(found[max(0, n-3):], "; ")
		}
	}
	return "it said nothing"
}
