package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
)

// States of a key, as they are shown.
const (
	stateActive  = "active"
	stateRevoked = "revoked"
	stateExpired = "expired"
)

// limitsView is what bounds a key: its own figures, else the gateway's defaults.
type limitsView struct {
	Limit   int64 `json:"limit"`   // tokens per month by tariff
	Daily   int64 `json:"daily"`   // tokens per day
	Monthly int64 `json:"monthly"` // tokens per month
	RPM     int64 `json:"rpm"`     // requests per minute of its own; 0: the gateway's window applies
	// Of its own, else the gateway's; 0: no such limit.
	TPM        int64 `json:"tpm"`        // tokens per minute
	Concurrent int64 `json:"concurrent"` // requests that run at once
}

func viewLimits(k billing.Key, c Config) limitsView {
	return limitsView{
		Limit:   cmp.Or(k.Own.Tariff, c.Limits.Tariff),
		Daily:   cmp.Or(k.Own.Daily, c.Limits.Daily),
		Monthly: cmp.Or(k.Own.Monthly, c.Limits.Monthly),
		RPM:     k.RPM,

		TPM:        cmp.Or(k.TPM, c.Limits.TokensPerMinute),
		Concurrent: cmp.Or(k.Concurrent, c.Limits.Concurrent),
	}
}

// keyView is a key in list-keys and show-key. The secret is not in it.
type keyView struct {
	ID          string `json:"id"`
	Display     string `json:"display"`
	Name        string `json:"name"`
	Description string `json:"description"`
	State       string `json:"state"`
	Origin      string `json:"origin"`
	limitsView
	UsedToday     int64    `json:"used_today"` // tokens
	UsedMonth     int64    `json:"used_month"` // tokens
	Held          int64    `json:"held"`       // tokens of requests that are running
	RequestsToday int64    `json:"requests_today"`
	RequestsMonth int64    `json:"requests_month"`
	Models        []string `json:"models"` // empty: all
	CreatedAt     *instant `json:"created_at"`
	ExpiresAt     *instant `json:"expires_at"`
	RevokedAt     *instant `json:"revoked_at"`
}

func viewKey(k billing.KeyUsage, c Config, now time.Time) keyView {
	return keyView{
		ID: k.ID, Display: k.Display, Name: k.Name, Description: k.Description,
		State: stateOf(k.Key, now), Origin: k.Origin,
		limitsView: viewLimits(k.Key, c),
		UsedToday:  k.UsedToday, UsedMonth: k.UsedMonth, Held: k.Held,
		RequestsToday: k.RequestsToday, RequestsMonth: k.RequestsMonth,
		Models:    modelsOf(k.Key),
		CreatedAt: instantOrNil(k.CreatedAt), ExpiresAt: instantOrNil(k.ExpiresAt), RevokedAt: instantOrNil(k.RevokedAt),
	}
}

// modelsOf is never nil: a list in every document, for those who count it.
func modelsOf(k billing.Key) []string { return append([]string{}, k.Models...) }

func stateOf(k billing.Key, now time.Time) string {
	switch {
	case !k.RevokedAt.IsZero():
		return stateRevoked
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return stateExpired
	}
	return stateActive
}

// pairs are the facts of one key for a person.
func (v keyView) pairs(c Config) []pair {
	facts := []pair{
		{"id", v.ID},
		{"key", v.Display},
		{"name", v.Name},
		{"description", v.Description},
		{"state", v.State},
		{"limit", thousands(v.Limit) + " tokens per month"},
		{"daily", thousands(v.Daily) + " tokens per day"},
		{"monthly", thousands(v.Monthly) + " tokens per month"},
		{"requests", requestRate(v.RPM, c)},
		{"tokens", tokenRate(v.TPM, c)},
		{"at once", atOnce(v.Concurrent, c)},
		{"models", allOr(v.Models)},
		{"used today", fmt.Sprintf("%s tokens in %s requests", thousands(v.UsedToday), thousands(v.RequestsToday))},
		{"used this month", fmt.Sprintf("%s tokens in %s requests", thousands(v.UsedMonth), thousands(v.RequestsMonth))},
		{"held now", thousands(v.Held) + " tokens"},
		{"created", shown(v.CreatedAt, "")},
		{"expires", shown(v.ExpiresAt, "never")},
		{"revoked", shown(v.RevokedAt, "")},
	}
	return slices.DeleteFunc(facts, func(p pair) bool { return p.value == "" })
}

