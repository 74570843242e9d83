package billing

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// inspect says whether path is a place for new books. It refuses files that
// are not ours without touching them, and refuses to begin new books where
// others are known to have been.
func inspect(dataDir, path string) (fresh bool, err error) {
	head, err := firstBytes(path)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && len(head) == 0:
		return true, noBooksKnown(dataDir, path)
	case err != nil:
		return false, err
	case !bytes.Equal(head, []byte("SQLite format 3\x00")):
		return false, fmt.Errorf("%s: %w: not an SQLite file; name another file", path, ErrForeignDatabase)
	}
	for try := 0; ; try++ {
		tables, format, err := contents(path, true)
		if err != nil && try < 5 {
			// A gateway that is at work may be moving pages just now.
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if err != nil {
			return false, fmt.Errorf("inspect %s: %w", path, err)
		}
		if tables == 0 {
			if tables, format, err = contentsWithLog(path); err != nil {
				return false, fmt.Errorf("inspect %s: %w", path, err)
			}
		}
		switch {
		case format == booksFormat:
			return false, nil
		case tables == 0:
			return true, noBooksKnown(dataDir, path)
		}
		return false, fmt.Errorf("%s: %w: it holds other tables; name another file", path, ErrForeignDatabase)
	}
}

// noBooksKnown refuses to begin new books beside traces of older ones.
func noBooksKnown(dataDir, path string) error {
	for _, trace := range []string{instanceFile, spillFile} {
		_, err := os.Stat(filepath.Join(dataDir, trace))
		if err == nil {
			return fmt.Errorf("%w: %s is gone, but %s shows that there were books; restore a backup, or move %s and %s away to begin new books",
				ErrMissingDatabase, path, filepath.Join(dataDir, trace), instanceFile, spillFile)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func firstBytes(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

// contents counts the tables of an SQLite file and reads our mark. immutable
// makes SQLite take no lock and create no file beside it; it then reads the
// main file only, not a write-ahead log.
func contents(path string, immutable bool) (tables int, format string, err error) {
	dsn := fileURL(path) + "?mode=ro"
	if immutable {
		dsn += "&immutable=1"
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return 0, "", err
	}
	defer db.Close()
	var meta int
	const count = `SELECT count(*), count(*) FILTER (WHERE name = 'meta')
		FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' AND name <> 'goose_db_version'`
	if err := db.QueryRow(count).Scan(&tables, &meta); err != nil {
		return 0, "", err
	}
	if meta == 0 {
		return tables, "", nil
	}
	err = db.QueryRow("SELECT v FROM meta WHERE k = 'format'").Scan(&format)
	if errors.Is(err, sql.ErrNoRows) || resultCode(err) == sqliteError {
		return tables, "", nil // another program's table of this name, with other rows or columns
	}
	return tables, format, err
}

// contentsWithLog looks into a copy of the file and its write-ahead log: a
// database whose first transaction never left the log looks empty without it.
func contentsWithLog(path string) (tables int, format string, err error) {
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() == 0 {
		return 0, "", nil
	}
	dir, err := os.MkdirTemp("", "llm-gateway-inspect-")
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			return 0, "", err
		}
		if err := os.WriteFile(filepath.Join(dir, databaseFile+suffix), data, 0o600); err != nil { //nolint:gosec // a new folder and a name of our own
			return 0, "", err
		}
	}
	return contents(filepath.Join(dir, databaseFile), false)
}

// claim leaves the mark that the books of this instance live here. A spill
// file that belongs to other books must not be posted in these.
func claim(dataDir, instance string) error {
	path := filepath.Join(dataDir, instanceFile)
	known, err := os.ReadFile(path)
	if err == nil && string(bytes.TrimSpace(known)) == instance {
		return nil
	}
	spilled := filepath.Join(dataDir, spillFile)
	if info, statErr := os.Stat(spilled); err == nil && statErr == nil && info.Size() > 0 {
		return fmt.Errorf("%w: %s holds settles of other books than this database's; open those first, or move the file away",
			ErrMissingDatabase, spilled)
	}
	return os.WriteFile(path, []byte(instance+"\n"), 0o600)
}
