package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/MaksimVF/llm-gateway/api"
)

// keyDefaults are the limits of a key that sets none of its own.
func (c Config) keyDefaults() api.Defaults {
	return api.Defaults{
		Requests: c.Limits.Requests, Window: c.Limits.Window,
		Tariff: c.Limits.Tariff, Daily: c.Limits.Daily, Monthly: c.Limits.Monthly,
		TokensPerMinute: c.Limits.TokensPerMinute, Concurrent: c.Limits.Concurrent,
	}
}

// keyPairs are the facts of one key for a person.
func keyPairs(v *api.KeyView, c Config) []pair {
	facts := []pair{
		{"id", v.ID},
		{"key", v.Display},
		{"name", v.Name},
		{"description", v.Description},
		{"state", v.State},
		{"tariff", textOr(v.Tariff, "")},
		{"limit", thousands(v.Limit) + " tokens per month" + sourceNote(v)},
		{"daily", thousands(v.Daily) + " tokens per day"},
		{"monthly", thousands(v.Monthly) + " tokens per month"},
		{"budget", budgetText(v.Budget)},
		{"requests", requestRate(v.RPM, c)},
		{"tokens", tokenRate(v.TPM, c)},
		{"at once", atOnce(v.Concurrent, c)},
		{"models", allOr(v.Models)},
		{"used today", fmt.Sprintf("%s tokens in %s requests", thousands(v.UsedToday), thousands(v.RequestsToday))},
		{"used this month", fmt.Sprintf("%s tokens in %s requests", thousands(v.UsedMonth), thousands(v.RequestsMonth))},
		{"spent this month", spent(v)},
		{"held now", thousands(v.Held) + " tokens"},
		{"created", shown(v.CreatedAt, "")},
		{"last used", shown(v.LastUsedAt, "never")},
		{"expires", shown(v.ExpiresAt, "never")},
		{"blocked", shown(v.BlockedAt, "")},
		{"revoked", shown(v.RevokedAt, "")},
	}
	return slices.DeleteFunc(facts, func(p pair) bool { return p.value == "" })
}

// sourceNote says that a limit beside a tariff is the key's own.
func sourceNote(v *api.KeyView) string {
	if v.Tariff != nil && v.LimitSource == "own" {
		return " (its own)"
	}
	return ""
}

func budgetText(budget *string) string {
	if budget == nil {
		return ""
	}
	return *budget + " per month"
}

// spent is "" where nothing costs anything.
func spent(v *api.KeyView) string {
	if v.SpentMonth == "0" && v.Budget == nil {
		return ""
	}
	return v.SpentMonth
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

func shown(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Format(time.RFC3339)
}

// statsPairs are the sums over all keys for a person.
func statsPairs(s *api.StatsView) []pair {
	pairs := []pair{
		{"keys", fmt.Sprintf("%s (%s active, %s blocked, %s revoked, %s expired)", thousands(s.TotalKeys),
			thousands(s.ActiveKeys), thousands(s.BlockedKeys), thousands(s.RevokedKeys), thousands(s.ExpiredKeys))},
		{"limits in all", thousands(s.TotalTokens) + " tokens per month"},
		{"average limit", thousands(s.AvgTokens)},
		{"smallest limit", thousands(s.MinTokens)},
		{"largest limit", thousands(s.MaxTokens)},
		{"used today", fmt.Sprintf("%s tokens in %s requests", thousands(s.UsedToday), thousands(s.RequestsToday))},
		{"used this month", fmt.Sprintf("%s tokens in %s requests", thousands(s.UsedMonth), thousands(s.RequestsMonth))},
		{"held now", thousands(s.Held) + " tokens"},
	}
	for _, name := range slices.Sorted(maps.Keys(s.TariffDistribution)) {
		share := s.TariffDistribution[name]
		pairs = append(pairs, pair{"tariff " + name, fmt.Sprintf("%s keys, %s tokens per month, %s on average",
			thousands(share.Count), thousands(share.TotalTokens), thousands(share.AvgTokens))})
	}
	return pairs
}
