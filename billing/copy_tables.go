package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// booksTables are what is copied between databases; meta is not one of them,
// because each database has entries of its own there.
func booksTables() []string {
	return []string{"tariffs", "keys", "prices", "accounts", "holds", "charges", "links", "changes"}
}

// emptied are the tables that a new database has rows in.
func emptied() string { return "DELETE FROM tariffs" }

// metaCopied are the entries of meta that belong to the books.
func metaCopied() []string { return []string{"instance", "key_rev", "pepper_check", "currency"} }

// copyOut writes the books that are in PostgreSQL to a new SQLite database, as
// they are at one instant.
func (s *store) copyOut(ctx context.Context, path string) (err error) {
	to := &store{path: path}
	if err := to.open(ctx, adminBusy, true); err != nil {
		return errors.Join(err, to.close())
	}
	defer func() { err = errors.Join(err, to.close()) }()
	from, err := s.read.DB()
	if err != nil {
		return err
	}
	source, err := from.BeginTx(ctx, s.still())
	if err != nil {
		return err
	}
	defer func() { _ = source.Rollback() }() // it only read
	pool, err := to.write.DB()
	if err != nil {
		return err
	}
	target, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := target.ExecContext(ctx, emptied()); err != nil {
		return errors.Join(err, target.Rollback())
	}
	for _, table := range booksTables() {
		if err := copyTable(ctx, source, target, table); err != nil {
			return errors.Join(fmt.Errorf("copy %s: %w", table, err), target.Rollback())
		}
	}
	for _, name := range metaCopied() {
		if err := copyMeta(ctx, source, target, name); err != nil {
			return errors.Join(fmt.Errorf("copy %s: %w", name, err), target.Rollback())
		}
	}
	return target.Commit()
}

// foldLog makes a database that nobody has open one file that can be read and
// moved alone: its write-ahead log goes into it.
func foldLog(path string) (err error) {
	db, err := sql.Open("sqlite", fileURL(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.Exec("PRAGMA journal_mode = DELETE")
	return err
}

// copyTable copies the columns that SQLite's table has.
func copyTable(ctx context.Context, from, to *sql.Tx, table string) error {
	columns, err := columnsOf(ctx, to, table)
	if err != nil {
		return err
	}
	list := strings.Join(columns, ", ")
	//nolint:gosec // names of our own tables and columns
	insert, err := to.PrepareContext(ctx, "INSERT INTO "+table+" ("+list+") VALUES (?"+strings.Repeat(", ?", len(columns)-1)+")")
	if err != nil {
		return err
	}
	defer func() { _ = insert.Close() }()
	//nolint:gosec // names of our own tables and columns
	rows, err := from.QueryContext(ctx, "SELECT "+list+" FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	values, pointers := anything(len(columns))
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
	return rows.Err()
}

// anything is room for the values of a row, whatever they are.
func anything(n int) (values, pointers []any) {
	values, pointers = make([]any, n), make([]any, n)
	for i := range values {
		pointers[i] = &values[i]
	}
	return values, pointers
}

// reader is a database or a transaction.
type reader interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func columnsOf(ctx context.Context, db reader, table string) ([]string, error) {
	return texts(db.QueryContext(ctx, "SELECT name FROM pragma_table_info(?) ORDER BY cid", table))
}

// texts are the rows of a query of one column.
func texts(rows *sql.Rows, err error) (list []string, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}

func copyMeta(ctx context.Context, from, to *sql.Tx, name string) error {
	var value string
	err := from.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = $1", name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		_, err = to.ExecContext(ctx, "INSERT INTO meta (k, v) VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v", name, value)
	}
	return err
}

// copyIn fills a fresh schema of PostgreSQL from an SQLite database at the
// newest version. Open holds are of a gateway that is no more: whoever opens
// the books settles them.
func copyIn(ctx context.Context, path string, to *pgx.Conn) (err error) {
	from, err := sql.Open("sqlite", fileURL(path)+"?mode=ro")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	tx, err := to.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after the commit it does nothing
	if _, err := tx.Exec(ctx, emptied()); err != nil {
		return err
	}
	for _, table := range booksTables() {
		if err := copyTableIn(ctx, from, tx, table); err != nil {
			return fmt.Errorf("copy %s: %w", table, err)
		}
	}
	for _, name := range metaCopied() {
		var value string
		err := from.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = ?", name).Scan(&value)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			_, err = tx.Exec(ctx, "INSERT INTO meta (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v", name, value)
		}
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return tx.Commit(ctx)
}

func copyTableIn(ctx context.Context, from *sql.DB, to pgx.Tx, table string) error {
	columns, err := columnsOf(ctx, from, table)
	if err != nil {
		return err
	}
	//nolint:gosec,sqlclosecheck // names of our own tables and columns; closed below
	rows, err := from.QueryContext(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	target := slices.Clone(columns)
	if table == "holds" {
		target = append(target, "replica")
	}
	_, err = to.CopyFrom(ctx, pgx.Identifier{table}, target, pgx.CopyFromFunc(func() ([]any, error) {
		if !rows.Next() {
			return nil, rows.Err()
		}
		values, pointers := anything(len(columns))
		if err := rows.Scan(pointers...); err != nil {
			return nil, err
		}
		if table == "holds" {
			values = append(values, "restored")
		}
		return values, nil
	}))
	return err
}
