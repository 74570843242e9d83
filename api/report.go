package api

import (
	"cmp"
	"math"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// The bodies of the info routes. Names, nesting and types are the original
// gateway's; what it did not have is added beside them. Averages and percentages
// are rounded to two decimals. Days and months are UTC, figures are tokens.

// stampLayout is how the original wrote instants, always in UTC.
const stampLayout = "2006-01-02T15:04:05.000000+00:00"

func stamp(t time.Time) string { return t.UTC().Format(stampLayout) }

// maskedKey is how a key is shown to its owner.
func maskedKey(k billing.Key) string { return cmp.Or(k.Display, "***") }

func rounded(x float64) float64 { return math.Round(x*100) / 100 }

// usageSum is the sum of some requests.
type usageSum struct {
	TokensUsed          int64   `json:"tokens_used" minimum:"0"`
	RequestsCount       int64   `json:"requests_count" minimum:"0"`
	AvgTokensPerRequest float64 `json:"avg_tokens_per_request" minimum:"0" doc:"Rounded to two decimals, 0 without requests."`
}

func sumOf(d billing.DayUsage) usageSum {
	s := usageSum{TokensUsed: d.Tokens, RequestsCount: d.Requests}
	if d.Requests > 0 {
		s.AvgTokensPerRequest = rounded(float64(d.Tokens) / float64(d.Requests))
	}
	return s
}

// usageDay is a usageSum with its day. Its members are written out: the library
// documents embedded types only where their names are exported.
type usageDay struct {
	Date                string  `json:"date" format:"date"`
	TokensUsed          int64   `json:"tokens_used" minimum:"0"`
	RequestsCount       int64   `json:"requests_count" minimum:"0"`
	AvgTokensPerRequest float64 `json:"avg_tokens_per_request" minimum:"0" doc:"Rounded to two decimals."`
}

type usagePeriod struct {
	StartDate string `json:"start_date" format:"date"`
	EndDate   string `json:"end_date" format:"date"`
	Days      int    `json:"days" minimum:"1" maximum:"366"`
}

// usagePart is what came from one source.
type usagePart struct {
	TokensUsed    int64 `json:"tokens_used" minimum:"0"`
	RequestsCount int64 `json:"requests_count" minimum:"0"`
}

// provenanceSplit says where the figures of a sum come from.
type provenanceSplit struct {
	Reported  usagePart `json:"reported" doc:"The model server's own figure of a complete answer."`
	Estimated usagePart `json:"estimated" doc:"It stated none, or one that cannot be true."`
	Aborted   usagePart `json:"aborted" doc:"The answer ended early."`
	Recovered usagePart `json:"recovered" doc:"Posted after a crash from the last checkpoint."`
	Expired   usagePart `json:"expired" doc:"Found after a crash without a trace of an answer."`
}

func splitOf(parts map[billing.Provenance]billing.UsagePart) provenanceSplit {
	part := func(p billing.Provenance) usagePart {
		return usagePart{TokensUsed: parts[p].TotalTokens, RequestsCount: parts[p].Requests}
	}
	return provenanceSplit{
		Reported: part(billing.Reported), Estimated: part(billing.Estimated), Aborted: part(billing.Aborted),
		Recovered: part(billing.Recovered), Expired: part(billing.Expired),
	}
}

type billingUsage struct {
	APIKey         string          `json:"api_key" doc:"The caller's key, masked."`
	KeyID          string          `json:"key_id"`
	Period         usagePeriod     `json:"period"`
	Total          usageSum        `json:"total" doc:"Of the period."`
	Today          usageSum        `json:"today"`
	CurrentMonth   usageSum        `json:"current_month" doc:"The whole calendar month, also beyond the period."`
	DailyBreakdown []usageDay      `json:"daily_breakdown" nullable:"false" doc:"Days of the period with any use, newest first."`
	Provenance     provenanceSplit `json:"provenance" doc:"Of the period."`
}

func billingUsageOf(key billing.Key, r billing.KeyReport) billingUsage {
	u := billingUsage{
		APIKey: maskedKey(key), KeyID: key.ID,
		Period: usagePeriod{StartDate: r.From, EndDate: r.To, Days: daysBetween(r.From, r.To)},
		Total:  sumOf(r.Total), Today: sumOf(r.Today), CurrentMonth: sumOf(r.Month),
		DailyBreakdown: make([]usageDay, 0, len(r.Days)), Provenance: splitOf(r.Provenance),
	}
	for _, d := range r.Days {
		sum := sumOf(d)
		u.DailyBreakdown = append(u.DailyBreakdown, usageDay{d.Day, sum.TokensUsed, sum.RequestsCount, sum.AvgTokensPerRequest})
	}
	return u
}

// daysBetween counts the days of a period, both ends included.
func daysBetween(from, to string) int {
	first, err1 := time.Parse(time.DateOnly, from)
	last, err2 := time.Parse(time.DateOnly, to)
	if err1 != nil || err2 != nil {
		return 0 // the books wrote them
	}
	return int(last.Sub(first).Hours()/24) + 1
}

// budgetReport is one token budget.
type budgetReport struct {
	Limit          int64   `json:"limit" minimum:"1"`
	Used           int64   `json:"used" minimum:"0"`
	Remaining      int64   `json:"remaining" minimum:"0" doc:"Limit minus used, never below 0."`
	PercentageUsed float64 `json:"percentage_used" minimum:"0" doc:"Rounded to two decimals; above 100 after an overshoot."`
	Held           int64   `json:"held" minimum:"0" doc:"By requests that are running; comes back as far as it is not used."`
	ResetsAt       string  `json:"resets_at" doc:"When the period ends, UTC." example:"2026-12-01T00:00:00.000000+00:00"`
}

func budgetOf(limit int64, d billing.DayUsage, resetsAt time.Time) budgetReport {
	return budgetReport{
		Limit: limit, Used: d.Tokens, Remaining: max(0, limit-d.Tokens), PercentageUsed: percentage(d.Tokens, limit),
		Held: d.Held, ResetsAt: stamp(resetsAt),
	}
}

func percentage(used, limit int64) float64 {
	if limit <= 0 {
		return 0
	}
	return rounded(float64(used) / float64(limit) * 100)
}

// limitsReport is the body of GET /limits.
type limitsReport struct {
	APIKey  string       `json:"api_key" doc:"The caller's key, masked."`
	KeyID   string       `json:"key_id"`
	Daily   budgetReport `json:"daily"`
	Monthly budgetReport `json:"monthly"`
	Money   *moneyReport `json:"money" doc:"null: the key has no budget of money."`
}

// TransformSchema says that the budget of money may be null, which the library
// cannot tell of an object.
func (limitsReport) TransformSchema(_ huma.Registry, schema *huma.Schema) *huma.Schema {
	p := schema.Properties["money"]
	schema.Properties["money"] = &huma.Schema{Description: p.Description, OneOf: []*huma.Schema{{Ref: p.Ref}, {Type: "null"}}}
	return schema
}

// moneyReport is the budget of money. Amounts are exact: decimal texts in units
// of the books' currency.
type moneyReport struct {
	Limit     string `json:"limit" example:"25.5"`
	Used      string `json:"used" example:"0.0001625"`
	Remaining string `json:"remaining" doc:"Limit minus used, never below 0."`
	Held      string `json:"held" doc:"By requests that are running."`
	ResetsAt  string `json:"resets_at" doc:"When the month ends, UTC."`
}

func moneyOf(limit int64, month billing.DayUsage, resetsAt time.Time) *moneyReport {
	if limit <= 0 {
		return nil
	}
	budget := billing.Money(limit)
	return &moneyReport{
		Limit: budget.String(), Used: month.Spent.String(), Remaining: max(0, budget-month.Spent).String(),
		Held: month.Reserved.String(), ResetsAt: stamp(resetsAt),
	}
}

func limitsOf(key billing.Key, l billing.Limits, a billing.KeyAccount) limitsReport {
	return limitsReport{
		APIKey: maskedKey(key), KeyID: key.ID,
		Daily: budgetOf(l.Daily, a.Today, a.DayResetAt), Monthly: budgetOf(l.Monthly, a.Month, a.MonthResetAt),
		Money: moneyOf(l.Money, a.Month, a.MonthResetAt),
	}
}

type tariffTerms struct {
	MaxTokens   int64  `json:"max_tokens" minimum:"1" doc:"Tokens per calendar month."`
	Name        string `json:"name"`
	Description string `json:"description"`
	APIKey      string `json:"api_key" doc:"The caller's key, masked."`
}

// termsOf names a key's tariff: the named one that it has, its own, or the
// gateway's default one.
func termsOf(key billing.Key, l billing.Limits) tariffTerms {
	t := tariffTerms{MaxTokens: l.Tariff, Name: "Default", Description: "The gateway's default tariff", APIKey: maskedKey(key)}
	switch {
	case key.Plan != nil:
		t.Name, t.Description = titled(key.Plan.Name), key.Plan.Description
	case key.Own.Tariff > 0:
		t.Name, t.Description = cmp.Or(key.Name, "Custom"), cmp.Or(key.Description, "A tariff of its own")
	}
	return t
}

// titled writes each word of a tariff's name with a capital, as the original did.
func titled(name string) string {
	words := strings.Split(name, "-")
	for i, word := range words {
		if word != "" {
			words[i] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "-")
}

type tariffUse struct {
	UsedTokens      int64   `json:"used_tokens" minimum:"0"`
	RemainingTokens int64   `json:"remaining_tokens" minimum:"0"`
	UsagePercentage float64 `json:"usage_percentage" minimum:"0"`
	HeldTokens      int64   `json:"held_tokens" minimum:"0"`
	ResetsAt        string  `json:"resets_at"`
}

// tariffReport is the body of GET /tariff.
type tariffReport struct {
	Tariff tariffTerms `json:"tariff"`
	Usage  tariffUse   `json:"usage"`
	KeyID  string      `json:"key_id"`
}

func tariffOf(key billing.Key, l billing.Limits, a billing.KeyAccount) tariffReport {
	b := budgetOf(l.Tariff, a.Month, a.MonthResetAt)
	return tariffReport{
		Tariff: termsOf(key, l), KeyID: key.ID,
		Usage: tariffUse{UsedTokens: b.Used, RemainingTokens: b.Remaining, UsagePercentage: b.PercentageUsed, HeldTokens: b.Held, ResetsAt: b.ResetsAt},
	}
}

// trackerReport is the original's second ledger. Here there is one: its figure is
// the tariff month's, and storage_type says where the rate limits are now.
type trackerReport struct {
	APIKey      string `json:"api_key"`
	UsedTokens  int64  `json:"used_tokens" minimum:"0"`
	LastUpdated string `json:"last_updated" doc:"Of the newest charge; now, when there is none."`
	StorageType string `json:"storage_type" enum:"redis,memory"`
}

// usageReport is the body of GET /usage.
type usageReport struct {
	Billing struct {
		Usage  billingUsage `json:"usage"`
		Limits limitsReport `json:"limits"`
	} `json:"billing"`
	Tracker   trackerReport   `json:"tracker"`
	Tariff    tariffTerms     `json:"tariff"`
	RateLimit rateLimitReport `json:"rate_limit"`
	Rows      []usageRow      `json:"rows" nullable:"false" doc:"With group_by: one for each group. Else empty."`
}

// usageRow is one group of GET /usage?group_by=...
type usageRow struct {
	Day              string          `json:"day,omitempty"`
	Model            string          `json:"model,omitempty"`
	PromptTokens     int64           `json:"prompt_tokens" minimum:"0"`
	CompletionTokens int64           `json:"completion_tokens" minimum:"0"`
	TotalTokens      int64           `json:"total_tokens" minimum:"0"`
	Requests         int64           `json:"requests" minimum:"0"`
	Cost             string          `json:"cost" doc:"Exact: a decimal text in units of the books' currency."`
	Provenance       provenanceSplit `json:"provenance"`
}

func rowsOf(t billing.UsageTable) []usageRow {
	rows := make([]usageRow, 0, len(t.Rows))
	for _, r := range t.Rows {
		rows = append(rows, usageRow{
			Day: r.Day, Model: r.Model, PromptTokens: r.PromptTokens, CompletionTokens: r.CompletionTokens,
			TotalTokens: r.TotalTokens, Requests: r.Requests, Cost: r.Cost.String(), Provenance: splitOf(r.Provenance),
		})
	}
	return rows
}

// keyReport is the body of GET /api/v1/key, whose shape OpenRouter made known
// and many programs read. Its amounts are tokens, not money.
type keyReport struct {
	Data keyData `json:"data"`
}

type keyData struct {
	Label          string      `json:"label" doc:"The caller's key, masked."`
	KeyID          string      `json:"key_id"`
	Name           string      `json:"name"`
	Usage          int64       `json:"usage" minimum:"0" doc:"Tokens used in the current month."`
	UsageDaily     int64       `json:"usage_daily" minimum:"0"`
	UsageMonthly   int64       `json:"usage_monthly" minimum:"0"`
	Limit          int64       `json:"limit" minimum:"1" doc:"Tokens per month by the tariff."`
	LimitRemaining int64       `json:"limit_remaining" minimum:"0"`
	LimitReset     string      `json:"limit_reset" enum:"monthly"`
	IsFreeTier     bool        `json:"is_free_tier"`
	ExpiresAt      *string     `json:"expires_at" doc:"When the key ends, null = never."`
	RateLimit      keyInterval `json:"rate_limit"`
}

type keyInterval struct {
	Requests int64  `json:"requests" minimum:"1"`
	Interval string `json:"interval" example:"60s"`
}

func keyReportOf(key billing.Key, l billing.Limits, a billing.KeyAccount, window ratelimit.Limit) keyReport {
	d := keyData{
		Label: maskedKey(key), KeyID: key.ID, Name: key.Name,
		Usage: a.Month.Tokens, UsageDaily: a.Today.Tokens, UsageMonthly: a.Month.Tokens,
		Limit: l.Tariff, LimitRemaining: max(0, l.Tariff-a.Month.Tokens), LimitReset: "monthly",
		RateLimit: keyInterval{Requests: window.Max, Interval: intervalOf(window.Window)},
	}
	if !key.ExpiresAt.IsZero() {
		at := stamp(key.ExpiresAt)
		d.ExpiresAt = &at
	}
	return keyReport{Data: d}
}
