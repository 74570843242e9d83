package billing

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"
	"modernc.org/sqlite"
)

// keyRow is a row of the table keys.
type keyRow struct {
	ID          string `gorm:"primaryKey"`
	Digest      []byte
	DigestKind  string
	Name        string
	Description string
	Display     string
	Tariff      int64
	Daily       int64
	Monthly     int64
	RPM         int64 `gorm:"column:rpm"`
	TPM         int64 `gorm:"column:tpm"`
	Concurrent  int64
	Plan        string
	Money       int64
	Models      string
	Origin      string
	CreatedAt   int64 `gorm:"autoCreateTime:false"`
	ExpiresAt   int64
	RevokedAt   int64
	BlockedAt   int64
	Rev         int64
}

// TableName is read by GORM.
func (keyRow) TableName() string { return "keys" }

// key is the row with its plan, which is one of tariffs.
func (r *keyRow) key(tariffs tariffs) (Key, error) {
	k := Key{
		ID: r.ID, Name: r.Name, Description: r.Description, Display: r.Display,
		Own: Limits{Tariff: r.Tariff, Daily: r.Daily, Monthly: r.Monthly, Money: r.Money},
		RPM: r.RPM, TPM: r.TPM, Concurrent: r.Concurrent, Plan: tariffs[r.Plan], Origin: r.Origin,
		CreatedAt: instant(r.CreatedAt), ExpiresAt: instant(r.ExpiresAt), RevokedAt: instant(r.RevokedAt), BlockedAt: instant(r.BlockedAt),
	}
	if r.Models == "" {
		return k, nil
	}
	return k, json.Unmarshal([]byte(r.Models), &k.Models)
}

// addKey inserts a key under the digest of its secret.
func addKey(tx *gorm.DB, k Key, d *digester, secret string) error {
	rev, err := nextRev(tx)
	if err != nil {
		return err
	}
	if d.kind() == kindHMAC {
		// Another process may have come with its own pepper meanwhile.
		if known, err := pepperCheck(tx); err != nil || known != d.check() {
			return errors.Join(err, fmt.Errorf("%w: another one is in use", ErrPepper))
		}
	}
	models, err := modelsColumn(k.Models)
	if err != nil {
		return err
	}
	sum := d.of(secret)
	return tx.Create(&keyRow{
		ID: k.ID, Digest: sum[:], DigestKind: d.kind(),
		Name: k.Name, Description: k.Description, Display: k.Display,
		Tariff: k.Own.Tariff, Daily: k.Own.Daily, Monthly: k.Own.Monthly, Money: k.Own.Money, Plan: k.planName(),
		RPM: k.RPM, TPM: k.TPM, Concurrent: k.Concurrent,
		Models: models, Origin: k.Origin,
		CreatedAt: micros(k.CreatedAt), ExpiresAt: micros(k.ExpiresAt), RevokedAt: micros(k.RevokedAt), BlockedAt: micros(k.BlockedAt),
		Rev: rev,
	}).Error
}

// nextRev counts every change of a key, so that a gateway can ask for what is new.
func nextRev(tx *gorm.DB) (rev int64, err error) {
	if tx.Name() == "postgres" {
		// Delivered with the commit. Those who miss it look again within a second.
		if err := tx.Exec("SELECT pg_notify('" + pgChannel + "', '')").Error; err != nil {
			return 0, err
		}
	}
	err = tx.Raw("UPDATE meta SET v = CAST(CAST(v AS BIGINT) + 1 AS TEXT) WHERE k = 'key_rev' RETURNING CAST(v AS BIGINT)").Scan(&rev).Error
	return rev, err
}

// lockKeys keeps everybody else from making keys until the transaction ends.
// With SQLite the transaction does so by itself.
func lockKeys(tx *gorm.DB) error {
	return tx.Exec("UPDATE meta SET v = v WHERE k = 'key_rev'").Error
}

// micros and instant turn times into whole microseconds UTC and back; zero is "none".
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMicro(), 0)
}

func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// SQLite's primary result codes that we tell apart.
const (
	sqliteError      = 1
	sqliteCorrupt    = 11
	sqliteTooBig     = 18
	sqliteConstraint = 19
	sqliteMismatch   = 20
	sqliteRange      = 25
)

// resultCode is the primary SQLite code in err, 0 when there is none.
func resultCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff
	}
	return 0
}
