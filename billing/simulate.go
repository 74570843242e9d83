package billing

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"gorm.io/gorm"
)

// Simulation is what some days would have cost at other prices.
type Simulation struct {
	Rows  []SimulatedRow `json:"rows"` // by key, then model
	Total SimulatedRow   `json:"total"`
}

// SimulatedRow sums the charges of a key and a model.
type SimulatedRow struct {
	KeyID            string `json:"key_id,omitempty"`
	Model            string `json:"model,omitempty"`
	Requests         int64  `json:"requests"`
	TotalTokens      int64  `json:"total_tokens"`
	Charged          Money  `json:"charged"`           // what the books say
	Simulated        Money  `json:"simulated"`         // what it would have been
	Difference       Money  `json:"difference"`        // simulated - charged
	UnpricedRequests int64  `json:"unpriced_requests"` // for which the other list has no price
}

// add takes a charge in. Sums beyond an int64 fail.
func (r *SimulatedRow) add(c *charge, simulated Money, unpriced bool) error {
	if c.Kind == kindCharge {
		r.Requests++
		if unpriced {
			r.UnpricedRequests++
		}
	}
	r.TotalTokens += c.Total
	r.Charged += Money(c.Cost)
	r.Simulated += simulated
	r.Difference = r.Simulated - r.Charged
	if r.Charged < 0 || r.Simulated < 0 || r.TotalTokens < 0 {
		return fmt.Errorf("%w: the sum is larger than can be counted: ask for fewer days", ErrInvalid)
	}
	return nil
}

// Simulate reckons the charges of some days at other prices; the books stay as
// they are. Each charge is priced by itself, as it would have been, at the price
// that the list has at its admission; a zero ValidFrom has always been in force.
// From and To are UTC days, inclusive, "" = open. Errors: ErrUnknownKey;
// ErrInvalid for a price or a day that cannot be.
func (a *Admin) Simulate(ctx context.Context, prices []Price, q UsageQuery) (Simulation, error) {
	s, err := a.simulate(ctx, prices, q)
	if err != nil {
		return Simulation{}, fmt.Errorf("simulate: %w", err)
	}
	return s, nil
}

func (a *Admin) simulate(ctx context.Context, prices []Price, q UsageQuery) (Simulation, error) {
	s := Simulation{Rows: []SimulatedRow{}}
	for i := range prices {
		prices[i].ID = int64(i) + 1 // of equal beginnings the later one
		if err := prices[i].validate(); err != nil {
			return s, fmt.Errorf("price of %q: %w", prices[i].Model, err)
		}
	}
	list := newPriceList(prices)
	type keyModel struct{ key, model string }
	rows := map[keyModel]*SimulatedRow{}
	err := a.store.view(ctx, func(tx *gorm.DB) error {
		db, err := a.chargesIn(tx, q)
		if err != nil {
			return err
		}
		found, err := db.Select(chargeColumns).Rows()
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var c charge
			if err := found.Scan(c.pointers()...); err != nil {
				return err
			}
			price, cost := list.at(c.Model, instant(c.AdmittedAt)), Money(0)
			if price != nil {
				cost = price.Cost(c.Tokens)
			}
			at := keyModel{c.KeyID, c.Model}
			if rows[at] == nil {
				rows[at] = &SimulatedRow{KeyID: c.KeyID, Model: c.Model}
			}
			for _, r := range []*SimulatedRow{rows[at], &s.Total} {
				if err := r.add(&c, cost, price == nil); err != nil {
					return err
				}
			}
		}
		return found.Err()
	})
	if err != nil {
		return s, err
	}
	keys := slices.SortedFunc(maps.Keys(rows), func(a, b keyModel) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.model, b.model))
	})
	for _, k := range keys {
		s.Rows = append(s.Rows, *rows[k])
	}
	return s, nil
}

// chargesIn selects the charges of a query.
func (a *Admin) chargesIn(tx *gorm.DB, q UsageQuery) (*gorm.DB, error) {
	keyID := ""
	if q.KeyRef != "" {
		row, err := a.row(tx, q.KeyRef)
		if err != nil {
			return nil, err
		}
		keyID = row.ID
	}
	return chargesOfDays(tx, keyID, q)
}
