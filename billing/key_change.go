package billing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"gorm.io/gorm"
)

// LimitChange changes what is not nil; values are > 0. Clear takes limits of the
// key's own away, by the names of LimitNames: then its plan's apply, else the
// gateway's default, or none where it has none. Plan is the name of a tariff, in
// any case, and "" for none: a key that gets one loses its own tariff limit, where
// none is given beside it.
type LimitChange struct {
	Tariff, Daily, Monthly, RPM, TPM, Concurrent *int64
	Money                                        *int64 // nano-units per calendar month
	Plan                                         *string
	Clear                                        []string
}

// LimitNames are the limits that a key can have of its own.
func LimitNames() []string {
	return []string{"tariff", "daily", "monthly", "rpm", "tpm", "concurrent", "money"}
}

// values are what is to be set, in the order of LimitNames.
func (c *LimitChange) values() []*int64 {
	return []*int64{c.Tariff, c.Daily, c.Monthly, c.RPM, c.TPM, c.Concurrent, c.Money}
}

// given says whether there is anything to change.
func (c *LimitChange) given() bool {
	return c.Plan != nil || len(c.Clear) > 0 || slices.ContainsFunc(c.values(), func(v *int64) bool { return v != nil })
}

// columns are what changes; those of limits have the names of LimitNames. Errors:
// ErrInvalid, ErrUnknownTariff.
func (c *LimitChange) columns(plans tariffs) (map[string]any, error) {
	set := map[string]any{}
	for i, v := range c.values() {
		if v == nil {
			continue
		}
		if *v <= 0 {
			return nil, fmt.Errorf("%w: a limit must be > 0", ErrInvalid)
		}
		set[LimitNames()[i]] = *v
	}
	for _, name := range c.Clear {
		if !slices.Contains(LimitNames(), name) {
			return nil, fmt.Errorf("%w: no limit has this name", ErrInvalid)
		}
		if _, both := set[name]; both {
			return nil, fmt.Errorf("%w: set %s or clear it", ErrInvalid, name)
		}
		set[name] = int64(0) // "none of its own"
	}
	if !c.given() {
		return nil, fmt.Errorf("%w: nothing to change", ErrInvalid)
	}
	if c.Plan == nil {
		return set, nil
	}
	if set["plan"] = ""; *c.Plan != "" {
		plan, err := plans.find(*c.Plan)
		if err != nil {
			return nil, err
		}
		set["plan"] = plan.Name
		if c.Tariff == nil {
			set["tariff"] = int64(0)
		}
	}
	return set, nil
}

// SetLimits changes a key's own limits and its tariff, and returns the key before
// and after. Errors: ErrUnknownKey; ErrUnknownTariff; ErrRevokedKey: what is over
// stays as it was; ErrInvalid for a value <= 0, a limit that is none or is both set
// and cleared, or no change at all.
func (a *Admin) SetLimits(ctx context.Context, ref string, c LimitChange) (old, now Key, err error) {
	old, now, err = a.change(ctx, ref, actionLimits, func(k Key, plans tariffs) (map[string]any, error) {
		if !k.RevokedAt.IsZero() {
			return nil, ErrRevokedKey
		}
		return c.columns(plans)
	})
	if err != nil {
		return Key{}, Key{}, fmt.Errorf("set limits: %w", err)
	}
	return old, now, nil
}

// Revoke ends a key for good; the row stays as a tombstone, so that importing
// its secret again does not bring it back. Revoking twice changes nothing.
func (a *Admin) Revoke(ctx context.Context, ref string) (Key, error) {
	_, now, err := a.change(ctx, ref, actionRevoke, func(k Key, _ tariffs) (map[string]any, error) {
		if !k.RevokedAt.IsZero() {
			return nil, nil
		}
		return map[string]any{"revoked_at": micros(a.opt.Now())}, nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("revoke key: %w", err)
	}
	return now, nil
}

// Expire lets a key end at the given time, as a rotation with overlap does.
// Errors: ErrUnknownKey; ErrInvalid for the zero time.
func (a *Admin) Expire(ctx context.Context, ref string, at time.Time) (Key, error) {
	if at.IsZero() {
		return Key{}, fmt.Errorf("expire key: %w: no time", ErrInvalid)
	}
	_, now, err := a.change(ctx, ref, actionExpire, func(Key, tariffs) (map[string]any, error) {
		return map[string]any{"expires_at": micros(at)}, nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("expire key: %w", err)
	}
	return now, nil
}

// keyEdit says what to change of a key; nothing = leave it.
type keyEdit func(k Key, plans tariffs) (map[string]any, error)

// change updates columns of one key under a new revision, and records what is
// another than before.
func (a *Admin) change(ctx context.Context, ref, action string, columns keyEdit) (old, now Key, err error) {
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		row, err := a.row(a.store.locking(tx), ref)
		if err != nil {
			return err
		}
		// Nobody removes a tariff between the look at it and the change.
		if err := lockKeys(tx); err != nil {
			return err
		}
		plans, err := loadTariffs(tx)
		if err != nil {
			return err
		}
		if old, err = row.key(plans); err != nil {
			return err
		}
		now = old
		set, err := columns(old, plans)
		if err != nil || len(set) == 0 {
			return err
		}
		rev, err := nextRev(tx)
		if err != nil {
			return err
		}
		update := map[string]any{"rev": rev}
		maps.Copy(update, set)
		if err := tx.Model(&keyRow{}).Where("id = ?", row.ID).Updates(update).Error; err != nil {
			return err
		}
		if row, err = a.row(tx, row.ID); err != nil {
			return err
		}
		if now, err = row.key(plans); err != nil {
			return err
		}
		step := stepOf(old.terms(), now.terms())
		if step.same() {
			return nil
		}
		return a.record(tx, action, now.ID, step)
	})
	return old, now, err
}
