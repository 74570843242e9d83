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
}

// model is what the books promise, in the plainest form.
type model struct {
	newest        string
	used, held    map[string]int64 // by day
	open, settled []*modelHold
	overshoot     int64
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
	return h
}

// testBooksAgreeWithAPlainModel drives the books at random, over restarts and
// jumps of the clock, beside a model that is too simple to be wrong.
func testBooksAgreeWithAPlainModel(t *testing.T, at home) {
	limits := Limits{Daily: 1000, Monthly: 2500, Tariff: 2000}
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
		m := &model{used: map[string]int64{}, held: map[string]int64{}, newest: "2026-11-28"}
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
				fits := m.used[m.newest]+m.held[m.newest]+n <= limits.Daily && month(m.used, m.newest)+month(m.held, m.newest)+n <= limits.Tariff
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
					m.open = append(m.open, &modelHold{id: h.ID, day: h.Day, tokens: n, checkpoint: -1})
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
				m.used[h.day] += h.total
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
					m.used[h.day] += more
					m.overshoot += more
				}
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
					m.used[h.day] += h.total
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
				got := [4]int64{bal.UsedToday, bal.HeldToday, bal.UsedMonth, bal.HeldMonth}
				want := [4]int64{m.used[today], m.held[today], month(m.used, today), month(m.held, today)}
				if got != want {
					rt.Fatalf("%s: memory says %v, want %v", today, got, want)
				}
				if sum := want[0] + want[1]; sum > limits.Daily+m.overshoot {
					rt.Fatalf("used + held is %d over a limit of %d and an overshoot of %d", sum, limits.Daily, m.overshoot)
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
		Day        string
		Used, Held int64
	}
	if err := a.store.read.Raw("SELECT day, used, held FROM accounts").Scan(&rows).Error; err != nil {
		rt.Fatal(err)
	}
	for _, r := range rows {
		if r.Used != m.used[r.Day] || r.Held != m.held[r.Day] {
			rt.Fatalf("%s: database says %d and %d, want %d and %d", r.Day, r.Used, r.Held, m.used[r.Day], m.held[r.Day])
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
