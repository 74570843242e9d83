package billing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gorm.io/gorm"
)

// BackupOptions of Admin.Backup.
type BackupOptions struct {
	GatewayVersion string
	Progress       func(done, total int64) // bytes packed so far; nil = nobody asks
}

// Backup writes a consistent copy of the books to path, beside gateways that
// go on working, and says what is in it. A backup that was there is replaced
// when the new one is complete; any other file is refused with ErrInvalid.
func (a *Admin) Backup(ctx context.Context, path string, o BackupOptions) (Manifest, error) {
	m, err := a.backup(ctx, path, o)
	if err != nil {
		return Manifest{}, fmt.Errorf("backup: %w", err)
	}
	return m, nil
}

func (a *Admin) backup(ctx context.Context, path string, o BackupOptions) (m Manifest, err error) {
	if _, err := ReadBackup(path); errors.Is(err, ErrBackup) {
		return m, fmt.Errorf("%w: %s is there and is no backup; name another file", ErrInvalid, path)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return m, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".llm-gateway-backup-")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	database := filepath.Join(dir, databaseFile)
	m = Manifest{CreatedAt: a.opt.Now().UTC().Truncate(1e6), GatewayVersion: o.GatewayVersion, Storage: a.store.storage(), Instance: a.store.instance}
	if a.store.pg == nil {
		// One read transaction of a connection of its own; writers go on.
		err = a.store.write.WithContext(ctx).Exec("VACUUM INTO ?", database).Error
	} else {
		if err = a.store.copyOut(ctx, database); err == nil {
			err = foldLog(database)
		}
	}
	if err != nil {
		return m, err
	}
	if err := m.describe(ctx, database); err != nil {
		return m, err
	}
	return writeBackup(ctx, m, database, path, o.Progress)
}

// describe looks into the copy: what it holds is what the manifest says, and
// not what the books hold by now.
func (m *Manifest) describe(ctx context.Context, database string) (err error) {
	db, err := connect(fileURL(database)+"?mode=ro", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeDB(db)) }()
	if err := undamaged(db.WithContext(ctx)); err != nil {
		return fmt.Errorf("the copy is damaged, so the books may be: %w", err)
	}
	return db.WithContext(ctx).Raw(`SELECT (SELECT max(version_id) FROM goose_db_version WHERE is_applied) AS schema,
		(SELECT count(*) FROM keys) AS keys, (SELECT count(*) FROM charges) AS charges,
		(SELECT count(*) FROM holds WHERE state < 3) AS open_holds,
		(SELECT COALESCE(sum(total), 0) FROM charges) AS used_tokens`).
		Row().Scan(&m.Schema, &m.Keys, &m.Charges, &m.OpenHolds, &m.UsedTokens)
}

// undamaged lets SQLite look for damage.
func undamaged(db *gorm.DB) error {
	var verdict []string
	if err := db.Raw("PRAGMA quick_check(5)").Scan(&verdict).Error; err != nil {
		return err
	}
	if len(verdict) != 1 || verdict[0] != "ok" {
		return fmt.Errorf("damaged: %v", verdict)
	}
	return nil
}

func closeDB(db *gorm.DB) error {
	pool, err := db.DB()
	if err != nil {
		return err
	}
	return pool.Close()
}

// storage names the database: "sqlite" or "postgresql".
func (s *store) storage() string {
	if s.pg == nil {
		return "sqlite"
	}
	return "postgresql"
}
