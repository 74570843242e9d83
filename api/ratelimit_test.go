package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// peeking is rate limits that stand still.
type peeking struct {
	decision ratelimit.Decision
	err      error
	asked    []string
}

func (p *peeking) Peek(_ context.Context, subject string, l ratelimit.Limits) (ratelimit.Decision, error) {
	p.asked = append(p.asked, subject)
	d := p.decision
	d.Requests.Limit = l.Requests
	return d, p.err
}

func askRateLimit(t *testing.T, limits *peeking, authorization ...string) (*httptest.ResponseRecorder, string) {
	t.Helper()
	h := Handler(Options{
		Log: zap.NewNop(), Limits: limits,
		LimitsOf: func(billing.Key) ratelimit.Limits {
			return ratelimit.Limits{Requests: ratelimit.Limit{Max: 30, Window: time.Minute}}
		},
		Authenticate: func(authorization []string) (billing.Key, *Denied) {
			if len(authorization) == 1 && authorization[0] == "Bearer good" {
				return billing.Key{ID: "key_1", Display: "sk-lgw_...wxyz"}, nil
			}
			return billing.Key{}, &Denied{Status: 401, Headers: [][2]string{{"www-authenticate", "Bearer"}}, Body: []byte(`{"detail":"no"}`)}
		},
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/rate-limit", nil)
	r.Header["Authorization"] = authorization
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w, strings.TrimSpace(w.Body.String())
}

func TestRateLimit_showsWhereTheCallerStands(t *testing.T) {
	for _, c := range []struct {
		name     string
		decision ratelimit.Decision
		want     string
	}{
		{
			"requests alone",
			ratelimit.Decision{Storage: "redis", Requests: ratelimit.State{Remaining: 25, ResetIn: 1500 * time.Millisecond}},
			`{"api_key":"sk-lgw_...wxyz","limit":30,"window_seconds":60,"current_count":5,"remaining":25,"storage":"redis","key_id":"key_1","reset_seconds":2,"tokens":null,"concurrent":null}`,
		},
		{
			"all limits",
			ratelimit.Decision{
				Storage: "memory", Requests: ratelimit.State{Remaining: 30},
				Tokens:     ratelimit.State{Limit: ratelimit.Limit{Max: 900, Window: time.Minute}, Remaining: 400, ResetIn: time.Second},
				Concurrent: ratelimit.State{Limit: ratelimit.Limit{Max: 2}, Remaining: 1},
			},
			`{"api_key":"sk-lgw_...wxyz","limit":30,"window_seconds":60,"current_count":0,"remaining":30,"storage":"memory","key_id":"key_1","reset_seconds":0,"tokens":{"limit":900,"window_seconds":60,"remaining":400,"reset_seconds":1},"concurrent":{"limit":2,"remaining":1}}`,
		},
	} {
		limits := &peeking{decision: c.decision}
		if w, body := askRateLimit(t, limits, "Bearer good"); w.Code != 200 || body != c.want || len(limits.asked) != 1 || limits.asked[0] != "key_1" {
			t.Errorf("%s: %d %s, asked %v", c.name, w.Code, body, limits.asked)
		}
	}
}

func TestRateLimit_isForTheOwnerOfAKey(t *testing.T) {
	limits := &peeking{}
	w, body := askRateLimit(t, limits)
	if w.Code != 401 || w.Header().Get("Www-Authenticate") != "Bearer" || body != `{"detail":"no"}` || len(limits.asked) != 0 {
		t.Errorf("%d %v %s, asked %v", w.Code, w.Header(), body, limits.asked)
	}
	limits = &peeking{err: errors.New("secret detail")}
	if w, body := askRateLimit(t, limits, "Bearer good"); w.Code != 503 || w.Header().Get("Retry-After") == "" || strings.Contains(body, "secret") {
		t.Errorf("%d %s", w.Code, body)
	}
}
