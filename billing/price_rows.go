package billing

import "gorm.io/gorm"

// priceRow is a row of the table prices.
type priceRow struct {
	ID        int64 `gorm:"primaryKey;autoIncrement:false"`
	Model     string
	ValidFrom int64

	Input, CachedRead, CacheWrite, Output, Reasoning, AudioInput, AudioOutput *int64

	CreatedAt int64 `gorm:"autoCreateTime:false"`
}

// TableName is read by GORM.
func (priceRow) TableName() string { return "prices" }

// list is the rates in the order of Kinds.
func (r *priceRow) list() []**int64 {
	return []**int64{&r.Input, &r.CachedRead, &r.CacheWrite, &r.Output, &r.Reasoning, &r.AudioInput, &r.AudioOutput}
}

func (r *priceRow) price() Price {
	p := Price{ID: r.ID, Model: r.Model, ValidFrom: instant(r.ValidFrom), CreatedAt: instant(r.CreatedAt)}
	for i, rate := range p.list() {
		*rate = (*Money)(*r.list()[i])
	}
	return p
}

func rowOf(p *Price) priceRow {
	r := priceRow{ID: p.ID, Model: p.Model, ValidFrom: micros(p.ValidFrom), CreatedAt: micros(p.CreatedAt)}
	for i, rate := range p.list() {
		*r.list()[i] = (*int64)(*rate)
	}
	return r
}

func loadPrices(db *gorm.DB) ([]Price, error) {
	var rows []priceRow
	if err := db.Order("id").Find(&rows).Error; err != nil {
		return nil, err
	}
	prices := make([]Price, len(rows))
	for i := range rows {
		prices[i] = rows[i].price()
	}
	return prices, nil
}
