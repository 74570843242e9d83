package main

import (
	"net/url"
	"strings"
)

const sqliteWants = "a path to an SQLite file, such as sqlite:///./billing.db"

// databaseURL reads DATABASE_URL into the path of an SQLite file; "" stays "".
//
// Three forms mean a file: sqlite:///REL and sqlite:////ABS as SQLAlchemy writes
// them, sqlite:PATH, and a plain path. The text is never repeated in a message,
// because a URL may carry a password.
func databaseURL(text string) (any, string) {
	if text == "" {
		return "", ""
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
		return nil, "an SQLite path; PostgreSQL is not supported by this version"
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
	return path, ""
}
