package api

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/MaksimVF/llm-gateway/billing"
)

// The document lets through exactly the amounts above 0 that the books read, in
// their plain spelling.
func TestMoney_documentAndBooksAgree(t *testing.T) {
	pattern := regexp.MustCompile(money("").Schema(nil).Pattern)
	for text, want := range map[string]int64{
		"25": 25e9, "25.00": 25e9, "25.5": 255e8, "0.000000001": 1, "0.10": 1e8, "999999999.999999999": 1e18 - 1,
		"0": 0, "0.0": 0, "0.000000000": 0, "": 0, "-1": 0, "+1": 0, "1e3": 0, "1.": 0, ".5": 0, "01": 0, "1000000000": 0, "0.0000000001": 0, "1.0000000000": 0, "1,5": 0, " 1": 0, "1\n": 0,
	} {
		if got := pattern.MatchString(text); got != (want > 0) {
			t.Errorf("%q: the document says %t", text, got)
		} else if got && money(text).nano() != want {
			t.Errorf("%q is %d, want %d", text, money(text).nano(), want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[0-9]{1,11}([.][0-9]{1,11})?`).Draw(t, "text")
		if pattern.MatchString(text) && money(text).nano() <= 0 {
			t.Fatalf("%q is let through and cannot be stored", text)
		}
		plain := strings.TrimSuffix(strings.TrimRight(strings.TrimLeft(text, "0"), "0"), ".") == text
		if amount, err := billing.ParseMoney(text); err == nil && amount > 0 && amount < 1e18 && plain && !pattern.MatchString(text) {
			t.Fatalf("%q is refused", text)
		}
	})
}
