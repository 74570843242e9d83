package billing

import "go.uber.org/zap"

// growth is by how much a charge raised what is used: tokens of the current day
// and of the current month, nano-units of the current month.
type growth struct{ today, month, money int64 }

// grown is what a charge of the given day raises in a: figures of a day or a
// month that is over can be near no limit any more. It mirrors add.
func (a *account) grown(day string, used amount) (g growth) {
	if a.day == day {
		g.today = used.tokens
	}
	if a.month == day[:7] {
		g.month, g.money = used.tokens, used.money
	}
	return g
}

// crossed says that the budget's use, which has just grown, was below 90 % of
// the limit before and is not any more. Since use only grows within a period,
// that is so once a period; nothing has to be remembered, a start says nothing
// again, and a limit that is lowered says nothing by itself.
func (b *budget) crossed(grown int64) bool {
	mark := b.limit - b.limit/10 // 90 %, rounded up
	return b.figures.used >= mark && b.figures.used-grown < mark
}

// crossings are the budgets that crossed when the account grew; they are as
// they are after it.
func crossings(bs *budgets, g growth) []budget {
	var list []budget
	for i, grown := range []int64{g.today, g.month, g.month, g.money} {
		if bs[i].crossed(grown) {
			list = append(list, bs[i])
		}
	}
	return list
}

// nearing are the budgets of a key that crossed when its account grew to a. An
// account that no reserve has moved on may still be in a period that is over:
// of that nothing is said.
func (b *Book) nearing(keyID string, a *account, g growth) []budget {
	now := b.opt.Now()
	p := periodOf(now)
	if a.day < p.day {
		g.today = 0
	}
	if g.month <= 0 && g.money <= 0 || a.month < p.month {
		return nil
	}
	k := b.keys.get(keyID)
	if k == nil {
		return nil
	}
	bs := a.budgets(b.Effective(*k), p, now)
	return crossings(&bs, g)
}

// sayNear writes one line for each budget that crossed.
func (b *Book) sayNear(keyID string, crossed []budget) {
	if len(crossed) == 0 {
		return
	}
	masked := ""
	if k := b.keys.get(keyID); k != nil {
		masked = k.Display
	}
	for i := range crossed {
		c := &crossed[i]
		text := "budget nearly used"
		if c.figures.used >= c.limit {
			text = "budget used up"
		}
		limit, used := zap.Int64("limit_tokens", c.limit), zap.Int64("used_tokens", c.figures.used)
		if c.name == BudgetMoney {
			limit, used = zap.Stringer("limit_money", Money(c.limit)), zap.Stringer("used_money", Money(c.figures.used))
		}
		b.log.Warn(text, zap.String("key_id", keyID), zap.String("key", masked), zap.String("budget", c.name),
			limit, used, zap.Duration("resets_in_ms", c.resetIn))
	}
}

// nearing says of each key whose charges a transaction posted what it crossed.
// The day's figures are the database's own; those of the month's other days are
// this gateway's copy, read when it last reserved for the key.
func (e *pgBooks) nearing(moved []movement) {
	type after struct {
		account account
		growth  growth
	}
	keys := map[string]*after{}
	e.copies.mu.Lock()
	for _, m := range moved {
		known := e.copies.of[m.keyID]
		if m.used == (amount{}) || known == nil {
			continue
		}
		k := keys[m.keyID]
		if k == nil {
			k = &after{account: known.account}
			keys[m.keyID] = k
		}
		if m.day == k.account.day {
			others := k.account.thisMonth.used - k.account.today.used
			k.account.today.used, k.account.thisMonth.used = m.after, others+m.after
			// Money's figures are of the month alone; the copy has moved already.
		}
		g := k.account.grown(m.day, m.used)
		k.growth.today += g.today
		k.growth.month += g.month
		k.growth.money += g.money
	}
	e.copies.mu.Unlock()
	for id, k := range keys {
		e.book.sayNear(id, e.book.nearing(id, &k.account, k.growth))
	}
}
