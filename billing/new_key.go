package billing

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// NewKey describes a key to create. Limits are > 0 where given; 0 is the
// plan's, else the gateway's default for Limits and RPM, none for TPM, Concurrent
// and Limits.Money.
type NewKey struct {
	Name, Description string
	Limits            Limits
	RPM               int64     // requests per minute
	TPM               int64     // tokens per minute
	Concurrent        int64     // requests at once
	ExpiresAt         time.Time // zero = never
	Models            []string  // patterns of ModelMatches; empty = all
	Plan              string    // name of a tariff, "" = none
	Origin            string    // "" = "created"
}

// CreateKey makes a key and returns its secret, which is stored nowhere and
// cannot be shown again. ErrInvalid: a negative limit, an expiry in the past,
// or a text that cannot be stored. ErrUnknownTariff.
func (a *Admin) CreateKey(ctx context.Context, n NewKey) (Key, string, error) {
	k, secret, _, err := a.create(ctx, n, false)
	return k, secret, err
}

// CreateFirstKey makes a key when there has never been any, and says whether it
// did; of all that try at the same time, in any process, one does. Errors as of
// CreateKey.
func (a *Admin) CreateFirstKey(ctx context.Context, n NewKey) (k Key, secret string, made bool, err error) {
	return a.create(ctx, n, true)
}

func (a *Admin) create(ctx context.Context, n NewKey, first bool) (k Key, secret string, made bool, err error) {
	defer func() {
		if err != nil {
			k, secret, made, err = Key{}, "", false, fmt.Errorf("create key: %w", err)
		}
	}()
	now := a.opt.Now()
	if err := n.validate(now); err != nil {
		return k, "", false, err
	}
	if secret, err = NewSecret(); err != nil {
		return k, "", false, err
	}
	if k, err = newKey(n, secret, now); err != nil {
		return k, "", false, err
	}
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		if err := lockKeys(tx); err != nil {
			return err
		}
		if first {
			var keys int64
			if err := tx.Model(&keyRow{}).Count(&keys).Error; err != nil || keys > 0 {
				return err
			}
		}
		made = true
		if n.Plan != "" {
			plans, err := loadTariffs(tx)
			if err != nil {
				return err
			}
			if k.Plan, err = plans.find(n.Plan); err != nil {
				return err
			}
		}
		if err := addKey(tx, k, a.digests, secret); err != nil {
			return err
		}
		return a.record(tx, actionCreate, k.ID, stepOf(nil, k.terms()))
	})
	if err == nil && !made {
		return Key{}, "", false, nil
	}
	return k, secret, made, err
}

func (n *NewKey) validate(now time.Time) error {
	for _, limit := range []int64{n.Limits.Tariff, n.Limits.Daily, n.Limits.Monthly, n.Limits.Money, n.RPM, n.TPM, n.Concurrent} {
		if limit < 0 {
			return fmt.Errorf("%w: a limit must be > 0", ErrInvalid)
		}
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(now) {
		return fmt.Errorf("%w: the expiry is in the past", ErrInvalid)
	}
	for _, text := range []string{n.Name, n.Description, n.Origin} {
		if storable(text) != text {
			return fmt.Errorf("%w: a text is not UTF-8, or has a zero byte", ErrInvalid)
		}
	}
	return checkModels(n.Models)
}
