package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// Prometheus checks names, units and duplicates when it gathers; what it shows
// is compared with the snapshot.
func TestMetrics_showTheSnapshots(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(
		newLimiterMetrics(func() ratelimit.Status {
			return ratelimit.Status{
				Configured: true, Storage: ratelimit.StorageMemory, Switches: 3, Subjects: 4, Dropped: 5,
				Decisions: map[string]int64{"memory": 6, "redis": 7}, RedisErrors: map[string]int64{"timeout": 8},
			}
		}),
		newBookMetrics(func() billing.Stats {
			return billing.Stats{Keys: 9, Spilled: 10, Commits: 11, FailedCommits: 12, Replicas: 13}
		}),
		newComponentMetrics([]api.Component{
			{Name: "envoy", Check: func(context.Context) error { return errors.New("away") }},
			{Name: "gate", Check: func(context.Context) error { return nil }},
			{Name: "llm", Check: func(context.Context) error { panic("a check that is broken") }},
		}),
	)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).
		ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, line := range []string{
		"llmgw_ratelimit_fallback 1", `llmgw_ratelimit_decisions_total{storage="redis"} 7`, "llmgw_ratelimit_switches_total 3",
		`llmgw_ratelimit_redis_errors_total{kind="timeout"} 8`, "llmgw_ratelimit_subjects 4", "llmgw_ratelimit_dropped_total 5",
		"llmgw_books_keys 9", "llmgw_books_spilled 10", `llmgw_books_commits_total{outcome="failed"} 12`, "llmgw_books_replicas 13",
		`llmgw_component_healthy{component="envoy"} 0`, `llmgw_component_healthy{component="gate"} 1`, `llmgw_component_healthy{component="llm"} 0`,
	} {
		if !strings.Contains(w.Body.String(), "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}
