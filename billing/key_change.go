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
// key's own away, by the names of LimitNames: then the gateway's default applies,
// or none where it has none.
type LimitChange struct {
	Tariff, Daily, Monthly, RPM, TPM, Concurrent *int64
	Clear                                        []string
}

// LimitNames are the limits that a key can have of its own.
func LimitNames() []string {
	return []string{"tariff", "daily", "monthly", "rpm", "tpm", "concurrent"}
}

// columns are what changes, by the names of LimitNames. ErrInvalid.
func (c LimitChange) columns() (map[string]any, error) {
	set := map[string]any{}
	for i, v := range []*int64{c.Tariff, c.Daily, c.Monthly, c.RPM, c.TPM, c.Concurrent} {
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
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: nothing to change", ErrInvalid)
	}
	return set, nil
}

// SetLimits changes a key's own limits and returns the key before and after.
// Errors: ErrUnknownKey; ErrInvalid for a value <= 0, a limit that is none or is
// both set and cleared, or no change at all.
func (a *Admin) SetLimits(ctx context.Context, ref string, c LimitChange) (old, now Key, err error) {
	set, err := c.columns()
	if err == nil {
		old, now, err = a.change(ctx, ref, actionLimits, func(Key) (map[string]any, error) { return set, nil })
	}
	if err != nil {
		return Key{}, Key{}, fmt.Errorf("set limits: %w", err)
	}
	return old, now, nil
}

// Revoke ends a key for good; the row stays as a tombstone, so that importing
// its secret again does not bring it back. Revoking twice changes nothing.
func (a *Admin) Revoke(ctx context.Context, ref string) (Key, error) {
	_, now, err := a.change(ctx, ref, actionRevoke, func(k Key) (map[string]any, error) {
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
	_, now, err := a.change(ctx, ref, actionExpire, func(Key) (map[string]any, error) {
		return map[string]any{"expires_at": micros(at)}, nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("expire key: %w", err)
	}
	return now, nil
}

// change updates columns of one key under a new revision, and records what is
// another than before; no columns = leave it.
func (a *Admin) change(ctx context.Context, ref, action string, columns func(Key) (map[string]any, error)) (old, now Key, err error) {
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		row, err := a.row(a.store.locking(tx), ref)
		if err != nil {
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
		set, err := columns(old)
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
