package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// exchangeSchema fills a schema beside the books' own with a database, proves
// it, and then exchanges the tables of the two in one transaction. What was
// there is kept in a schema of its own.
func exchangeSchema(ctx context.Context, o Options, m Manifest, staged, aside string) (kept string, err error) {
	c, err := pgConfig(o.URL)
	if err != nil {
		return "", err
	}
	c = pgWith(c, map[string]string{"lock_timeout": fmt.Sprint(adminBusy.Milliseconds())})
	db := stdlib.OpenDB(*c)
	defer func() { err = hide(errors.Join(err, db.Close()), c) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := pgLock(ctx, conn); err != nil {
		return "", err
	}
	defer func() {
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock_all()")
		err = errors.Join(err, unlock)
	}()
	fresh, err := pgInspect(ctx, conn, o.DataDir)
	if errors.Is(err, ErrMissingDatabase) {
		fresh, err = true, nil // that is what a backup is for
	}
	if err != nil {
		return "", err
	}
	if !fresh {
		if err := nobodyAtWork(ctx, conn); err != nil {
			return "", err
		}
	}
	var current string
	if err := conn.QueryRowContext(ctx, "SELECT current_schema()").Scan(&current); err != nil {
		return "", err
	}
	stage := current + "_restore" // a database may hold the books of several gateways, each in its schema
	aside = strings.ToLower(strings.ReplaceAll(aside, "-", "_"))
	if err := fillSchema(ctx, conn, c, stage, staged); err != nil {
		_, drop := conn.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA IF EXISTS "+quoted(stage)+" CASCADE")
		return "", errors.Join(err, drop)
	}
	if kept, err = swapSchemas(ctx, conn, current, stage, current+"_"+aside); err != nil {
		return kept, err
	}
	return kept, claimPostgres(o.DataDir, m.Instance, aside)
}

// nobodyAtWork refuses while a gateway's lease stands. One that starts now
// waits for the lock of the migrations, which is held.
func nobodyAtWork(ctx context.Context, conn *sql.Conn) error {
	var alive int
	err := conn.QueryRowContext(ctx, "SELECT count(*) FROM replicas WHERE lease_until > "+pgMicros).Scan(&alive)
	if err == nil && alive > 0 {
		err = fmt.Errorf("%w: %d gateways are at work, or ended less than a lease ago", ErrInUse, alive)
	}
	return err
}

// fillSchema makes the books' tables in a new schema and fills them.
func fillSchema(ctx context.Context, conn *sql.Conn, c *pgx.ConnConfig, schema, staged string) (err error) {
	// One of a restore that was cut off is of no use to anybody.
	if _, err := conn.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+quoted(schema)+" CASCADE"); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, "CREATE SCHEMA "+quoted(schema)); err != nil {
		return fmt.Errorf("a restore builds the books in a schema of its own, which needs the privilege CREATE on the database: %w", err)
	}
	inside := pgWith(c, map[string]string{"search_path": quoted(schema)})
	db := stdlib.OpenDB(*inside)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := pgMigrate(ctx, db); err != nil {
		return err
	}
	to, err := pgConnect(ctx, inside)
	if err != nil {
		return err
	}
	defer pgDrop(to)
	if err := copyIn(ctx, staged, to); err != nil {
		return err
	}
	_, err = to.Exec(ctx, "ANALYZE")
	return err
}

// swapSchemas moves the books' tables from one schema into the current one,
// and those that were there into another.
func swapSchemas(ctx context.Context, conn *sql.Conn, current, stage, aside string) (kept string, err error) {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }() // after the commit it does nothing
	old, err := tablesOf(ctx, tx, current)
	if err != nil {
		return "", err
	}
	into := func(table, from, to string) error {
		_, err := tx.ExecContext(ctx, "ALTER TABLE "+quoted(from, table)+" SET SCHEMA "+quoted(to))
		return err
	}
	if len(old) > 0 {
		kept = aside
		if _, err := tx.ExecContext(ctx, "CREATE SCHEMA "+quoted(kept)); err != nil {
			return "", err
		}
	}
	for _, table := range old {
		if err := into(table, current, kept); err != nil {
			return "", err
		}
	}
	restored, err := tablesOf(ctx, tx, stage)
	if err != nil {
		return "", err
	}
	for _, table := range restored {
		if err := into(table, stage, current); err != nil {
			return "", err
		}
	}
	if _, err := tx.ExecContext(ctx, "DROP SCHEMA "+quoted(stage)); err != nil {
		return "", err
	}
	return kept, tx.Commit()
}

func quoted(names ...string) string { return pgx.Identifier(names).Sanitize() }

// tablesOf are the tables of the books in a schema, the migrations' included;
// other tables cannot be there, or the schema would have been refused.
func tablesOf(ctx context.Context, tx *sql.Tx, schema string) ([]string, error) {
	return texts(tx.QueryContext(ctx, `SELECT relname::text FROM pg_class
		WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') ORDER BY relname`, quoted(schema)))
}

// claimPostgres leaves the mark of the restored books in the data directory.
// Charges that wait there for other books are kept aside.
func claimPostgres(dataDir, instance, aside string) error {
	path := filepath.Join(dataDir, instanceFile)
	known, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	spilled := filepath.Join(dataDir, spillFile)
	if info, err := os.Stat(spilled); err == nil && info.Size() > 0 && strings.TrimSpace(string(known)) != pgInstance+instance {
		folder := filepath.Join(dataDir, aside)
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		if err := os.Rename(spilled, filepath.Join(folder, spillFile)); err != nil {
			return err
		}
	}
	return writeFile(path, pgInstance+instance+"\n")
}
