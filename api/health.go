package api

import (
	"context"
	"fmt"
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
	Status     string                       `json:"status" enum:"healthy,degraded,unhealthy"`
	Service    string                       `json:"service" enum:"llm-gateway"`
	Components map[string]map[string]string `json:"components" doc:"By name: its status, and facts such as the storage in use."`
}

func newHealth(o Options) *health {
	return &health{components: o.Components, log: o.Log, broken: map[string]bool{}}
}

// healthAnswer is 200 when the gateway can do its job (healthy, degraded) and
// 503 when it cannot.
type healthAnswer struct {
	Status int
	Body   healthReport
}

func (s *server) getHealth(ctx context.Context, _ *empty) (*healthAnswer, error) {
	a := &healthAnswer{Status: http.StatusOK, Body: s.health.check(ctx)}
	if a.Body.Status == statusUnhealthy {
		a.Status = http.StatusServiceUnavailable
	}
	return a, nil
}

// probeReport is the body of the routes for orchestrators.
type probeReport struct {
	Status string `json:"status" enum:"ok,ready,not_ready"`
}

const (
	probeOK       = "ok"
	probeReady    = "ready"
	probeNotReady = "not_ready"
)

type probeAnswer struct {
	Status int
	Body   probeReport
}

// getReady is for whoever sends requests here or elsewhere: a gateway that is
// about to stop is healthy and not ready.
func (s *server) getReady(ctx context.Context, _ *empty) (*probeAnswer, error) {
	if s.o.Draining != nil && s.o.Draining() || s.health.check(ctx).Status == statusUnhealthy {
		return &probeAnswer{http.StatusServiceUnavailable, probeReport{probeNotReady}}, nil
	}
	return &probeAnswer{http.StatusOK, probeReport{probeReady}}, nil
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
	// At the same time: one that hangs must not use up the time of the others,
	// which would be named for nothing.
	errs := make([]error, len(h.components))
	var asked sync.WaitGroup
	for i, c := range h.components {
		asked.Go(func() { errs[i] = c.Works(ctx) })
	}
	asked.Wait()
	report := healthReport{Status: statusHealthy, Service: "llm-gateway", Components: make(map[string]map[string]string)}
	for i, c := range h.components {
		state, err := statusHealthy, errs[i]
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

// Works asks the part, and is nil when it does. A check that panics has not shown
// that its part works; it must not end the process, which carries answers.
func (c Component) Works(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the check of %s", c.Name)
		}
	}()
	return c.Check(ctx)
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
