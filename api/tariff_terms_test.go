package api

import (
	"testing"

	"github.com/MaksimVF/llm-gateway/billing"
)

// A key with a named tariff is told its name, as the original wrote it.
func TestTermsOf(t *testing.T) {
	plan := &billing.Tariff{Name: "team-a2", Description: "for teams", Limits: billing.Limits{Tariff: 7}}
	own := billing.Limits{Tariff: 5}
	for _, c := range []struct {
		key               billing.Key
		name, description string
	}{
		{billing.Key{Name: "n"}, "Default", "The gateway's default tariff"},
		{billing.Key{Name: "n", Description: "d", Own: own}, "n", "d"},
		{billing.Key{Own: own}, "Custom", "A tariff of its own"},
		{billing.Key{Name: "n", Description: "d", Plan: plan}, "Team-A2", "for teams"},
		{billing.Key{Name: "n", Description: "d", Plan: plan, Own: own}, "Team-A2", "for teams"},
		{billing.Key{Plan: &billing.Tariff{Name: "premium"}}, "Premium", ""},
	} {
		got := termsOf(c.key, billing.Limits{Tariff: 7})
		if got.Name != c.name || got.Description != c.description || got.MaxTokens != 7 {
			t.Errorf("%+v: %+v", c.key, got)
		}
	}
}
