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

	TariffDistribution map[string]TariffShare `json:"tariff_distribution" doc:"The active keys by the name of their tariff; custom: none, but a limit of their own; default: neither."`
}

// TariffShare is the active keys of one tariff.
type TariffShare struct {
	Count       int64 `json:"count"`
	TotalTokens int64 `json:"total_tokens" doc:"Sum of their limits per month, at most the largest 64-bit integer."`
	AvgTokens   int64 `json:"avg_tokens" doc:"Rounded down."`
}

// shareOf names the share that a key is counted in.
func shareOf(k *KeyView) string {
	switch {
	case k.Tariff != nil:
		return *k.Tariff
	case k.LimitSource == sourceOwn:
		return "custom"
	}
	return "default"
}

// Stats sums up keys.
func Stats(keys []KeyView) StatsView {
	s := StatsView{TariffDistribution: map[string]TariffShare{}}
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
		share := s.TariffDistribution[shareOf(k)]
		share.Count++
		share.TotalTokens = addCapped(share.TotalTokens, k.Limit)
		share.AvgTokens = share.TotalTokens / share.Count
		s.TariffDistribution[shareOf(k)] = share
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

// TariffSize is one size of tariff, named or not, and how many active keys have it.
type TariffSize struct {
	Limit   int64 `json:"limit" doc:"Tokens per UTC month."`
	Keys    int64 `json:"keys" doc:"Active keys with this limit, by whatever name."`
	Default bool  `json:"default" doc:"Whether keys have it that set none of their own."`
}

// Sizes counts the active keys by the size of their tariff, smallest first. The
// default is in it without any key too.
func (d Defaults) Sizes(keys []KeyView) []TariffSize {
	count := map[int64]int64{d.Tariff: 0}
	for i := range keys {
		if keys[i].State == StateActive {
			count[keys[i].Limit]++
		}
	}
	list := make([]TariffSize, 0, len(count))
	for limit, n := range count {
		list = append(list, TariffSize{Limit: limit, Keys: n, Default: limit == d.Tariff})
	}
	slices.SortFunc(list, func(x, y TariffSize) int { return cmp.Compare(x.Limit, y.Limit) })
	return list
}
