package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
)

// A list of prices that is read back as a price file begins each at its instant.
func TestPrices_tellTheInstantOfTheirBeginning(t *testing.T) {
	rate := billing.Money(1)
	now := time.Date(2026, 12, 1, 12, 0, 0, 123_456_000, time.UTC)
	for _, p := range []billing.Price{
		{ID: 1, Model: "now", ValidFrom: now, Rates: billing.Rates{Input: &rate}, CreatedAt: now},
		{ID: 2, Model: "on the day", ValidFrom: now.Truncate(24 * time.Hour), Rates: billing.Rates{Input: &rate}, CreatedAt: now},
	} {
		text, err := json.Marshal(AddedPrices("USD", []billing.Price{p}, now))
		if want := `"valid_from":"` + p.ValidFrom.Format(time.RFC3339Nano) + `"`; err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s, %v, want %s", text, err, want)
		}
	}
}
