package api

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Component is one part whose state GET /health tells.
type Component struct {
	// Name is its member in "components".
	Name string
	// Check returns an error when the part does not work. It must end with
	// its context. The error is logged, never shown.
	Check func(context.Context) error
	// Facts are members beside "status", such as the storage in use; nil = none.
	Facts func() map[string]string
	// Optional parts make the gateway degraded instead of unhealthy.
	Optional bool
}

// States of the gateway and of its components.
const (
	statusHealthy   = "healthy"
	statusDegraded  = "degraded"
	statusUnhealthy = "unhealthy"
)

// checkTimeout bounds one round of checks; checkEvery bounds how often the
// public route can cause one.
const (
	checkTimeout = 2 * time.Second
	checkEvery   = 200 * time.Millisecond
)

// health asks every component, at most once per checkEvery however many ask.
type health struct {
	components []Component
	log        *zap.Logger

	mu     sync.Mutex
	at     time.Time
	report healthReport
	broken map[string]bool // components that did not work last time
}

// healthReport is the body of GET /health: the original's two members, and
// the state of every part. It carries no addresses, versions or error texts.
type healthReport struct {
	Status     string                       `json:"status"`
	Service    string                       `json:"service"`
	Components map[string]map[string]string `json:"components"`
}

func newHealth(o Options) *health {
	return &health{components: o.Components, log: o.Log, broken: map[string]bool{}}
}

// ServeHTTP answers 200 when the gateway can do its job (healthy, degraded)
// and 503 when it cannot.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	report := h.check(r.Context())
	status := http.StatusOK
	if report.Status == statusUnhealthy {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, report)
}

func (h *health) check(ctx context.Context) healthReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < checkEvery {
		return h.report
	}
	// The result is shared, so one impatient caller must not spoil it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	report := healthReport{Status: statusHealthy, Service: "llm-gateway", Components: make(map[string]map[string]string)}
	for _, c := range h.components {
		state := statusHealthy
		err := c.Check(ctx)
		h.logChange(c.Name, err)
		if err != nil {
			state = statusUnhealthy
			if !c.Optional {
				report.Status = statusUnhealthy
			} else if report.Status == statusHealthy {
				report.Status = statusDegraded
			}
		}
		facts := map[string]string{"status": state}
		if c.Facts != nil {
			maps.Copy(facts, c.Facts())
		}
		report.Components[c.Name] = facts
	}
	h.at, h.report = time.Now(), report
	return report
}

// logChange writes one line when a component stops working and one when it is
// back, not one for everybody who asks meanwhile.
func (h *health) logChange(component string, err error) {
	switch was := h.broken[component]; {
	case err != nil && !was:
		h.log.Warn("component does not work", zap.String("component", component), zap.Error(err))
	case err == nil && was:
		h.log.Info("component works again", zap.String("component", component))
	}
	h.broken[component] = err != nil
}
