package billing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
)

// ImportResult says what an import of a file did with one of its keys.
type ImportResult string

// What can become of a key.
const (
	// ImportAdded: the books did not know it.
	ImportAdded ImportResult = "added"
	// ImportUpdated: it came from the environment, and took limit, name and
	// description from the file.
	ImportUpdated ImportResult = "updated"
	// ImportUnchanged: the books know it; what they say holds.
	ImportUnchanged ImportResult = "unchanged"
	// ImportRevoked: it was revoked or has expired, and stays so.
	ImportRevoked ImportResult = "revoked"
)

// ImportedKey is a key of a file as the books have it now.
type ImportedKey struct {
	Key
	Result ImportResult
}

// ImportFile takes over the keys of a file, all of them or none, and says what
// became of each. The books win over the file, except for a key that stands in
// them only because the environment lists it.
func (b *Book) ImportFile(ctx context.Context, keys []ListedKey) (done []ImportedKey, err error) {
	if b.isClosed() {
		return nil, fmt.Errorf("import keys: %w", ErrClosed)
	}
	err = b.engine.transact(ctx, func(tx *gorm.DB) (err error) {
		done, err = importFile(tx, b.keys.digests, keys, b.opt.Now())
		return err
	})
	if err == nil {
		err = b.keys.load(b.store.read) // nobody tells a process about its own changes
	}
	if err != nil {
		return nil, fmt.Errorf("import keys: %w", err)
	}
	return done, nil
}

// ImportFile is what Book.ImportFile is, beside a running gateway.
func (a *Admin) ImportFile(ctx context.Context, keys []ListedKey) (done []ImportedKey, err error) {
	err = a.store.inTx(ctx, func(tx *gorm.DB) (err error) {
		done, err = importFile(tx, a.digests, keys, a.opt.Now())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("import keys: %w", err)
	}
	return done, nil
}

func importFile(tx *gorm.DB, d *digester, keys []ListedKey, now time.Time) ([]ImportedKey, error) {
	if tx.Name() == "postgres" {
		// Rows first, in the order of their ids, then the revision, as everybody
		// does who changes a key: in another order two could wait for each other.
		var ids []string
		err := tx.Raw("SELECT id FROM keys WHERE origin = ? AND tariff = 0 ORDER BY id FOR NO KEY UPDATE", OriginEnv).Scan(&ids).Error
		if err != nil {
			return nil, err
		}
	}
	if err := lockKeys(tx); err != nil {
		return nil, err
	}
	done := make([]ImportedKey, 0, len(keys))
	for i := range keys {
		k, result, err := importListed(tx, d, &keys[i], now)
		if err != nil {
			return nil, err
		}
		done = append(done, ImportedKey{Key: k, Result: result})
	}
	return done, nil
}

func importListed(tx *gorm.DB, d *digester, l *ListedKey, now time.Time) (Key, ImportResult, error) {
	var rows []keyRow
	if err := tx.Where("digest IN ?", stored(d, l.secret)).Limit(1).Find(&rows).Error; err != nil {
		return Key{}, "", err
	}
	if len(rows) == 0 {
		k, err := addListed(tx, d, l, now)
		return k, ImportAdded, err
	}
	tariffs, err := loadTariffs(tx)
	if err != nil {
		return Key{}, "", err
	}
	k, err := rows[0].key(tariffs)
	ended := k.usable(now)
	switch {
	case err != nil:
		return k, "", err
	case errors.Is(ended, ErrRevokedKey), errors.Is(ended, ErrExpiredKey):
		return k, ImportRevoked, nil
	case k.Origin != OriginEnv || k.Own.Tariff > 0:
		return k, ImportUnchanged, nil
	}
	k, err = updateListed(tx, k, l)
	return k, ImportUpdated, err
}

func addListed(tx *gorm.DB, d *digester, l *ListedKey, now time.Time) (Key, error) {
	n := NewKey{Name: l.Name, Description: l.Description, Limits: Limits{Tariff: l.Limit}, Origin: OriginFile}
	if n.Name == "" {
		n.Name = OriginFile
	}
	k, err := newKey(n, l.secret, now)
	if err != nil {
		return k, err
	}
	if !l.CreatedAt.IsZero() {
		k.CreatedAt = instant(micros(l.CreatedAt))
	}
	return k, addKey(tx, k, d, l.secret)
}

// updateListed gives a key of the environment what the file says of it.
func updateListed(tx *gorm.DB, k Key, l *ListedKey) (Key, error) {
	rev, err := nextRev(tx)
	if err != nil {
		return k, err
	}
	k.Own.Tariff = l.Limit
	if l.Name != "" {
		k.Name = l.Name
	}
	if l.Description != "" {
		k.Description = l.Description
	}
	return k, tx.Model(&keyRow{}).Where("id = ?", k.ID).Updates(map[string]any{
		"tariff": k.Own.Tariff, "name": k.Name, "description": k.Description, "rev": rev,
	}).Error
}
