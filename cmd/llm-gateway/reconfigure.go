package main

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/extproc"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// gateSettings is the configuration as the gate wants it, but for what cannot
// change while it works.
func (c Config) gateSettings() extproc.Settings {
	return extproc.Settings{
		Defaults:            c.defaultLimits(),
		InvalidKeyStatus:    c.Auth.InvalidKeyStatus,
		DefaultOutputTokens: c.Request.DefaultOutputTokens,
		BudgetExact:         c.Request.BudgetExact,
		UpstreamKey:         c.Upstream.APIKey.Reveal(),
		MetricModels:        c.Metrics.Models,
	}
}

// budgets are the token budgets of a key that sets none of its own.
func (c Config) budgets() billing.Limits {
	return billing.Limits{Tariff: c.Limits.Tariff, Daily: c.Limits.Daily, Monthly: c.Limits.Monthly}
}

// defaultLimits are the rate limits that apply now to a key that has none of its
// own.
func (g *gateway) defaultLimits() ratelimit.Limits { return g.config.Load().defaultLimits() }

func (g *gateway) keyDefaults() api.Defaults { return g.config.Load().keyDefaults() }

// reconfigure puts a configuration in force that differs from the one before
// only in what can change while the gateway works. Its error means that nothing
// has changed, but that new keys may be valid already.
func (g *gateway) reconfigure(ctx context.Context, c Config) error {
	// What can fail comes first.
	if now := g.config.Load(); c.keysFile() != now.keysFile() || !slices.Equal(c.Auth.AllowedKeys, now.Auth.AllowedKeys) {
		if err := importKeys(ctx, g.book, c, g.log); err != nil {
			return err
		}
	}
	if err := g.exchanges.Reconfigure(c.gateSettings()); err != nil {
		return err
	}
	if err := g.book.SetDefaults(c.budgets()); err != nil {
		return err
	}
	g.book.SetRefuseUnpriced(c.Prices.UnknownModel == unknownRefuse)
	g.config.Store(&c)
	return nil
}

// importKeys makes the keys of ALLOWED_API_KEYS valid; a revocation in the
// books beats the list. The keys file goes first, so that its limits hold.
func importKeys(ctx context.Context, book *billing.Book, c Config, log *zap.Logger) error {
	if err := importKeysFile(ctx, book, c, log); err != nil {
		return err
	}
	secrets := make([]string, 0, len(c.Auth.AllowedKeys))
	for _, s := range c.Auth.AllowedKeys {
		secrets = append(secrets, s.Reveal())
	}
	added, err := book.Import(ctx, secrets, "env")
	if err != nil {
		return fmt.Errorf("import ALLOWED_API_KEYS: %w", err)
	}
	if added > 0 {
		log.Info("keys imported", zap.Int("added", added))
	}
	return nil
}
