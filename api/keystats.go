package api

import (
	"cmp"
	"slices"
)

// StatsView sums up all keys. Limits are those of keys that can be used.
type StatsView struct {
	TotalKeys     int64 `json:"total_keys"`
	ActiveKeys    int64 `json:"active_keys"`
	RevokedKeys   int64 `json:"revoked_keys"`
	ExpiredKeys   int64 `json:"expired_keys"`
	BlockedKeys   int64 `json:"blocked_keys"`
	TotalTokens   int64 `json:"total_tokens" doc:"Sum of the active keys' limits per month, at most the largest 64-bit integer."`
	AvgTokens     int64 `json:"avg_tokens" doc:"Average limit of the active keys, rounded down."`
	MinTokens     int64 `json:"min_tokens"`
	MaxTokens     int64 `json:"max_tokens"`
	UsedToday     int64 `json:"used_today"`
	UsedMonth     int64 `json:"used_month"`
	Held          int64 `json:"held"`
	RequestsToday int64 `json:"requests_today"`
	RequestsMonth int64 `json:"requests_month"`
}

// Stats sums up keys.
func Stats(keys []KeyView) StatsView {
	var s StatsView
	for i := range keys {
		k := &keys[i]
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
		case StateBlocked:
			s.BlockedKeys++
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

// TariffView is one tariff and how many active keys have it.
type TariffView struct {
	Limit   int64 `json:"limit" doc:"Tokens per UTC month."`
	Keys    int64 `json:"keys" doc:"Active keys with this tariff."`
	Default bool  `json:"default" doc:"Whether keys have it that set none of their own."`
}

// Tariffs counts the active keys by tariff, smallest first. The default is in
// it without any key too.
func (d Defaults) Tariffs(keys []KeyView) []TariffView {
	count := map[int64]int64{d.Tariff: 0}
	for i := range keys {
		if keys[i].State == StateActive {
			count[keys[i].Limit]++
		}
	}
	list := make([]TariffView, 0, len(count))
	for limit, n := range count {
		list = append(list, TariffView{Limit: limit, Keys: n, Default: limit == d.Tariff})
	}
	slices.SortFunc(list, func(x, y TariffView) int { return cmp.Compare(x.Limit, y.Limit) })
	return list
}
