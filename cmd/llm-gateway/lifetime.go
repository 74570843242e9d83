package main

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// maxLifetimeDays is a century: longer is "never", which is the default.
const maxLifetimeDays = 36_500

// parseLifetime reads the text of --expires: a Go duration, days such as 30d, or
// both (1d12h).
func parseLifetime(text string) (time.Duration, error) {
	const day = 24 * time.Hour
	var lifetime time.Duration
	rest := strings.TrimSpace(text)
	number, after, hasDays := strings.Cut(rest, "d")
	if hasDays {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n > maxLifetimeDays {
			return 0, usagef("--expires: write days from 1 to %d, such as 30d", maxLifetimeDays)
		}
		lifetime, rest = time.Duration(n)*day, after
	}
	if !hasDays || rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || hasDays && d < 0 {
			return 0, usagef("--expires: write a duration such as 12h, 30d or 1d12h")
		}
		lifetime += d
	}
	if lifetime <= 0 {
		return 0, errors.New("--expires must be above 0: write a duration such as 12h or 30d")
	}
	if lifetime > maxLifetimeDays*day {
		return 0, usagef("--expires: at most %d days; leave it out for a key without end", maxLifetimeDays)
	}
	return lifetime, nil
}
