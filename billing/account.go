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

// figures of one period: what is posted, and what is in open holds.
type figures struct{ used, held int64 }

// amount is what is held or charged: tokens, and nano-units of money.
type amount struct{ tokens, money int64 }

func (a amount) plus(b amount) amount { return amount{a.tokens + b.tokens, a.money + b.money} }

// delta is by how much an account moves.
type delta struct{ used, held amount }

func (d delta) plus(e delta) delta { return delta{d.used.plus(e.used), d.held.plus(e.held)} }

// account is the admission authority for one key: the current day and month.
// Earlier periods are in the database only, they can admit nothing any more.
type account struct {
	day, month       string
	today, thisMonth figures // tokens
	money            figures // nano-units of this month
}

// roll enters the period p. What was held in an earlier period stays there.
func (a *account) roll(p period) {
	if a.day != p.day {
		a.day, a.today = p.day, figures{}
	}
	if a.month != p.month {
		a.month, a.thisMonth, a.money = p.month, figures{}, figures{}
	}
}

// add moves the figures of the day and its month, where they are the current ones.
func (a *account) add(day string, d delta) {
	if a.day == day {
		a.today.used += d.used.tokens
		a.today.held += d.held.tokens
	}
	if a.month == day[:7] {
		a.thisMonth.used += d.used.tokens
		a.thisMonth.held += d.held.tokens
		a.money.used += d.used.money
		a.money.held += d.held.money
	}
}

// budget is one limit over one account at one instant.
type budget struct {
	name    string
	limit   int64
	figures figures
	resetIn time.Duration
}

// BudgetMoney is the name of the only budget that is no number of tokens.
const BudgetMoney = "money"

// budgets are the budgets of a key: three of tokens, the last of money.
type budgets [4]budget

// tokens are the budgets of tokens.
func (bs *budgets) tokens() []budget { return bs[:3] }

// money is the budget of money; without one nothing reaches its limit.
func (bs *budgets) money() *budget { return &bs[3] }

// budgets lists the budgets; limits must be effective ones, all of tokens > 0.
func (a *account) budgets(l Limits, p period, now time.Time) budgets {
	day, month := p.dayEnd.Sub(now), p.monthEnd.Sub(now)
	money := int64(math.MaxInt64)
	if l.Money > 0 {
		money = min(l.Money, maxLimit)
	}
	return budgets{
		{"daily", min(l.Daily, maxLimit), a.today, day},
		{"monthly", min(l.Monthly, maxLimit), a.thisMonth, month},
		{"tariff", min(l.Tariff, maxLimit), a.thisMonth, month},
		{BudgetMoney, money, a.money, month},
	}
}

// left is what the budget can still hold; negative after an overshoot.
func (b *budget) left() int64 { return b.limit - b.figures.used - b.figures.held }

// spare is left, and nothing after an overshoot: what costs nothing still fits.
func (b *budget) spare() int64 { return max(0, b.left()) }

// refusal is the budget with the longest wait among those that cannot hold
// need, the tighter one of equal waits, money after tokens; nil when all can.
func refusal(bs *budgets, need amount) *BudgetError {
	var worst *budget
	for i := range bs.tokens() {
		b := &bs[i]
		if need.tokens <= b.left() {
			continue
		}
		if worst == nil || b.resetIn > worst.resetIn || b.resetIn == worst.resetIn && b.left() < worst.left() {
			worst = b
		}
	}
	needed := need.tokens
	if money := bs.money(); need.money > money.spare() && (worst == nil || money.resetIn > worst.resetIn) {
		worst, needed = money, need.money
	}
	if worst == nil {
		return nil
	}
	return &BudgetError{
		Budget: worst.name, Limit: worst.limit, Used: worst.figures.used, Held: worst.figures.held,
		Needed: needed, ResetIn: worst.resetIn,
	}
}

// tightest is the budget with the fewest tokens left.
func tightest(bs *budgets) *budget {
	least := &bs[0]
	for i := range bs.tokens() {
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
	shrink  bool   // a missing ceiling may become less than normal
	price   *Price // nil = the model has none
}

// holding is what to hold for a prompt and for an output in all.
func (w want) holding(prompt, output int64) amount {
	a := amount{tokens: plus(prompt, output)}
	if w.price != nil {
		a.money = w.price.bound(prompt, output)
	}
	return a
}

// size decides what to hold for a prompt of the given tokens.
func (w want) size(bs *budgets, prompt int64) (need amount, ceiling int64, refused *BudgetError) {
	ceiling = w.ceiling
	if ceiling == 0 {
		ceiling = w.normal
	}
	need = w.holding(prompt, times(ceiling, w.choices))
	refused = refusal(bs, need)
	if refused == nil || !w.shrink || w.ceiling > 0 || w.normal == 0 {
		return need, ceiling, refused
	}
	spare := min(tightest(bs).left()-prompt, times(w.normal, w.choices))
	if w.price != nil && spare >= w.choices {
		spare = w.price.affords(prompt, spare, bs.money().spare())
	}
	if spare < w.choices {
		least := w.holding(prompt, w.choices)
		return least, 1, refusal(bs, least)
	}
	ceiling = min(w.normal, spare/w.choices)
	return w.holding(prompt, ceiling*w.choices), ceiling, nil
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
