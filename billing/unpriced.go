package billing

import (
	"sync"

	"go.uber.org/zap"
)

// pricelessMax bounds the models that are remembered as said: clients choose
// their names.
const pricelessMax = 100

// priceless are models that were asked for without having a price.
type priceless struct {
	mu   sync.Mutex
	said map[string]bool
}

// first says whether the model is new to it.
func (p *priceless) first(model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.said[model] || len(p.said) >= pricelessMax {
		return false
	}
	if p.said == nil {
		p.said = map[string]bool{}
	}
	p.said[model] = true
	return true
}

// unpriced decides about a model without a price: nil meters it without money,
// ErrUnpriced refuses it. Where others have one, that may be an oversight: it is
// said, once for each model.
func (b *Book) unpriced(model string) (err error) {
	text := "a model has no price: its tokens are metered without money"
	if b.refuseUnpriced.Load() {
		text, err = "a model has no price: its requests are refused", ErrUnpriced
	}
	if b.keys.anyPrice() && b.priceless.first(model) {
		b.log.Warn(text, zap.String("model", short(model)))
	}
	return err
}

// SetRefuseUnpriced changes what Options.RefuseUnpriced said, for requests from
// now on.
func (b *Book) SetRefuseUnpriced(refuse bool) { b.refuseUnpriced.Store(refuse) }
