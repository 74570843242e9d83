package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// pgInstance marks the data directory of books in PostgreSQL, so that a
// directory of SQLite's books is not taken for one whose database is gone.
const pgInstance = "postgresql "

// pgMicros is the database's time in microseconds UTC, of now and not of the
// transaction's start.
const pgMicros = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"

// openPostgres opens the books' database, making and migrating it where it is
// new. queries is how long a query may take, 0 = for ever. It returns the
// clock that the database goes by.
func openPostgres(ctx context.Context, o Options, queries time.Duration) (*store, *dbClock, error) {
	c, err := pgConfig(o.URL)
	if err != nil {
		return nil, nil, err
	}
	pool := pgWith(c, map[string]string{
		"lock_timeout":      fmt.Sprint(adminBusy.Milliseconds()),
		"statement_timeout": fmt.Sprint(queries.Milliseconds()),
	})
	db := stdlib.OpenDB(*pool)
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(time.Minute)
	s := &store{pg: c}
	clock := &dbClock{fixed: o.Now}
	if err := s.openPostgres(ctx, db, o, clock); err != nil {
		return nil, nil, errors.Join(hide(err, c), db.Close())
	}
	return s, clock, nil
}

func (s *store) openPostgres(ctx context.Context, db *sql.DB, o Options, clock *dbClock) error {
	fresh, err := pgPrepare(ctx, db, o)
	if err != nil {
		return err
	}
	s.write, err = gorm.Open(postgres.New(postgres.Config{Conn: db}), &gorm.Config{
		Logger:                 logger.Discard, // statements carry digests
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
	})
	if err != nil {
		return err
	}
	s.read = s.write
	var us int64
	if err := db.QueryRowContext(ctx, "SELECT v, "+pgMicros+" FROM meta WHERE k = 'instance'").Scan(&s.instance, &us); err != nil {
		return err
	}
	clock.learn(us)
	if fresh {
		if err := noPostgresKnown(o.DataDir, s.instance); err != nil {
			return err
		}
	}
	return claim(o.DataDir, pgInstance+s.instance)
}

// pgPrepare looks at the schema and brings it up to date. One process at a
// time does so; the lock ends with its connection.
func pgPrepare(ctx context.Context, db *sql.DB, o Options) (fresh bool, err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var schema sql.NullString
	if err := conn.QueryRowContext(ctx, "SELECT current_schema()").Scan(&schema); err != nil {
		return false, err
	}
	if !schema.Valid {
		return false, fmt.Errorf("%w: the database has no schema of the URL's search_path", ErrInvalid)
	}
	if err := pgLock(ctx, conn); err != nil {
		return false, err
	}
	defer func() {
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock_all()")
		err = errors.Join(err, unlock)
	}()
	if fresh, err = pgInspect(ctx, conn, o.DataDir); err != nil {
		return fresh, err
	}
	if err := pgMigrate(ctx, db); err != nil {
		return fresh, fmt.Errorf("migrate: %w", err)
	}
	return fresh, nil
}

// pgLock takes the lock of this schema's migrations. It asks again and again,
// since one that waits would run into the connection's own limits.
func pgLock(ctx context.Context, conn *sql.Conn) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		var locked bool
		err := conn.QueryRowContext(ctx,
			"SELECT pg_try_advisory_lock(hashtext('llm-gateway books'), hashtext(current_schema()))").Scan(&locked)
		if err != nil || locked {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock of the migrations: %w", context.Cause(ctx))
		case <-retry.C:
		}
	}
}

// pgInspect says whether the schema is a place for new books. It refuses one
// with tables that are not ours.
func pgInspect(ctx context.Context, conn *sql.Conn, dataDir string) (fresh bool, err error) {
	var tables, meta int
	err = conn.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE relname = 'meta') FROM pg_class
		WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
		AND relname <> 'goose_db_version'`).Scan(&tables, &meta)
	if err != nil {
		return false, err
	}
	if tables == 0 {
		return true, noPostgresKnown(dataDir, "")
	}
	format := ""
	if meta > 0 {
		err = conn.QueryRowContext(ctx, "SELECT v::text FROM meta WHERE k::text = 'format'").Scan(&format)
		if state, _ := sqlState(err); errors.Is(err, sql.ErrNoRows) || strings.HasPrefix(state, "42") && state != "42501" {
			err = nil // another program's table of this name, with other rows or columns
		}
		if err != nil {
			return false, err
		}
	}
	if format != booksFormat {
		return false, fmt.Errorf("%w: its schema holds other tables; name another database or a search_path", ErrForeignDatabase)
	}
	return false, nil
}

// noPostgresKnown refuses to begin new books where this directory's own were,
// be it that another gateway has just begun them.
func noPostgresKnown(dataDir, instance string) error {
	path := filepath.Join(dataDir, instanceFile)
	mark, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	known := strings.TrimSpace(string(mark))
	if err == nil && strings.HasPrefix(known, pgInstance) && known != pgInstance+instance {
		err = fmt.Errorf("%w: the database is empty, but %s shows that there were books; restore a backup, or move %s and %s away to begin new books",
			ErrMissingDatabase, path, instanceFile, spillFile)
	}
	return err
}

func pgMigrate(ctx context.Context, db *sql.DB) error {
	all, err := steps(goose.DialectPostgres, db)
	if err != nil {
		return err
	}
	return migrateUp(ctx, all)
}
