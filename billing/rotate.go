package billing

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// Rotation is a key in the place of another.
type Rotation struct {
	Old    Key    // with the end of its life
	New    Key    // the same but for id, secret and figures
	Secret string // of the new key; it is stored nowhere and cannot be shown again
}

// Rotate makes a key with the texts, limits, models and expiry of another, and
// lets the old one end after the overlap, or at its own expiry when that is
// earlier: a rotation makes no life longer. Both happen, or none. The new key
// has its own id and its own figures, from zero. Errors: ErrUnknownKey;
// ErrRevokedKey, ErrExpiredKey and ErrBlockedKey for a key that has nothing to
// hand over; ErrInvalid for an overlap < 0.
func (a *Admin) Rotate(ctx context.Context, ref string, overlap time.Duration) (Rotation, error) {
	var r Rotation
	err := a.rotate(ctx, ref, overlap, &r)
	if err != nil {
		return Rotation{}, fmt.Errorf("rotate key: %w", err)
	}
	return r, nil
}

func (a *Admin) rotate(ctx context.Context, ref string, overlap time.Duration, r *Rotation) (err error) {
	if overlap < 0 {
		return fmt.Errorf("%w: an overlap is not negative", ErrInvalid)
	}
	if r.Secret, err = NewSecret(); err != nil {
		return err
	}
	return a.store.inTx(ctx, func(tx *gorm.DB) error {
		// The row first, then the revision, as every change of a key does: in
		// another order two of them could wait for each other.
		row, err := a.row(a.store.locking(tx), ref)
		if err != nil {
			return err
		}
		tariffs, err := loadTariffs(tx)
		if err != nil {
			return err
		}
		if r.Old, err = row.key(tariffs); err != nil {
			return err
		}
		now := a.opt.Now()
		if err := r.Old.usable(now); err != nil {
			return err
		}
		if r.New, err = newKey(r.Old.successor(), r.Secret, now); err != nil {
			return err
		}
		r.New.Plan = r.Old.Plan
		if err := addKey(tx, r.New, a.digests, r.Secret); err != nil {
			return err
		}
		before := r.Old.terms()
		if end := instant(micros(now.Add(overlap))); r.Old.ExpiresAt.IsZero() || end.Before(r.Old.ExpiresAt) {
			r.Old.ExpiresAt = end
			rev, err := nextRev(tx)
			if err != nil {
				return err
			}
			update := map[string]any{"rev": rev, "expires_at": micros(end)}
			if err := tx.Model(&keyRow{}).Where("id = ?", r.Old.ID).Updates(update).Error; err != nil {
				return err
			}
		}
		step := stepOf(before, r.Old.terms())
		step.NewKey = r.New.ID
		return a.record(tx, actionRotate, r.Old.ID, step)
	})
}

// successor describes the key that comes after k. An operator makes it, whoever
// made k.
func (k *Key) successor() NewKey {
	return NewKey{
		Name: k.Name, Description: k.Description, Limits: k.Own, RPM: k.RPM, TPM: k.TPM, Concurrent: k.Concurrent,
		ExpiresAt: k.ExpiresAt, Models: k.Models,
	}
}
