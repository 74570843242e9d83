package billing

import (
	"cmp"
	"fmt"
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
	for i := range l.patterns {
		d := &l.patterns[i]
		if !ModelMatches(d.pattern, model) {
			continue
		}
		if p := d.at(t); p != nil {
			return p
		}
	}
	return nil
}

// at is the pattern's price at an instant, nil for none: then a less exact
// pattern may have one.
func (d *datedPrices) at(t time.Time) *Price {
	for _, p := range d.prices {
		if p.ValidFrom.After(t) {
			continue
		}
		if p.Ends() {
			return nil
		}
		return p
	}
	return nil
}

// pattern is the price of a pattern itself at an instant, nil for none.
func (l *priceList) pattern(model string, t time.Time) *Price {
	for i := range l.patterns {
		if l.patterns[i].pattern == model {
			return l.patterns[i].at(t)
		}
	}
	return nil
}

// priceOf is the price that a hold or a charge refers to, nil for none. One that
// is not known yet was made by another process a moment ago.
func (b *Book) priceOf(id int64) (*Price, error) {
	if id == 0 {
		return nil, nil
	}
	if p := b.keys.priceByID(id); p != nil {
		return p, nil
	}
	if err := b.keys.load(b.store.read); err != nil {
		return nil, err
	}
	if p := b.keys.priceByID(id); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %d", errNoPrice, id)
}
