//go:build !race

package billing

// underRace tells whether the race detector watches.
const underRace = false
