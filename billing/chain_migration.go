package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

// oldWriter names the chain of charges that are older than chains.
const oldWriter = "before"

// sealBatch is how many old charges one link seals.
const sealBatch = 500

// steps are all migrations of a dialect: the files, and the one that SQL cannot do.
func steps(dialect goose.Dialect, db *sql.DB) (*goose.Provider, error) {
	folder, version, link := "migrations/sqlite", int64(5), "INSERT INTO links (writer, link, charges, sealed, hash) VALUES (?, ?, ?, ?, ?)"
	after := "SELECT " + chargeColumns + " FROM charges WHERE id > ? ORDER BY id LIMIT ?"
	if dialect == goose.DialectPostgres {
		folder, version, link = "migrations/postgres", 4, "INSERT INTO links (writer, link, charges, sealed, hash) VALUES ($1, $2, $3, $4, $5)"
		after = "SELECT " + chargeColumns + " FROM charges WHERE id > $1 ORDER BY id LIMIT $2"
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, err
	}
	seal := goose.NewGoMigration(version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		return sealOld(ctx, tx, after, link)
	}}, nil)
	return goose.NewProvider(dialect, db, files, goose.WithGoMigrations(seal))
}

// sealOld seals the charges that were there before there was a chain.
func sealOld(ctx context.Context, tx *sql.Tx, after, link string) error {
	last, hash := "", firstHash(oldWriter)
	for n := int64(1); ; n++ {
		charges, err := chargesOf(tx.QueryContext(ctx, after, last, sealBatch))
		if err != nil || len(charges) == 0 {
			return err
		}
		var s sealer
		for i := range charges {
			if err := s.add(&charges[i]); err != nil {
				return err
			}
		}
		sealed := s.sealed()
		hash = nextHash(hash, sealed)
		if _, err := tx.ExecContext(ctx, link, oldWriter, n, s.count(), sealed, hash); err != nil {
			return fmt.Errorf("seal charges: %w", err)
		}
		last = charges[len(charges)-1].ID
	}
}

// chargesOf reads the answer to a query of chargeColumns.
func chargesOf(rows *sql.Rows, err error) (list []charge, _ error) {
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c charge
		if err := rows.Scan(c.pointers()...); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}
