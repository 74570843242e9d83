//go:build race

package billing

// underRace tells whether the race detector watches. It makes SQLite, which is
// pure Go here, some twelve times slower.
const underRace = true
