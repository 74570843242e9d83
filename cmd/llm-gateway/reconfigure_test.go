package main

import (
	"context"
	"testing"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

// TestReconfigure_reachesEveryPart: books, gate, routes and operator's routes go
// by one configuration; keys that are no longer listed stay valid.
func TestReconfigure_reachesEveryPart(t *testing.T) {
	c, o := gatewayOfItsOwn(t)
	c.Auth.AllowedKeys = []Secret{"sk-listed-first"}
	g, err := newGateway(t.Context(), c, o, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	next := c
	next.Auth.AllowedKeys, next.Auth.InvalidKeyStatus = []Secret{"sk-listed-second"}, 401
	next.Limits = LimitsConfig{Requests: 1, Window: c.Limits.Window / 2, TokensPerMinute: 2, Concurrent: 3, Daily: 4, Monthly: 5, Tariff: 6}
	if err := g.reconfigure(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"sk-listed-first", "sk-listed-second"} {
		if key, err := g.book.Lookup(secret); err != nil || g.book.Effective(key) != (billing.Limits{Daily: 4, Monthly: 5, Tariff: 6}) {
			t.Errorf("%s: %v, %+v", secret, err, g.book.Effective(key))
		}
	}
	if g.defaultLimits() != next.defaultLimits() || g.keyDefaults() != next.keyDefaults() {
		t.Errorf("%+v, %+v", g.defaultLimits(), g.keyDefaults())
	}
	if _, denied := g.exchanges.Authenticate([]string{"Bearer sk-nobody"}); denied == nil || denied.Status != 401 {
		t.Errorf("the gate: %+v", denied)
	}

	// What the books do not take changes nothing.
	if err := g.close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := g.reconfigure(t.Context(), c); err == nil || g.keyDefaults() != next.keyDefaults() {
		t.Errorf("with closed books: %v", err)
	}
}
