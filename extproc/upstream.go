package extproc

import (
	"net/http"
	"sync"
	"time"
)

// Upstream health is passive: it is what the requests of clients met, since a
// probe of ours would cost tokens or prove nothing.
const (
	// upstreamFailures in a row make the upstream count as failing.
	upstreamFailures = 3
	// upstreamMemory is how long a failure says anything about now.
	upstreamMemory = 5 * time.Minute
)

// UpstreamState is what the latest requests say of the model server.
type UpstreamState string

// The states.
const (
	UpstreamUnknown UpstreamState = "unknown" // nothing was asked, or not for a while
	UpstreamWorking UpstreamState = "working"
	UpstreamFailing UpstreamState = "failing" // the last 3 requests met no server, silence, or a status of 5xx
)

// upstreamHealth remembers the latest answers.
type upstreamHealth struct {
	mu       sync.Mutex
	failures int
	at       time.Time
}

// learn takes a record. Clients that leave and errors that an upstream answers
// to a bad request say nothing against it.
func (h *upstreamHealth) learn(r *Record) {
	failed := false
	switch r.Ending {
	case EndingServed:
	case EndingUpstream:
		failed = r.Status >= http.StatusInternalServerError
	case EndingUnreachable, EndingTimeout:
		failed = true
	case EndingRefused, EndingAborted, EndingFailed, endingNotYetKnown:
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at = r.Start.Add(r.Duration); failed {
		h.failures++
	} else {
		h.failures = 0
	}
}

func (h *upstreamHealth) state(now time.Time) UpstreamState {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.at.IsZero(), now.Sub(h.at) > upstreamMemory:
		return UpstreamUnknown
	case h.failures >= upstreamFailures:
		return UpstreamFailing
	}
	return UpstreamWorking
}

// Upstream says how the model server does, by the requests of clients alone.
func (s *Server) Upstream() UpstreamState { return s.observer.upstream.state(time.Now()) }
