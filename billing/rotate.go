package billing

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// Rotate makes a successor of a key, with its name, limits, models and expiry,
// and ends the key itself after the overlap, 0 = at once. A key that would have
// ended sooner still does. The successor has budgets of its own from the start:
// what the old key used stays with it. Errors: ErrUnknownKey; ErrRevokedKey and
// ErrExpiredKey for a key that cannot be used any more; ErrInvalid for a negative
// overlap.
func (a *Admin) Rotate(ctx context.Context, ref string, overlap time.Duration) (old, now Key, secret string, err error) {
	if old, now, secret, err = a.rotate(ctx, ref, overlap); err != nil {
		return Key{}, Key{}, "", fmt.Errorf("rotate key: %w", err)
	}
	return old, now, secret, nil
}

func (a *Admin) rotate(ctx context.Context, ref string, overlap time.Duration) (old, now Key, secret string, err error) {
	if overlap < 0 {
		return old, now, "", fmt.Errorf("%w: the overlap is negative", ErrInvalid)
	}
	if secret, err = NewSecret(); err != nil {
		return old, now, "", err
	}
	at := a.opt.Now()
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		if err := lockKeys(tx); err != nil {
			return err
		}
		row, err := a.row(a.store.locking(tx), ref)
		if err != nil {
			return err
		}
		if old, err = row.key(); err != nil {
			return err
		}
		if err := old.usable(at); err != nil {
			return err
		}
		now, err = newKey(NewKey{
			Name: old.Name, Description: old.Description, Limits: old.Own, RPM: old.RPM, TPM: old.TPM, Concurrent: old.Concurrent,
			ExpiresAt: old.ExpiresAt, Models: old.Models,
		}, secret, at)
		if err != nil {
			return err
		}
		if err := addKey(tx, now, a.digests, secret); err != nil {
			return err
		}
		end := at.Add(overlap)
		if !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(end) {
			return nil
		}
		rev, err := nextRev(tx)
		if err != nil {
			return err
		}
		old.ExpiresAt = instant(micros(end))
		return tx.Model(&keyRow{}).Where("id = ?", old.ID).Updates(map[string]any{"expires_at": micros(end), "rev": rev}).Error
	})
	return old, now, secret, err
}
