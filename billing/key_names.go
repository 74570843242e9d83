package billing

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"

	"github.com/jackc/pgx/v5"
)

// KeyName is what a list to choose a key from shows of it.
type KeyName struct {
	ID, Name string
	Revoked  bool
}

// KeyNames lists the keys, oldest first, for somebody who is still typing. It
// makes, changes and migrates nothing, and fails where there are no books.
func KeyNames(ctx context.Context, o Options) ([]KeyName, error) {
	query := "SELECT id, name, revoked_at > 0 FROM keys WHERE id LIKE 'key\\_%' ESCAPE '\\' ORDER BY created_at, id"
	read := sqliteKeyNames
	if o.URL != "" {
		read = pgKeyNames
	}
	names, err := read(ctx, o, query)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return names, nil
}

func sqliteKeyNames(ctx context.Context, o Options, query string) (names []KeyName, err error) {
	path := o.Path
	if path == "" {
		path = filepath.Join(o.DataDir, databaseFile)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", fileURL(path)+"?mode=ro&_pragma=busy_timeout(200)&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var format string
	if err := db.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = 'format'").Scan(&format); err != nil {
		return nil, err
	}
	if format != booksFormat {
		return nil, ErrForeignDatabase
	}
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k KeyName
		if err := rows.Scan(&k.ID, &k.Name, &k.Revoked); err != nil {
			return nil, err
		}
		names = append(names, k)
	}
	return names, rows.Err()
}

func pgKeyNames(ctx context.Context, o Options, query string) ([]KeyName, error) {
	c, err := pgConfig(o.URL)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, pgWith(c, map[string]string{"default_transaction_read_only": "on"}))
	if err != nil {
		return nil, hide(err, c)
	}
	defer pgDrop(conn)
	rows, err := conn.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[KeyName])
}
