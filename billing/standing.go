package billing

import "time"

// Standing is the key's tightest token budget now, for the headers of answers
// that hold nothing.
type Standing struct {
	Limit     int64         // tokens of the budget
	Remaining int64         // tokens neither used nor held; negative after an overshoot
	ResetIn   time.Duration // until the budget's period ends
}

// Standing tells the key's tightest budget from memory; with several replicas
// it may be as old as Budget's figures. An unknown key is judged by the
// defaults.
func (b *Book) Standing(keyID string) Standing {
	limits := b.defaults()
	if k := b.keys.get(keyID); k != nil {
		limits = b.Effective(*k)
	}
	a, p := b.engine.snapshot(keyID)
	bs := a.budgets(limits, p, b.opt.Now())
	least := tightest(&bs)
	return Standing{Limit: least.limit, Remaining: least.left(), ResetIn: least.resetIn}
}
