package main

import (
	"net/url"
	"strings"
)

const sqliteWants = "a path to an SQLite file, such as sqlite:///./billing.db, or a PostgreSQL URL"

const postgresWants = "a PostgreSQL URL such as postgres://user:password@host:5432/database" //nolint:gosec // words for a person

// databaseURL reads DATABASE_URL into the path of an SQLite file or the URL of
// a PostgreSQL database; "" stays "".
//
// Three forms mean a file: sqlite:///REL and sqlite:////ABS as SQLAlchemy writes
// them, sqlite:PATH, and a plain path. The text is never repeated in a message,
// because a URL may carry a password.
func databaseURL(text string) (any, string) {
	if text == "" {
		return Secret(""), ""
	}
	scheme, rest, hasScheme := strings.Cut(text, ":")
	if !hasScheme || strings.ContainsAny(scheme, "/.\\") {
		return sqlitePath(text)
	}
	switch base, _, _ := strings.Cut(strings.ToLower(scheme), "+"); base {
	case "sqlite":
		if strings.HasPrefix(rest, "//") {
			path, ok := strings.CutPrefix(rest, "///")
			if !ok {
				return nil, sqliteWants + " (three slashes, or four for an absolute path)"
			}
			rest = path
		}
		path, err := url.PathUnescape(rest)
		if err != nil {
			return nil, sqliteWants
		}
		return sqlitePath(path)
	case "postgres", "postgresql":
		return postgresURL(base + ":" + rest)
	}
	return nil, sqliteWants
}

func sqlitePath(path string) (any, string) {
	switch {
	case path == "", path == ":memory:", strings.HasSuffix(path, "/"):
		return nil, sqliteWants + "; the books must be a file"
	case strings.ContainsAny(path, "?#") || strings.ContainsFunc(path, isControl):
		return nil, sqliteWants + ", without parameters"
	}
	return Secret(path), ""
}

// postgresURL wants what cannot be guessed: a host and a database. What stands
// behind "?" is the driver's business.
func postgresURL(text string) (any, string) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") == "" || strings.ContainsFunc(text, isControl) {
		return nil, postgresWants
	}
	return Secret(text), ""
}

// isPostgres tells the two homes of the books apart.
func isPostgres(database string) bool {
	scheme, _, found := strings.Cut(database, "://")
	return found && (scheme == "postgres" || scheme == "postgresql")
}
