package api

import (
	"cmp"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// The documents of the operator: the admin routes answer them, and the commands
// of the program print the same with --json.

// States of a key.
const (
	StateActive  = "active"
	StateRevoked = "revoked"
	StateExpired = "expired"
)

// Instant is a time in a document: RFC 3339 in UTC.
type Instant time.Time

// MarshalText implements [encoding.TextMarshaler].
func (t Instant) MarshalText() ([]byte, error) { return []byte(t.String()), nil } //nolint:unparam // the interface has an error

// String is the text of the instant.
func (t Instant) String() string { return time.Time(t).UTC().Format(time.RFC3339) }

// InstantOrNil is nil, which documents as null, for the zero time.
func InstantOrNil(t time.Time) *Instant {
	if t.IsZero() {
		return nil
	}
	at := Instant(t)
	return &at
}

// Defaults are what applies to a key that sets nothing of its own.
type Defaults struct {
	Budgets billing.Limits
	Rates   ratelimit.Limits
}

// LimitsView is what bounds a key: its own figures, else the gateway's defaults.
type LimitsView struct {
	Limit      int64 `json:"limit" doc:"Tokens per month by tariff."`
	Daily      int64 `json:"daily" doc:"Tokens per day."`
	Monthly    int64 `json:"monthly" doc:"Tokens per month."`
	RPM        int64 `json:"rpm" doc:"Requests per minute of its own; 0: the gateway's window applies."`
	TPM        int64 `json:"tpm" doc:"Tokens per minute, its own or the gateway's; 0: no such limit."`
	Concurrent int64 `json:"concurrent" doc:"Requests that run at once, its own or the gateway's; 0: no such limit."`
}

// ViewLimits fills in the defaults.
func ViewLimits(k billing.Key, d Defaults) LimitsView {
	return LimitsView{
		Limit: cmp.Or(k.Own.Tariff, d.Budgets.Tariff), Daily: cmp.Or(k.Own.Daily, d.Budgets.Daily), Monthly: cmp.Or(k.Own.Monthly, d.Budgets.Monthly),
		RPM: k.RPM, TPM: cmp.Or(k.TPM, d.Rates.Tokens.Max), Concurrent: cmp.Or(k.Concurrent, d.Rates.Concurrent),
	}
}

// KeyView is a key. The secret is not in it.
type KeyView struct {
	ID          string `json:"id"`
	Display     string `json:"display" doc:"The key, masked; empty for keys too short to show any of it."`
	Name        string `json:"name"`
	Description string `json:"description"`
	State       string `json:"state" enum:"active,revoked,expired"`
	Origin      string `json:"origin" doc:"created, env (listed in ALLOWED_API_KEYS) or demo."`
	LimitsView
	UsedToday     int64    `json:"used_today" doc:"Tokens."`
	UsedMonth     int64    `json:"used_month" doc:"Tokens."`
	Held          int64    `json:"held" doc:"Tokens of requests that are running."`
	RequestsToday int64    `json:"requests_today"`
	RequestsMonth int64    `json:"requests_month"`
	Models        []string `json:"models" nullable:"false" doc:"Allowed models; empty: all."`
	CreatedAt     *Instant `json:"created_at"`
	ExpiresAt     *Instant `json:"expires_at"`
	RevokedAt     *Instant `json:"revoked_at"`
}

// TransformSchema says that instants are texts and may be null.
func (KeyView) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema { return instants(s) }

func instants(s *huma.Schema) *huma.Schema {
	for _, name := range []string{"created_at", "expires_at", "revoked_at"} {
		if s.Properties[name] != nil {
			s.Properties[name] = &huma.Schema{OneOf: []*huma.Schema{{Type: huma.TypeString, Format: "date-time"}, {Type: "null"}}}
		}
	}
	return s
}

// ViewKey shows a key with its figures.
func ViewKey(k billing.KeyUsage, d Defaults, now time.Time) KeyView {
	return KeyView{
		ID: k.ID, Display: k.Display, Name: k.Name, Description: k.Description,
		State: stateOf(k.Key, now), Origin: k.Origin,
		LimitsView: ViewLimits(k.Key, d),
		UsedToday:  k.UsedToday, UsedMonth: k.UsedMonth, Held: k.Held,
		RequestsToday: k.RequestsToday, RequestsMonth: k.RequestsMonth,
		Models:    ModelsOf(k.Key),
		CreatedAt: InstantOrNil(k.CreatedAt), ExpiresAt: InstantOrNil(k.ExpiresAt), RevokedAt: InstantOrNil(k.RevokedAt),
	}
}

// ViewKeys shows keys, largest limit first, then oldest first.
func ViewKeys(keys []billing.KeyUsage, d Defaults, now time.Time) []KeyView {
	views := make([]KeyView, 0, len(keys))
	for _, k := range keys {
		views = append(views, ViewKey(k, d, now))
	}
	slices.SortStableFunc(views, func(x, y KeyView) int {
		return cmp.Or(cmp.Compare(y.Limit, x.Limit), cmp.Compare(x.ID, y.ID))
	})
	return views
}

// ModelsOf is never nil: a list in every document, for those who count it.
func ModelsOf(k billing.Key) []string { return append([]string{}, k.Models...) }

func stateOf(k billing.Key, now time.Time) string {
	switch {
	case !k.RevokedAt.IsZero():
		return StateRevoked
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return StateExpired
	}
	return StateActive
}

// CreatedView is a new key, the only document that shows a secret.
type CreatedView struct {
	ID          string `json:"id"`
	Key         string `json:"key" doc:"The key itself. It is shown this once and stored nowhere."`
	Name        string `json:"name"`
	Description string `json:"description"`
	LimitsView
	Models    []string `json:"models" nullable:"false" doc:"Allowed models; empty: all."`
	ExpiresAt *Instant `json:"expires_at"`
	CreatedAt *Instant `json:"created_at"`
}

// TransformSchema says that instants are texts and may be null.
func (CreatedView) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema { return instants(s) }

// ViewCreated shows a new key with its secret.
func ViewCreated(k billing.Key, secret string, d Defaults) CreatedView {
	return CreatedView{
		ID: k.ID, Key: secret, Name: k.Name, Description: k.Description, LimitsView: ViewLimits(k, d),
		Models: ModelsOf(k), ExpiresAt: InstantOrNil(k.ExpiresAt), CreatedAt: InstantOrNil(k.CreatedAt),
	}
}

// StatsView sums up all keys. Limits are those of keys that can be used.
type StatsView struct {
	TotalKeys     int64 `json:"total_keys"`
	ActiveKeys    int64 `json:"active_keys"`
	RevokedKeys   int64 `json:"revoked_keys"`
	ExpiredKeys   int64 `json:"expired_keys"`
	TotalTokens   int64 `json:"total_tokens" doc:"Sum of the limits per month, at most the largest 64-bit number."`
	AvgTokens     int64 `json:"avg_tokens"`
	MinTokens     int64 `json:"min_tokens"`
	MaxTokens     int64 `json:"max_tokens"`
	UsedToday     int64 `json:"used_today"`
	UsedMonth     int64 `json:"used_month"`
	Held          int64 `json:"held"`
	RequestsToday int64 `json:"requests_today"`
	RequestsMonth int64 `json:"requests_month"`
}

// ViewStats sums up keys.
func ViewStats(keys []KeyView) StatsView {
	var s StatsView
	for _, k := range keys {
		s.TotalKeys++
		s.UsedToday += k.UsedToday
		s.UsedMonth += k.UsedMonth
		s.Held += k.Held
		s.RequestsToday += k.RequestsToday
		s.RequestsMonth += k.RequestsMonth
		switch k.State {
		case StateRevoked:
			s.RevokedKeys++
			continue
		case StateExpired:
			s.ExpiredKeys++
			continue
		}
		if s.ActiveKeys == 0 || k.Limit < s.MinTokens {
			s.MinTokens = k.Limit
		}
		s.MaxTokens = max(s.MaxTokens, k.Limit)
		s.ActiveKeys++
		s.TotalTokens = addCapped(s.TotalTokens, k.Limit)
	}
	if s.ActiveKeys > 0 {
		s.AvgTokens = s.TotalTokens / s.ActiveKeys
	}
	return s
}

// addCapped adds two figures >= 0 without going round.
func addCapped(a, b int64) int64 {
	const top = 1<<63 - 1
	if a > top-b {
		return top
	}
	return a + b
}

// UsageView is a row of a usage document; a column that was not asked for is
// not in it.
type UsageView struct {
	Day              *string                      `json:"day,omitempty" nullable:"false"`
	KeyID            *string                      `json:"key_id,omitempty" nullable:"false"`
	Model            *string                      `json:"model,omitempty" nullable:"false"`
	PromptTokens     int64                        `json:"prompt_tokens"`
	CompletionTokens int64                        `json:"completion_tokens"`
	TotalTokens      int64                        `json:"total_tokens"`
	Requests         int64                        `json:"requests"`
	Provenance       map[billing.Provenance]int64 `json:"provenance" doc:"Requests by where their count comes from."`
}

// UsageTableView is a usage document.
type UsageTableView struct {
	Rows  []UsageView `json:"rows" nullable:"false"`
	Total UsageView   `json:"total"`
}

// ViewUsage shows a report that was grouped by the given columns: any of "day",
// "key", "model".
func ViewUsage(t billing.UsageTable, by []string) UsageTableView {
	v := UsageTableView{Rows: make([]UsageView, 0, len(t.Rows)), Total: viewUsageRow(t.Total, nil)}
	for _, r := range t.Rows {
		v.Rows = append(v.Rows, viewUsageRow(r, by))
	}
	return v
}

func viewUsageRow(r billing.UsageRow, by []string) UsageView {
	v := UsageView{
		PromptTokens: r.PromptTokens, CompletionTokens: r.CompletionTokens, TotalTokens: r.TotalTokens,
		Requests: r.Requests, Provenance: make(map[billing.Provenance]int64, len(r.Provenance)),
	}
	for from, part := range r.Provenance {
		v.Provenance[from] = part.Requests
	}
	for _, column := range by {
		switch column {
		case "day":
			v.Day = &r.Day
		case "key":
			v.KeyID = &r.KeyID
		case "model":
			v.Model = &r.Model
		}
	}
	return v
}
