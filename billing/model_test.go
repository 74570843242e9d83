package billing

import (
	"context"
	"errors"
	"flag"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type modelHold struct {
	id, day    string
	tokens     int64
	checkpoint int64 // completion tokens seen, -1 = never forwarded
	total      int64 // settled for, cumulative
	rate       Money // of a million tokens at its admission, 0 = the model had no price
	money      int64 // held
}

// model is what the books promise, in the plainest form.
type model struct {
	newest        string
	used, held    map[string]int64 // by day
	open, settled []*modelHold
	overshoot     int64

	prices          []modelPrice     // in the order they were made
	spent, reserved map[string]int64 // nano-units, by day
	dearer          int64            // charged beyond what was held, in nano-units
}

// modelPrice is the price of a million tokens of any kind, 0 = none.
type modelPrice struct {
	from time.Time
	rate Money
}

// rate is the price at an instant, also at one that the clock came back to.
func (m *model) rate(at time.Time) Money {
	var newest modelPrice
	for _, p := range m.prices {
		if !p.from.After(at) && !p.from.Before(newest.from) {
			newest = p
		}
	}
	return newest.rate
}

// costs is what tokens cost at one rate for all kinds.
func costs(tokens int64, rate Money) int64 { return (tokens*int64(rate) + 999_999) / 1_000_000 }

// charge takes what a hold or its correction costs.
func (m *model) charge(h *modelHold, tokens int64) {
	m.used[h.day] += tokens
	cost := costs(tokens, h.rate)
	m.spent[h.day] += cost
	m.dearer += max(0, cost-h.money)
	h.money = 0 // it was given back
}

func month(figures map[string]int64, of string) (sum int64) {
	for day, n := range figures {
		if day[:7] == of[:7] {
			sum += n
		}
	}
	return sum
}

func (m *model) advance(now time.Time) {
	m.newest = max(m.newest, now.Format(dayLayout))
}

func (m *model) end(i int) *modelHold {
	h := m.open[i]
	m.open = append(m.open[:i:i], m.open[i+1:]...)
	m.held[h.day] -= h.tokens
	m.reserved[h.day] -= h.money
	return h
}

// testBooksAgreeWithAPlainModel drives the books at random, over restarts and
// jumps of the clock, beside a model that is too simple to be wrong.
func testBooksAgreeWithAPlainModel(t *testing.T, at home) {
	limits := Limits{Daily: 1000, Monthly: 2500, Tariff: 2000, Money: 5000}
	if at.server != nil || underRace {
		// Each opens books several times. Nothing here asks from two goroutines
		// at once: more runs would show the race detector nothing new.
		fewer(t, 12)
	}
	rapid.Check(t, func(rt *rapid.T) {
		c := newClock("2026-11-28T12:00:00Z")
		o := at.options(t, c)
		a, err := OpenAdmin(context.Background(), o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		k, _, err := a.CreateKey(context.Background(), NewKey{Limits: limits})
		if err != nil {
			rt.Fatal(err)
		}
		b := openBook(t, o)
		defer func() { _ = b.Close(context.Background()) }()
		m := &model{used: map[string]int64{}, held: map[string]int64{}, newest: "2026-11-28", spent: map[string]int64{}, reserved: map[string]int64{}}
		pick := func(rt *rapid.T, from []*modelHold) int {
			if len(from) == 0 {
				rt.Skip("none")
			}
			return rapid.IntRange(0, len(from)-1).Draw(rt, "hold")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": func(rt *rapid.T) {
				n := rapid.Int64Range(1, 700).Draw(rt, "tokens")
				m.advance(c.Now())
				fits := m.used[m.newest]+m.held[m.newest]+n <= limits.Daily && month(m.used, m.newest)+month(m.held, m.newest)+n <= limits.Tariff &&
					month(m.spent, m.newest)+month(m.reserved, m.newest)+costs(n, m.rate(c.Now())) <= limits.Money
				h, err := b.Reserve(context.Background(), ask(k.ID, n))
				var refusal *BudgetError
				if err != nil && !errors.As(err, &refusal) {
					rt.Fatal(err)
				}
				if (err == nil) != fits {
					rt.Fatalf("%d tokens: error is %v, want admission: %v", n, err, fits)
				}
				if err == nil {
					if h.Day != m.newest {
						rt.Fatalf("admitted in %s, want %s", h.Day, m.newest)
					}
					m.held[h.Day] += n
					rate := m.rate(c.Now())
					m.reserved[h.Day] += costs(n, rate)
					m.open = append(m.open, &modelHold{id: h.ID, day: h.Day, tokens: n, checkpoint: -1, rate: rate, money: costs(n, rate)})
				}
			},
			"checkpoint": func(rt *rapid.T) {
				h := m.open[pick(rt, m.open)]
				h.checkpoint = max(h.checkpoint, rapid.Int64Range(0, 100).Draw(rt, "seen"))
				b.Checkpoint(h.id, Progress{CompletionTokens: h.checkpoint})
			},
			"settle": func(rt *rapid.T) {
				h := m.end(pick(rt, m.open))
				prompt, completion := rapid.Int64Range(0, 400).Draw(rt, "prompt"), rapid.Int64Range(0, 400).Draw(rt, "completion")
				h.total = prompt + completion
				m.charge(h, h.total)
				m.overshoot += max(0, h.total-h.tokens)
				m.settled = append(m.settled, h)
				settle(t, b, h.id, prompt, completion)
			},
			"settle again": func(rt *rapid.T) { settle(t, b, m.settled[pick(rt, m.settled)].id, 999, 999) },
			"void":         func(rt *rapid.T) { b.Void(m.end(pick(rt, m.open)).id) },
			"void settled": func(rt *rapid.T) { b.Void(m.settled[pick(rt, m.settled)].id) },
			"correct": func(rt *rapid.T) {
				h := m.settled[pick(rt, m.settled)]
				total := rapid.Int64Range(0, 900).Draw(rt, "total")
				if err := b.Correct(context.Background(), h.id, Outcome{Completion: total, Provenance: Reported}); err != nil {
					rt.Fatal(err)
				}
				if more := total - h.total; more > 0 {
					h.total = total
					m.charge(h, more)
					m.overshoot += more
				}
			},
			"price": func(rt *rapid.T) {
				rate := Money(rapid.SampledFrom([]int64{1_000_000, 2_500_000, 3_333_333, 700_001}).Draw(rt, "rate"))
				p := Price{Model: "m", ValidFrom: c.Now(), Rates: Rates{Input: &rate, Output: &rate}}
				if rapid.IntRange(0, 3).Draw(rt, "none") == 0 {
					p.Rates, rate = Rates{}, 0
				}
				if _, _, err := a.AddPrices(context.Background(), "USD", []Price{p}); err != nil {
					rt.Fatal(err)
				}
				if err := b.Refresh(context.Background()); err != nil {
					rt.Fatal(err)
				}
				m.prices = append(m.prices, modelPrice{c.Now(), rate})
			},
			"clock": func(rt *rapid.T) {
				c.Add(time.Duration(rapid.Int64Range(-30, 40).Draw(rt, "hours")) * time.Hour)
			},
			"reopen": func(rt *rapid.T) {
				flush(t, b)
				if err := b.Close(context.Background()); err != nil {
					rt.Fatal(err)
				}
				for len(m.open) > 0 {
					h := m.end(0)
					h.total = max(0, h.checkpoint)
					m.charge(h, h.total)
					m.overshoot += max(0, h.total-h.tokens)
					m.settled = append(m.settled, h)
				}
				b = openBook(t, o)
				// Days that nothing happened in are not remembered.
				m.newest = c.Now().Format(dayLayout)
				for _, h := range m.settled {
					m.newest = max(m.newest, h.day)
				}
				for day := range m.held {
					m.newest = max(m.newest, day)
				}
			},
			"": func(rt *rapid.T) {
				// Looking at the books does not move them to the next day.
				if at.server != nil {
					flush(t, b) // a void is seen when it is committed
				}
				today := max(m.newest, c.Now().Format(dayLayout))
				bal, err := b.Balance(k.ID)
				if err != nil {
					rt.Fatal(err)
				}
				got := [6]int64{bal.UsedToday, bal.HeldToday, bal.UsedMonth, bal.HeldMonth, int64(bal.SpentMonth), int64(bal.ReservedMonth)}
				want := [6]int64{
					m.used[today], m.held[today], month(m.used, today), month(m.held, today), month(m.spent, today), month(m.reserved, today),
				}
				if got != want {
					rt.Fatalf("%s: memory says %v, want %v", today, got, want)
				}
				if sum := want[0] + want[1]; sum > limits.Daily+m.overshoot {
					rt.Fatalf("used + held is %d over a limit of %d and an overshoot of %d", sum, limits.Daily, m.overshoot)
				}
				if sum := want[4] + want[5]; sum > limits.Money+m.dearer {
					rt.Fatalf("spent + reserved is %d over a limit of %d and %d beyond holds", sum, limits.Money, m.dearer)
				}
				flush(t, b)
				checkDatabase(rt, a, m)
			},
		})
	})
}

