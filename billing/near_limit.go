package billing

import (
	"sync"

	"go.uber.org/zap"
)

// nearLimit remembers in which period it was said of a budget that it is nearly
// used. It holds one entry a key at most.
type nearLimit struct {
	mu   sync.Mutex
	said map[string][3]string // by key id; periods in the order of account.budgets
}

// isNear says that 90 % or more of the budget is used.
func (b *budget) isNear() bool { return b.figures.used >= b.limit-b.limit/10 }

// first says whether it is the first time for this key, budget and period.
func (n *nearLimit) first(keyID string, budget int, period string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	said := n.said[keyID]
	if said[budget] == period {
		return false
	}
	if n.said == nil {
		n.said = map[string][3]string{}
	}
	said[budget] = period
	n.said[keyID] = said
	return true
}

// warnNear writes one line for each budget of a key of which a charge has just
// used 90 %, once in its period.
func (b *Book) warnNear(keyID string) {
	k := b.keys.get(keyID)
	if k == nil {
		return
	}
	a, p := b.engine.snapshot(keyID)
	bs := a.budgets(b.Effective(*k), p, b.opt.Now())
	for i, period := range []string{p.day, p.month, p.month} {
		budget := &bs[i]
		if !budget.isNear() || !b.near.first(keyID, i, period) {
			continue
		}
		text := "budget nearly used"
		if budget.figures.used >= budget.limit {
			text = "budget used up"
		}
		b.log.Warn(text, zap.String("key_id", keyID), zap.String("key", k.Display), zap.String("budget", budget.name),
			zap.Int64("limit_tokens", budget.limit), zap.Int64("used_tokens", budget.figures.used), zap.Duration("resets_in_ms", budget.resetIn))
	}
}
