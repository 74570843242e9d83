package billing

import (
	"cmp"
	"slices"
	"time"
)

// priceList is all prices, in memory. It is never changed: a new list takes its
// place.
type priceList struct {
	byID     map[int64]*Price
	patterns []datedPrices // the most exact first
}

// datedPrices are the prices of one pattern, the newest first.
type datedPrices struct {
	pattern string
	prices  []*Price
}

func newPriceList(prices []Price) *priceList {
	l := &priceList{byID: make(map[int64]*Price, len(prices))}
	at := map[string]int{}
	for i := range prices {
		p := &prices[i]
		l.byID[p.ID] = p
		n, known := at[p.Model]
		if !known {
			n = len(l.patterns)
			at[p.Model] = n
			l.patterns = append(l.patterns, datedPrices{pattern: p.Model})
		}
		l.patterns[n].prices = append(l.patterns[n].prices, p)
	}
	for _, d := range l.patterns {
		slices.SortFunc(d.prices, func(a, b *Price) int {
			return cmp.Or(b.ValidFrom.Compare(a.ValidFrom), cmp.Compare(b.ID, a.ID))
		})
	}
	slices.SortFunc(l.patterns, func(a, b datedPrices) int {
		return cmp.Or(cmp.Compare(exactness(b.pattern), exactness(a.pattern)), cmp.Compare(a.pattern, b.pattern))
	})
	return l
}

// at is the price of a model at an instant: of the most exact pattern that
// matches and has one, the newest that is in force. nil = the model has none.
func (l *priceList) at(model string, t time.Time) *Price {
	for _, d := range l.patterns {
		if !ModelMatches(d.pattern, model) {
			continue
		}
		for _, p := range d.prices {
			if p.ValidFrom.After(t) {
				continue
			}
			if p.Ends() {
				break // a less exact pattern may have one
			}
			return p
		}
	}
	return nil
}
