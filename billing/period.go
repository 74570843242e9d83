package billing

import "time"

const dayLayout = "2006-01-02"

// period is one UTC day with its month, and when each ends.
type period struct {
	day, month       string
	dayEnd, monthEnd time.Time
}

func periodOf(t time.Time) period {
	t = t.UTC()
	y, m, d := t.Date()
	return period{
		day:      t.Format(dayLayout),
		month:    t.Format(dayLayout)[:7],
		dayEnd:   time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC),
		monthEnd: time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC),
	}
}

// at is the period for an admission at now: never an earlier one than p, so
// that a clock that jumps back opens no second budget for a day that is over.
func (p period) at(now time.Time) period {
	if now.Before(p.dayEnd) {
		return p
	}
	return periodOf(now)
}

// parseDay reads a UTC day; the form is exact.
func parseDay(s string) (time.Time, error) { return time.Parse(dayLayout, s) }