func requestRate(rpm int64, c Config) string {
	if rpm > 0 {
		return thousands(rpm) + " per minute"
	}
	return fmt.Sprintf("%s per %s (default)", thousands(c.Limits.Requests), shortDuration(c.Limits.Window))
}

// tokenRate and atOnce are "" where there is no such limit: most keys have none.
func tokenRate(tpm int64, c Config) string {
	if tpm = cmp.Or(tpm, c.Limits.TokensPerMinute); tpm > 0 {
		return thousands(tpm) + " per minute"
	}
	return ""
}

func atOnce(concurrent int64, c Config) string {
	if concurrent = cmp.Or(concurrent, c.Limits.Concurrent); concurrent > 0 {
		return thousands(concurrent) + " requests"
	}
	return ""
}

func allOr(models []string) string {
	if len(models) == 0 {
		return "all"
	}
	return strings.Join(models, ", ")
}

func shown(t *instant, none string) string {
	if t == nil {
		return none
	}
	return t.String()
}

// statsView sums up all keys. Limits are those of keys that can be used.
type statsView struct {
	TotalKeys     int64 `json:"total_keys"`
	ActiveKeys    int64 `json:"active_keys"`
	RevokedKeys   int64 `json:"revoked_keys"`
	ExpiredKeys   int64 `json:"expired_keys"`
	TotalTokens   int64 `json:"total_tokens"` // sum of the limits per month, at most the largest int64
	AvgTokens     int64 `json:"avg_tokens"`
	MinTokens     int64 `json:"min_tokens"`
	MaxTokens     int64 `json:"max_tokens"`
	UsedToday     int64 `json:"used_today"`
	UsedMonth     int64 `json:"used_month"`
	Held          int64 `json:"held"`
	RequestsToday int64 `json:"requests_today"`
	RequestsMonth int64 `json:"requests_month"`
}

func viewStats(keys []keyView) statsView {
	var s statsView
	for _, k := range keys {
		s.TotalKeys++
		s.UsedToday += k.UsedToday
		s.UsedMonth += k.UsedMonth
		s.Held += k.Held
		s.RequestsToday += k.RequestsToday
		s.RequestsMonth += k.RequestsMonth
		switch k.State {
		case stateRevoked:
			s.RevokedKeys++
			continue
		case stateExpired:
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

func (s statsView) pairs() []pair {
	return []pair{
		{"keys", fmt.Sprintf("%s (%s active, %s revoked, %s expired)", thousands(s.TotalKeys),
			thousands(s.ActiveKeys), thousands(s.RevokedKeys), thousands(s.ExpiredKeys))},
		{"limits in all", thousands(s.TotalTokens) + " tokens per month"},
		{"average limit", thousands(s.AvgTokens)},
		{"smallest limit", thousands(s.MinTokens)},
		{"largest limit", thousands(s.MaxTokens)},
		{"used today", fmt.Sprintf("%s tokens in %s requests", thousands(s.UsedToday), thousands(s.RequestsToday))},
		{"used this month", fmt.Sprintf("%s tokens in %s requests", thousands(s.UsedMonth), thousands(s.RequestsMonth))},
		{"held now", thousands(s.Held) + " tokens"},
	}
}

// addCapped adds two figures >= 0 without going round.
func addCapped(a, b int64) int64 {
	const top = 1<<63 - 1
	if a > top-b {
		return top
	}
	return a + b
}
