package demo

import (
	"net/http"
	"time"
)

// stream sends server-sent events: for chat the role, then one word an event with the choices in
// turn, the reason for the end of each, the usage if it was asked for, and [DONE].
func (m *model) stream(w http.ResponseWriter, r *http.Request, c completion, includeUsage bool) error {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	for i, event := range events(c, includeUsage) {
		if i > 0 && !pause(r, m.chunkDelay) {
			return nil
		}
		if _, err := w.Write(append(append([]byte("data: "), event...), "\n\n"...)); err != nil {
			return nil // the client is gone, and the status is long sent
		}
		if err := flush.Flush(); err != nil {
			return nil
		}
	}
	return nil
}

// events are the data of all events of a stream, in order.
func events(c completion, includeUsage bool) [][]byte {
	var out [][]byte
	add := func(u *usage, choices ...any) {
		e := envelope{ID: c.id, Object: c.shape.chunk, Created: created, Model: c.model, Fingerprint: fingerprint, Choices: choices}
		if !includeUsage {
			out = append(out, encode(e))
			return
		}
		out = append(out, encode(struct {
			envelope
			Usage *usage `json:"usage"`
		}{e, u}))
	}
	longest := 0
	for i, a := range c.answers {
		longest = max(longest, len(a.pieces))
		if c.shape.opening != nil {
			add(nil, c.shape.opening(i))
		}
	}
	for p := range longest {
		for i, a := range c.answers {
			if p < len(a.pieces) {
				add(nil, c.shape.piece(i, a.pieces[p]))
			}
		}
	}
	for i, a := range c.answers {
		add(nil, c.shape.closing(i, a.finish))
	}
	if includeUsage {
		add(c.usage(), []any{}...)
	}
	return append(out, []byte("[DONE]"))
}

// pause reports whether the client is still there afterwards.
func pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return r.Context().Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
