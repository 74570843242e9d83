package billing

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// Every schema that a release had is brought up to this program's with what is
// in it: keys work, charges are counted and sealed, open holds are settled.
func TestSchemasOfEveryVersionAreBroughtUp(t *testing.T) {
	pg := postgres15(t)
	for dialect, at := range map[goose.Dialect]home{goose.DialectSQLite3: {}, goose.DialectPostgres: pg} {
		newest := newestVersion(t, dialect)
		for version := int64(1); version < newest; version++ {
			t.Run(fmt.Sprintf("%s/%d", dialect, version), func(t *testing.T) {
				o := at.options(t, newClock(testNow))
				older(t, dialect, o, version)
				b := openBook(t, o)
				k, err := b.Lookup("sk-test-old")
				if err != nil || k.Own.Daily != 500 || k.Plan != nil || k.Own.Money != 0 {
					t.Fatalf("%+v, %v", k, err)
				}
				bal := balance(t, b, k.ID)
				if bal.UsedToday != 37 || bal.HeldToday != 0 || bal.UsedMonth != 37 { // 30, and 7 that were seen of the open one
					t.Errorf("balance is %+v", bal)
				}
				settle(t, b, reserve(t, b, ask(k.ID, 50)).ID, 1, 2)
				mustBalance(t, o)
				if r := audit(t, o); r.Charges != 3+sealBatch || !slices.ContainsFunc(r.Chains, func(h ChainHead) bool { return h.Writer == oldWriter && h.Charges == 1+sealBatch && h.Links == 2 }) {
					t.Errorf("%+v", r)
				}
			})
		}
		if newest < 4 {
			t.Errorf("%s: the newest version is %d", dialect, newest)
		}
	}
}

// newestVersion is that of this program.
func newestVersion(t *testing.T, dialect goose.Dialect) int64 {
	t.Helper()
	db, err := sql.Open("sqlite", ":memory:") // it is asked nothing
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all, err := steps(dialect, db)
	if err != nil {
		t.Fatal(err)
	}
	sources := all.ListSources()
	return sources[len(sources)-1].Version
}

// older makes books of an older version with a key, a charge and an open hold.
func older(t *testing.T, dialect goose.Dialect, o Options, version int64) {
	t.Helper()
	var db *sql.DB
	if dialect == goose.DialectSQLite3 {
		path := filepath.Join(o.DataDir, databaseFile)
		if err := createFile(path); err != nil {
			t.Fatal(err)
		}
		gdb, err := connect(dsn(path, adminBusy, "&_txlock=immediate"), 1)
		if err != nil {
			t.Fatal(err)
		}
		if db, err = gdb.DB(); err != nil {
			t.Fatal(err)
		}
	} else {
		c, err := pgConfig(o.URL)
		if err != nil {
			t.Fatal(err)
		}
		db = stdlib.OpenDB(*c)
	}
	defer db.Close()
	all, err := steps(dialect, db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := all.UpTo(context.Background(), version); err != nil {
		t.Fatal(err)
	}
	sum := plain("sk-test-old")
	replica, name := "", ""
	if dialect == goose.DialectPostgres {
		replica, name = ", replica", ", 'gone'"
		if err := os.WriteFile(filepath.Join(o.DataDir, replicaFile), []byte("gone\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	columns, values := "", ""
	if dialect == goose.DialectPostgres || version >= 2 {
		columns, values = ", tpm, concurrent", ", 0, 0"
	}
	for _, statement := range []string{
		fmt.Sprintf(`INSERT INTO keys (id, digest, digest_kind, name, description, display, tariff, daily, monthly, rpm, models, origin,
			created_at, expires_at, revoked_at, rev%s) VALUES ('key_0123456789abcdefghjkmnpqrs', %s, 'sha256', 'old', '', '', 0, 500, 0, 3, '', 'created', 1, 0, 0, 1%s)`,
			columns, literal(dialect, sum[:]), values),
		"UPDATE meta SET v = '1' WHERE k = 'key_rev'",
		"INSERT INTO accounts (key_id, day, used, held, requests) VALUES ('key_0123456789abcdefghjkmnpqrs', '2026-11-23', 30, 70, 501)", // 1 + sealBatch
		freeCharges(sealBatch),
		fmt.Sprintf(`INSERT INTO holds (id, key_id, day, model, endpoint, request_id, tokens, prompt_bound, prompt_estimate, state, seen_prompt,
			seen_completion, admitted_at, resolved_at%s) VALUES ('01a20846-fe00-7484-abd7-000000000002', 'key_0123456789abcdefghjkmnpqrs', '2026-11-23', 'm', '/v1', 'r',
			70, 60, 5, 2, 4, 3, 1763900000000000, 0%s)`, replica, name),
		`INSERT INTO charges (id, ref, kind, key_id, day, model, answer_model, endpoint, request_id, prompt, completion, total, cached, reasoning,
			provenance, hold_tokens, overshoot, note, admitted_at, settled_at) VALUES ('01a20846-fe00-7484-abd7-000000000001', NULL, 'charge',
			'key_0123456789abcdefghjkmnpqrs', '2026-11-23', 'm', '', '/v1', 'r', 10, 20, 30, 0, 0, 'reported', 50, 0, '', 1763900000000000, 1763900001000000)`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if dialect == goose.DialectSQLite3 {
		execSQL(t, &rawDB{DB: db}, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
}

// freeCharges is a statement that posts so many charges of nothing.
func freeCharges(n int) string {
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf(`('01a20846-fe00-7484-abd8-%012d', NULL, 'charge', 'key_0123456789abcdefghjkmnpqrs', '2026-11-23', 'm', '', '/v1', 'r',
			0, 0, 0, 0, 0, 'expired', 50, 0, '', 1763900000000000, 1763900001000000)`, i)
	}
	return `INSERT INTO charges (id, ref, kind, key_id, day, model, answer_model, endpoint, request_id, prompt, completion, total, cached, reasoning,
		provenance, hold_tokens, overshoot, note, admitted_at, settled_at) VALUES ` + strings.Join(rows, ", ")
}

// literal writes bytes as a dialect does.
func literal(dialect goose.Dialect, b []byte) string {
	if dialect == goose.DialectSQLite3 {
		return fmt.Sprintf("x'%x'", b)
	}
	return "'" + strings.Join([]string{`\x`, fmt.Sprintf("%x", b)}, "") + "'"
}
