package api

import (
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
)

// PriceView is one price. Amounts are decimal texts in units of the books'
// currency for a million tokens; null is "as the kind that it is a part of".
type PriceView struct {
	ID          int64      `json:"id" minimum:"1" doc:"The version that charges refer to."`
	Model       string     `json:"model" doc:"A model, or a pattern in which * stands for any text."`
	ValidFrom   *time.Time `json:"valid_from" doc:"To the microsecond: what was admitted before has another price."`
	State       string     `json:"state" enum:"in_force,future,past" doc:"in_force: it applies now, where no more exact pattern does."`
	Input       *string    `json:"input"`
	CachedRead  *string    `json:"cached_read" doc:"null: as input."`
	CacheWrite  *string    `json:"cache_write" doc:"null: as input."`
	Output      *string    `json:"output"`
	Reasoning   *string    `json:"reasoning" doc:"null: as output."`
	AudioInput  *string    `json:"audio_input" doc:"null: as input."`
	AudioOutput *string    `json:"audio_output" doc:"null: as output."`
	Ends        bool       `json:"ends" doc:"From valid_from on the pattern has no price."`
	CreatedAt   *time.Time `json:"created_at"`
}

// PriceListView is the document of the prices.
type PriceListView struct {
	Currency *string     `json:"currency" doc:"ISO 4217; null while there is no price."`
	Prices   []PriceView `json:"prices"`
}

// States of a price.
const (
	PriceInForce = "in_force"
	PriceFuture  = "future"
	PricePast    = "past"
)

// Prices is the document of prices at the given time, the oldest first; those
// that are over are in it with all only.
func Prices(l billing.PriceList, now time.Time, all bool) PriceListView {
	v := PriceListView{Prices: []PriceView{}}
	if l.Currency != "" {
		v.Currency = &l.Currency
	}
	inForce := map[int64]bool{}
	for _, p := range l.InForce(now) {
		inForce[p.ID] = true
	}
	for i := range l.Prices {
		p := &l.Prices[i]
		state := PricePast
		switch {
		case inForce[p.ID]:
			state = PriceInForce
		case p.ValidFrom.After(now):
			state = PriceFuture
		}
		if all || state != PricePast {
			v.Prices = append(v.Prices, viewPrice(p, state))
		}
	}
	return v
}

// AddedPrices is the document of prices that were just added.
func AddedPrices(currency string, added []billing.Price, now time.Time) PriceListView {
	return Prices(billing.PriceList{Currency: currency, Prices: added}, now, true)
}

func viewPrice(p *billing.Price, state string) PriceView {
	text := func(m *billing.Money) *string {
		if m == nil {
			return nil
		}
		s := m.String()
		return &s
	}
	// Not cut to seconds: a list that is read back as a price file has to say
	// the same of what was admitted within that second.
	from := p.ValidFrom.UTC()
	return PriceView{
		ID: p.ID, Model: p.Model, ValidFrom: &from, State: state,
		Input: text(p.Input), CachedRead: text(p.CachedRead), CacheWrite: text(p.CacheWrite), Output: text(p.Output),
		Reasoning: text(p.Reasoning), AudioInput: text(p.AudioInput), AudioOutput: text(p.AudioOutput),
		Ends: p.Ends(), CreatedAt: Moment(p.CreatedAt),
	}
}
