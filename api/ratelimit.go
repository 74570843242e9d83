package api

import (
	"math"
	"net/http"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// rateLimitReport is the body of GET /rate-limit: the original's members, and
// what it could not tell.
type rateLimitReport struct {
	APIKey        string `json:"api_key"` // masked; "***" where the key is too short to show any of it
	Limit         int64  `json:"limit"`   // requests per window
	WindowSeconds int64  `json:"window_seconds"`
	CurrentCount  int64  `json:"current_count"`
	Remaining     int64  `json:"remaining"`
	Storage       string `json:"storage"` // "redis" or "memory"

	KeyID        string           `json:"key_id"`
	ResetSeconds int64            `json:"reset_seconds"` // until the window is empty, rounded up
	Tokens       *rateLimitTokens `json:"tokens"`        // null = no limit of tokens per minute
	Concurrent   *rateLimitAtOnce `json:"concurrent"`    // null = no limit of running requests
}

type rateLimitTokens struct {
	Limit         int64 `json:"limit"`
	WindowSeconds int64 `json:"window_seconds"`
	Remaining     int64 `json:"remaining"`
	ResetSeconds  int64 `json:"reset_seconds"`
}

type rateLimitAtOnce struct {
	Limit     int64 `json:"limit"`
	Remaining int64 `json:"remaining"`
}

// rateLimit tells the caller where its key stands. It counts nothing.
func rateLimit(o Options) func(http.ResponseWriter, *http.Request, billing.Key) {
	return func(w http.ResponseWriter, r *http.Request, key billing.Key) {
		d, err := o.Limits.Peek(r.Context(), key.ID, o.LimitsOf(key))
		if err != nil {
			writeReport(w, unavailable())
			return
		}
		writeJSON(w, http.StatusOK, reportOf(key, d))
	}
}

func reportOf(key billing.Key, d ratelimit.Decision) rateLimitReport {
	out := rateLimitReport{
		APIKey: key.Display, KeyID: key.ID,
		Limit: d.Requests.Limit.Max, WindowSeconds: wholeSeconds(d.Requests.Limit.Window),
		Remaining: max(0, d.Requests.Remaining), ResetSeconds: wholeSeconds(d.Requests.ResetIn), Storage: d.Storage,
	}
	out.CurrentCount = out.Limit - out.Remaining
	if out.APIKey == "" {
		out.APIKey = "***"
	}
	if t := d.Tokens; t.Limit.Max > 0 {
		out.Tokens = &rateLimitTokens{
			Limit: t.Limit.Max, WindowSeconds: wholeSeconds(t.Limit.Window),
			Remaining: max(0, t.Remaining), ResetSeconds: wholeSeconds(t.ResetIn),
		}
	}
	if c := d.Concurrent; c.Limit.Max > 0 {
		out.Concurrent = &rateLimitAtOnce{Limit: c.Limit.Max, Remaining: max(0, c.Remaining)}
	}
	return out
}

func wholeSeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
