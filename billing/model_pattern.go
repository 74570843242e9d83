package billing

import (
	"fmt"
	"strings"
)

// maxPattern bounds a pattern of model names, in bytes, as models themselves are.
const maxPattern = 256

// checkPattern refuses what can match no model. ErrInvalid.
func checkPattern(pattern string) error {
	if pattern == "" || len(pattern) > maxPattern || storable(pattern) != pattern || strings.ContainsFunc(pattern, control) {
		return fmt.Errorf("%w: a model is 1 to %d bytes of text without control characters; * stands for any text", ErrInvalid, maxPattern)
	}
	return nil
}

func control(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }

// ModelMatches says whether a model's name matches a pattern, in which each *
// stands for any text, also none and also slashes. Case counts. It takes time in
// proportion to the product of the lengths at worst, and never recurses.
func ModelMatches(pattern, model string) bool {
	p, m := 0, 0
	star, from := -1, 0 // the last * and where what it stands for ends
	for m < len(model) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, m
			p++
		case p < len(pattern) && pattern[p] == model[m]:
			p++
			m++
		case star >= 0: // let the last * stand for one byte more
			from++
			p, m = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// exactness orders patterns that match the same model: the one with more
// literal bytes first, and without any * before all others.
func exactness(pattern string) int {
	stars := strings.Count(pattern, "*")
	if stars == 0 {
		return maxPattern + 1
	}
	return len(pattern) - stars
}
