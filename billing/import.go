package billing

import (
	"context"
	"fmt"

	"gorm.io/gorm"
)

// Import adds secrets that are listed elsewhere, under default limits, and
// says how many were new. A secret that the books know, revoked or not, is
// left as it is. ErrInvalid: a secret that no client could present.
func (b *Book) Import(ctx context.Context, secrets []string, origin string) (added int, err error) {
	for i, s := range secrets {
		if !plausible(s) {
			return 0, fmt.Errorf("import keys: %w: secret %d has a form that is refused", ErrInvalid, i+1)
		}
	}
	if b.isClosed() {
		return 0, fmt.Errorf("import keys: %w", ErrClosed)
	}
	err = b.engine.transact(ctx, func(tx *gorm.DB) (err error) {
		added, err = b.importKeys(tx, secrets, origin)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("import keys: %w", err)
	}
	// Nobody tells a process about its own changes.
	if err := b.keys.load(b.store.read); err != nil {
		return 0, fmt.Errorf("import keys: %w", err)
	}
	return added, nil
}

func (b *Book) importKeys(tx *gorm.DB, secrets []string, origin string) (added int, err error) {
	if err := lockKeys(tx); err != nil {
		return 0, err
	}
	for _, secret := range secrets {
		if known, err := knownSecret(tx, b.keys.digests, secret); err != nil || known {
			if err != nil {
				return 0, err
			}
			continue
		}
		k, err := newKey(NewKey{Name: origin, Origin: origin}, secret, b.opt.Now())
		if err != nil {
			return 0, err
		}
		if err := addKey(tx, k, b.keys.digests, secret); err != nil {
			return 0, err
		}
		added++
	}
	return added, nil
}
