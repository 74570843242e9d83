package billing

import (
	"math"
	"time"
)

// maxLimit caps limits in arithmetic, and maxFigure what one charge may post.
// Together they keep every sum of the books far from the end of an int64.
const (
	maxLimit  = int64(1) << 60
	maxFigure = int64(1) << 40
)

// figures of one period: tokens posted, tokens in open holds.
type figures struct{ used, held int64 }

// account is the admission authority for one key: the current day and month.
// Earlier periods are in the database only, they can admit nothing any more.
type account struct {
	day, month       string
	today, thisMonth figures
}

// roll enters the period p. What was held in an earlier period stays there.
func (a *account) roll(p period) {
	if a.day != p.day {
		a.day, a.today = p.day, figures{}
	}
	if a.month != p.month {
		a.month, a.thisMonth = p.month, figures{}
	}
}

// add moves the figures of the day and its month, where they are the current ones.
func (a *account) add(day string, used, held int64) {
	if a.day == day {
		a.today.used += used
		a.today.held += held
	}
	if a.month == day[:7] {
		a.thisMonth.used += used
		a.thisMonth.held += held
	}
}

// budget is one limit over one account at one instant.
type budget struct {
	name    string
	limit   int64
	figures figures
	resetIn time.Duration
}

// budgets lists the three budgets; limits must be effective ones, all > 0.
func (a *account) budgets(l Limits, p period, now time.Time) [3]budget {
	day, month := p.dayEnd.Sub(now), p.monthEnd.Sub(now)
	return [3]budget{
		{"daily", min(l.Daily, maxLimit), a.today, day},
		{"monthly", min(l.Monthly, maxLimit), a.thisMonth, month},
		{"tariff", min(l.Tariff, maxLimit), a.thisMonth, month},
	}
}

// left is what the budget can still hold; negative after an overshoot.
func (b *budget) left() int64 { return b.limit - b.figures.used - b.figures.held }

// refusal is the budget with the longest wait among those that cannot hold
// need, the tighter one of equal waits; nil when all can.
func refusal(bs *[3]budget, need int64) *BudgetError {
	var worst *budget
	for i := range bs {
		b := &bs[i]
		if need <= b.left() {
			continue
		}
		if worst == nil || b.resetIn > worst.resetIn || b.resetIn == worst.resetIn && b.left() < worst.left() {
			worst = b
		}
	}
	if worst == nil {
		return nil
	}
	return &BudgetError{
		Budget: worst.name, Limit: worst.limit, Used: worst.figures.used, Held: worst.figures.held,
		Needed: need, ResetIn: worst.resetIn,
	}
}

// tightest is the budget with the least left.
func tightest(bs *[3]budget) *budget {
	least := &bs[0]
	for i := range bs {
		if bs[i].left() < least.left() {
			least = &bs[i]
		}
	}
	return least
}

// want is a request reduced to what decides its hold.
type want struct {
	ceiling int64 // given by the request, 0 = none
	normal  int64 // taken when none is given, 0 = no output
	choices int64
	shrink  bool // a missing ceiling may become less than normal
}

// size decides what to hold for a prompt of the given tokens.
func (w want) size(bs *[3]budget, prompt int64) (need, ceiling int64, refused *BudgetError) {
	ceiling = w.ceiling
	if ceiling == 0 {
		ceiling = w.normal
	}
	need = plus(prompt, times(ceiling, w.choices))
	refused = refusal(bs, need)
	if refused == nil || !w.shrink || w.ceiling > 0 || w.normal == 0 {
		return need, ceiling, refused
	}
	spare := tightest(bs).left() - prompt
	if spare < w.choices {
		least := plus(prompt, w.choices)
		return least, 1, refusal(bs, least)
	}
	ceiling = min(w.normal, spare/w.choices)
	return prompt + ceiling*w.choices, ceiling, nil
}

// plus and times are for operands >= 0 and stop at the largest int64.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func times(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}