// fewer lowers the number of random runs until the test ends.
func fewer(t *testing.T, checks int) {
	t.Helper()
	f := flag.Lookup("rapid.checks")
	before := f.Value.String()
	if n, err := strconv.Atoi(before); err != nil || n <= checks || n != 100 {
		return // somebody asked for a number
	}
	if err := f.Value.Set(strconv.Itoa(checks)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Value.Set(before) })
}

func checkDatabase(rt *rapid.T, a *Admin, m *model) {
	report, err := a.Audit(context.Background())
	if err != nil || !report.Balanced {
		rt.Fatalf("audit: %v, %q", err, report.Problems)
	}
	var rows []struct {
		Day                         string
		Used, Held, Spent, Reserved int64
	}
	if err := a.store.read.Raw("SELECT day, used, held, spent, reserved FROM accounts").Scan(&rows).Error; err != nil {
		rt.Fatal(err)
	}
	for _, r := range rows {
		got, want := [4]int64{r.Used, r.Held, r.Spent, r.Reserved}, [4]int64{m.used[r.Day], m.held[r.Day], m.spent[r.Day], m.reserved[r.Day]}
		if got != want {
			rt.Fatalf("%s: database says %d, want %d", r.Day, got, want)
		}
	}
	var overshoot int64
	if err := a.store.read.Raw("SELECT coalesce(sum(overshoot), 0) FROM charges").Scan(&overshoot).Error; err != nil {
		rt.Fatal(err)
	}
	if overshoot != m.overshoot {
		rt.Fatalf("overshoot is %d, want %d", overshoot, m.overshoot)
	}
}
