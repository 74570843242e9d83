package api

import (
	"math"
	"time"

	"github.com/danielgtaylor/huma/v2"

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
	Storage       string `json:"storage" enum:"redis,memory"`

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

// TransformSchema says that the optional limits may be null, which the library
// cannot read from a pointer to a struct.
func (rateLimitReport) TransformSchema(_ huma.Registry, schema *huma.Schema) *huma.Schema {
	for _, name := range []string{"tokens", "concurrent"} {
		p := schema.Properties[name]
		schema.Properties[name] = &huma.Schema{Description: p.Description, OneOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}}
	}
	return schema
}

func reportOf(key billing.Key, d ratelimit.Decision) rateLimitReport {
	out := rateLimitReport{
		APIKey: maskedKey(key), KeyID: key.ID,
		Limit: d.Requests.Limit.Max, WindowSeconds: wholeSeconds(d.Requests.Limit.Window),
		Remaining: max(0, d.Requests.Remaining), ResetSeconds: wholeSeconds(d.Requests.ResetIn), Storage: d.Storage,
	}
	out.CurrentCount = out.Limit - out.Remaining
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
