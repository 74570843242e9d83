package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// KeyChange changes what is given of a key.
type KeyChange struct {
	Limits            LimitChange
	Models            *[]string // patterns of ModelMatches; empty = all
	Name, Description *string
	ExpiresAt         *time.Time // in the future; the zero time = never
}

// SetKey changes a key, all of it or nothing, and returns the key before and
// after. An expired key can be given a longer life, a revoked one cannot. Errors:
// as of SetLimits, and ErrInvalid for an expiry in the past, a text that cannot be
// stored or a pattern that can match no model.
func (a *Admin) SetKey(ctx context.Context, ref string, c KeyChange) (old, now Key, err error) {
	old, now, err = a.change(ctx, ref, c.action(), func(k Key, plans tariffs) (map[string]any, error) {
		if !k.RevokedAt.IsZero() {
			return nil, ErrRevokedKey
		}
		return c.columns(plans, a.opt.Now())
	})
	if err != nil {
		return Key{}, Key{}, fmt.Errorf("change key: %w", err)
	}
	return old, now, nil
}

// SetModels changes the models that a key may use: patterns of ModelMatches,
// none = all. Errors as of SetKey.
func (a *Admin) SetModels(ctx context.Context, ref string, models []string) (old, now Key, err error) {
	return a.SetKey(ctx, ref, KeyChange{Models: &models})
}

// action names the command that changes the same.
func (c *KeyChange) action() string {
	texts := c.Name != nil || c.Description != nil || c.ExpiresAt != nil
	switch {
	case !texts && c.Models == nil:
		return actionLimits
	case !texts && !c.Limits.given():
		return actionModels
	}
	return actionSetKey
}

// columns are what changes. Errors: ErrInvalid, ErrUnknownTariff.
func (c *KeyChange) columns(plans tariffs, now time.Time) (set map[string]any, err error) {
	set = map[string]any{}
	if c.Limits.given() {
		if set, err = c.Limits.columns(plans); err != nil {
			return nil, err
		}
	}
	for column, text := range map[string]*string{"name": c.Name, "description": c.Description} {
		if text == nil {
			continue
		}
		if storable(*text) != *text {
			return nil, fmt.Errorf("%w: a text is not UTF-8, or has a zero byte", ErrInvalid)
		}
		set[column] = *text
	}
	if c.Models != nil {
		if err := checkModels(*c.Models); err != nil {
			return nil, err
		}
		if set["models"], err = modelsColumn(*c.Models); err != nil {
			return nil, err
		}
	}
	if at := c.ExpiresAt; at != nil {
		if !at.IsZero() && !at.After(now) {
			return nil, fmt.Errorf("%w: the expiry is in the past", ErrInvalid)
		}
		set["expires_at"] = micros(*at)
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: nothing to change", ErrInvalid)
	}
	return set, nil
}

// maxModels bounds the patterns of a key: each admission may look at all of them.
const maxModels = 100

// checkModels refuses patterns that can match no model, and too many. ErrInvalid.
func checkModels(patterns []string) error {
	if len(patterns) > maxModels {
		return fmt.Errorf("%w: a key has at most %d models; * stands for any text", ErrInvalid, maxModels)
	}
	for _, p := range patterns {
		if err := checkPattern(p); err != nil {
			return err
		}
	}
	return nil
}

// modelsColumn is how a list of patterns is stored: "" for all models.
func modelsColumn(patterns []string) (string, error) {
	if len(patterns) == 0 {
		return "", nil
	}
	list, err := json.Marshal(patterns)
	return string(list), err
}
