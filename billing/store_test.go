package billing

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contentOf maps the files of a directory to what is in them.
func contentOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestForeignDatabasesAreRefusedUntouched(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"another gateway's": func(t *testing.T, path string) {
			create(t, path, "CREATE TABLE api_key_usage (a)", "CREATE TABLE api_key_limits (b)", "INSERT INTO api_key_usage VALUES (1)")
		},
		"write-ahead log": func(t *testing.T, path string) {
			create(t, path, "PRAGMA journal_mode=WAL", "CREATE TABLE api_key_usage (a)")
		},
		"a table of the same name": func(t *testing.T, path string) { create(t, path, "CREATE TABLE meta (other)") },
		"no database":              func(t *testing.T, path string) { write(t, path, strings.Repeat("hello ", 100)) },
		"a few bytes":              func(t *testing.T, path string) { write(t, path, "x") },
		"all in the log": func(t *testing.T, path string) {
			other := filepath.Join(t.TempDir(), "other.db")
			db, err := sql.Open("sqlite", other)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			execSQL(t, &rawDB{DB: db}, "PRAGMA journal_mode=WAL")
			execSQL(t, &rawDB{DB: db}, "CREATE TABLE api_key_usage (a)")
			for _, suffix := range []string{"", "-wal"} { // as after a crash
				data, err := os.ReadFile(other + suffix)
				if err != nil {
					t.Fatal(err)
				}
				write(t, path+suffix, string(data))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := options(t.TempDir(), newClock(testNow))
			o.Path = filepath.Join(dir, "foreign.db")
			make(t, o.Path)
			before := contentOf(t, dir)
			if b, err := Open(context.Background(), o); !errors.Is(err, ErrForeignDatabase) || strings.Contains(err.Error(), "\n") {
				t.Errorf("open: %v, %v, want one line of ErrForeignDatabase", b, err)
			}
			if _, err := OpenAdmin(context.Background(), o); !errors.Is(err, ErrForeignDatabase) {
				t.Errorf("open admin: %v, want ErrForeignDatabase", err)
			}
			if diff := cmp.Diff(before, contentOf(t, dir)); diff != "" {
				t.Errorf("the foreign file was touched: %s", diff)
			}
		})
	}
}

func create(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, s := range statements {
		execSQL(t, &rawDB{DB: db}, s)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestALostDatabaseIsNotReplacedByAnEmptyOne(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	b, _ := setup(t, o, Limits{})
	shut(t, b)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(o.DataDir, databaseFile+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := Open(context.Background(), o); !errors.Is(err, ErrMissingDatabase) {
			t.Fatalf("error is %v, want ErrMissingDatabase", err)
		}
	}
	write(t, filepath.Join(o.DataDir, databaseFile), "")
	if _, err := OpenAdmin(context.Background(), o); !errors.Is(err, ErrMissingDatabase) {
		t.Fatalf("empty file: %v, want ErrMissingDatabase", err)
	}
}

func testOnlyOneGatewayAtATime(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	b := openBook(t, o)
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrInUse) {
		t.Fatalf("error is %v, want ErrInUse", err)
	}
	openAdmin(t, o)
	shut(t, b)
	openBook(t, o)
}

func TestDamageIsFoundAtOpen(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	b, k := setup(t, o, Limits{})
	for range 50 {
		settle(t, b, reserve(t, b, ask(k.ID, 1)).ID, 1, 0)
	}
	shut(t, b)
	path := filepath.Join(o.DataDir, databaseFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 3 * 4096; i+200 < len(data); i += 4096 {
		copy(data[i:], bytes.Repeat([]byte{0x5a}, 200))
	}
	write(t, path, string(data))
	if _, err := Open(context.Background(), o); err == nil {
		t.Fatal("damaged books were opened")
	}
}

func testPepperMustBeTheSame(t *testing.T, at home) {
	o := at.options(t, newClock(testNow))
	_, plainSecret := createKey(t, o, Limits{})
	o.Pepper = []byte("pepper")
	_, secret := createKey(t, o, Limits{})
	b := openBook(t, o)
	for _, s := range []string{plainSecret, secret} {
		if _, err := b.Lookup(s); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, b)
	for _, wrong := range [][]byte{nil, []byte("other")} {
		o.Pepper = wrong
		if _, err := Open(context.Background(), o); !errors.Is(err, ErrPepper) {
			t.Fatalf("pepper %q: %v, want ErrPepper", wrong, err)
		}
	}
}

func TestNoSecretIsInAnyFile(t *testing.T) {
	o := options(t.TempDir(), newClock(testNow))
	k, secret := createKey(t, o, Limits{})
	b := openBook(t, o)
	const canary = "sk-test-canary-0123456789"
	if _, err := b.Import(context.Background(), []string{canary}, OriginEnv); err != nil {
		t.Fatal(err)
	}
	settle(t, b, reserve(t, b, ask(k.ID, 1)).ID, 1, 0)
	for path, content := range contentOf(t, o.DataDir) {
		for _, s := range []string{secret, canary, secret[len(secretPrefix) : len(secretPrefix)+secretRandom]} {
			if strings.Contains(content, s) {
				t.Errorf("%s holds a secret", filepath.Base(path))
			}
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(path), info.Mode())
		}
	}
}

func testModelsHaveTheirColumns(t *testing.T, at home) {
	a := openAdmin(t, at.options(t, newClock(testNow)))
	columns, err := a.store.read.Migrator().ColumnTypes(&keyRow{})
	if err != nil {
		t.Fatal(err)
	}
	if fields := reflect.TypeFor[keyRow]().NumField(); len(columns) != fields {
		t.Fatalf("table keys has %d columns, the model %d", len(columns), fields)
	}
	for _, f := range []string{"id", "digest", "digest_kind", "rpm", "models", "rev", "expires_at"} {
		if !a.store.read.Migrator().HasColumn(&keyRow{}, f) {
			t.Errorf("no column %s", f)
		}
	}
}
