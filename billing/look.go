package billing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Look says why Open could not use the SQLite file that o names, without making
// or changing anything; nil when it could, or would begin new books there, and
// for PostgreSQL. Errors: ErrForeignDatabase, ErrMissingDatabase, and whatever
// the disk says.
func Look(o Options) error {
	if o.URL != "" {
		return nil
	}
	if o.Path == "" {
		o.Path = filepath.Join(o.DataDir, databaseFile)
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return fmt.Errorf("look for books: %w", err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory: name a file in it", path)
	}
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, os.ErrNotExist) && !below(filepath.Dir(path), o.DataDir) {
		return fmt.Errorf("there is no directory %s: make it, or name a file elsewhere", filepath.Dir(path))
	}
	_, err = inspect(o.DataDir, path)
	return err
}

// below says whether making dir makes parent, too.
func below(parent, dir string) bool {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false
	}
	way, err := filepath.Rel(parent, dir)
	return err == nil && way != ".." && !strings.HasPrefix(way, "../")
}
