package envoy

import "time"

const (
	maxQuickDeaths = 5               // in a row; then it is no accident
	quickDeath     = 1 * time.Second // an Envoy that cannot start ends sooner
	healthyLife    = 10 * time.Second
	firstBackOff   = 100 * time.Millisecond
	maxBackOff     = 5 * time.Second
)

// deathCount decides how soon the next start may be.
type deathCount struct {
	quick   int
	backOff time.Duration
}

// next is told how long an Envoy lived.
func (d *deathCount) next(lived time.Duration) (wait time.Duration, giveUp bool) {
	if lived < quickDeath {
		d.quick++
	} else {
		d.quick = 0
	}
	if lived >= healthyLife || d.backOff == 0 {
		d.backOff = firstBackOff
	} else {
		d.backOff = min(2*d.backOff, maxBackOff)
	}
	return d.backOff, d.quick >= maxQuickDeaths
}
