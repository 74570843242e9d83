package billing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"gorm.io/gorm"
)

// PriceList is the prices of the books, the oldest first, and their currency.
type PriceList struct {
	Currency string // ISO 4217; "" while there is no price
	Prices   []Price
}

// Prices lists all prices that there ever were.
func (a *Admin) Prices(ctx context.Context) (l PriceList, err error) {
	err = a.store.view(ctx, func(tx *gorm.DB) error {
		if l.Prices, err = loadPrices(tx); err != nil {
			return err
		}
		l.Currency, err = currencyOf(tx)
		return err
	})
	if err != nil {
		return PriceList{}, fmt.Errorf("list prices: %w", err)
	}
	return l, nil
}

// InForce are the prices that apply at an instant: of each pattern one, if it
// has one, the most exact patterns first.
func (l PriceList) InForce(at time.Time) []Price {
	var list []Price
	for _, d := range newPriceList(l.Prices).patterns {
		if p := d.at(at); p != nil {
			list = append(list, *p)
		}
	}
	return list
}

func currencyOf(tx *gorm.DB) (currency string, err error) {
	err = tx.Raw("SELECT v FROM meta WHERE k = 'currency'").Scan(&currency).Error
	return currency, err
}

// pricesMax bounds one call; all prices are in memory.
const pricesMax = 10_000

// currencyForm is ISO 4217's.
func currencyForm() *regexp.Regexp { return regexp.MustCompile(`^[A-Z]{3}$`) }

// AddPrices appends prices and returns their currency and those that were new:
// one that the books have already is left out. A currency of "" is the books'
// own, USD where they have none. A zero ValidFrom is now. All
// are added, or none. A running gateway uses them within a second, for requests
// that it admits from ValidFrom on; what is charged stays as it is.
//
// Errors: ErrInvalid for a price that cannot be, and for one that begins in the
// past; ErrCurrency.
func (a *Admin) AddPrices(ctx context.Context, currency string, prices []Price) (in string, added []Price, err error) {
	if in, added, err = a.addPrices(ctx, currency, prices); err != nil {
		return "", nil, fmt.Errorf("add prices: %w", err)
	}
	return in, added, nil
}

// firstCurrency is that of books that nobody has told another.
const firstCurrency = "USD"

func (a *Admin) addPrices(ctx context.Context, currency string, prices []Price) (in string, added []Price, err error) {
	now := instant(micros(a.opt.Now()))
	if len(prices) > pricesMax {
		return "", nil, fmt.Errorf("%w: at most %d prices at once", ErrInvalid, pricesMax)
	}
	if currency != "" && !currencyForm().MatchString(currency) {
		return "", nil, fmt.Errorf("%w: a currency is written as three capital letters, such as USD", ErrInvalid)
	}
	for i := range prices {
		p := &prices[i]
		if err := p.validate(); err != nil {
			return "", nil, fmt.Errorf("price of %q: %w", p.Model, err)
		}
		if !p.ValidFrom.IsZero() && p.ValidFrom.Before(now) {
			return "", nil, fmt.Errorf("price of %q: %w: it begins in the past, and what was charged is never charged again", p.Model, ErrInvalid)
		}
	}
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		added = nil
		var known []Price
		if in, known, err = pricesIn(tx, currency); err != nil {
			return err
		}
		for _, p := range prices {
			if nothingNew(newPriceList(known), &p, now) {
				continue
			}
			if p.ValidFrom = instant(micros(p.ValidFrom)); p.ValidFrom.IsZero() {
				p.ValidFrom = now
			}
			p.ID, p.CreatedAt = int64(len(known))+1, now
			if len(known) > 0 {
				p.ID = known[len(known)-1].ID + 1
			}
			row := rowOf(&p)
			if err := tx.Create(&row).Error; err != nil {
				return err
			}
			known, added = append(known, p), append(added, p)
		}
		if len(added) == 0 {
			return nil
		}
		if _, err = nextRev(tx); err != nil {
			return err
		}
		for i := range added {
			if err := recordChange(tx, now, a.opt.Actor, actionSetPrice, added[i].Model, added[i].detail(in)); err != nil {
				return err
			}
		}
		return nil
	})
	return in, added, err
}

// nothingNew says that the books say the same as p already: what is in force, for
// one that begins now, else a price of the same beginning. That a later price is
// the same as the one before it is no reason to forget it: another may be put
// between them.
func nothingNew(known *priceList, p *Price, now time.Time) bool {
	at := p.ValidFrom
	if at.IsZero() {
		at = now
	}
	is := known.pattern(p.Model, at)
	switch {
	case is == nil:
		return p.Ends() && p.ValidFrom.IsZero()
	case !is.same(p):
		return false
	}
	return p.ValidFrom.IsZero() || is.ValidFrom.Equal(instant(micros(at)))
}

// pricesIn locks the prices, settles their currency and reads them.
func pricesIn(tx *gorm.DB, currency string) (in string, known []Price, err error) {
	if err := lockKeys(tx); err != nil {
		return "", nil, err
	}
	if known, err = loadPrices(tx); err != nil {
		return "", nil, err
	}
	is, err := currencyOf(tx)
	switch {
	case err != nil:
		return "", nil, err
	case is != "" && (currency == "" || currency == is):
		return is, known, nil
	case len(known) > 0:
		return "", nil, fmt.Errorf("%w: the books are in %s, and money of two currencies does not add up", ErrCurrency, is)
	}
	in = cmp.Or(currency, firstCurrency)
	return in, known, tx.Exec("INSERT INTO meta (k, v) VALUES ('currency', ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v", in).Error
}

// detail is a price in the history of changes.
func (p *Price) detail(currency string) any {
	type after struct {
		ID        int64     `json:"id"`
		Currency  string    `json:"currency"`
		ValidFrom time.Time `json:"valid_from"`
		Rates
	}
	return map[string]any{"after": after{p.ID, currency, p.ValidFrom, p.Rates}}
}

// same says that two prices are of the same rates.
func (p *Price) same(q *Price) bool {
	a, b := p.list(), q.list()
	for i := range a {
		if (*a[i] == nil) != (*b[i] == nil) || *a[i] != nil && **a[i] != **b[i] {
			return false
		}
	}
	return true
}

// errNoPrice: a hold or a charge refers to a price that was taken out of the books.
var errNoPrice = errors.New("a price that is used is not in the books")
