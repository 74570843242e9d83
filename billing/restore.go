package billing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// RestoreOptions of Restore.
type RestoreOptions struct {
	// AcceptUnbalanced restores books that do not balance, too.
	AcceptUnbalanced bool
	Progress         func(done, total int64) // bytes unpacked so far; nil = nobody asks
}

// Restored says what a restore did.
type Restored struct {
	Manifest
	Audit AuditReport
	// Aside is where the books are that were there before: a directory, or a
	// schema of PostgreSQL; "" when there were none.
	Aside string
}

// Restore puts the books of a backup in the place that o names, which no
// gateway may be using. Everything is checked before anything is touched: the
// archive and its digest, that the database is ours and not damaged, that the
// pepper fits, that the books balance. Books that were there are kept aside.
//
// Errors: ErrBackup, ErrInUse, ErrForeignDatabase (something that is not ours
// is in the place), ErrPepper, ErrUnbalanced, and whatever disk or database say.
func Restore(ctx context.Context, o Options, path string, r RestoreOptions) (Restored, error) {
	done, err := restore(ctx, o, path, r)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	return done, nil
}

func restore(ctx context.Context, o Options, path string, r RestoreOptions) (done Restored, err error) {
	m, archive, err := openBackup(path)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	if o, err = o.prepare(); err != nil {
		return done, err
	}
	unlock, err := lockBooks(ctx, o.DataDir)
	if err != nil {
		return done, err
	}
	defer unlock()
	place := o.Path
	if o.URL != "" {
		place = filepath.Join(o.DataDir, databaseFile)
	}
	stage, err := os.MkdirTemp(filepath.Dir(place), ".llm-gateway-restore-") // on the same disk: it is moved, not copied
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	staged := filepath.Join(stage, databaseFile)
	if err := extract(ctx, &archive.Reader, m, staged, r.Progress); err != nil {
		return done, err
	}
	done.Manifest = m
	if done.Audit, err = prove(ctx, o, staged); err == nil {
		err = foldLog(staged)
	}
	if err != nil {
		return done, err
	}
	if !done.Audit.Balanced && !r.AcceptUnbalanced {
		return done, fmt.Errorf("%w: %s", ErrUnbalanced, done.Audit.Problems[0])
	}
	// To the millisecond, so that it is a new name: a restore takes longer.
	aside := "before-restore-" + strings.Replace(o.clock()().UTC().Format("20060102T150405.000Z"), ".", "", 1)
	if o.URL != "" {
		done.Aside, err = exchangeSchema(ctx, o, m, staged, aside)
	} else {
		done.Aside, err = exchangeFile(o, m, staged, aside)
	}
	return done, err
}

// lockBooks keeps gateways and other commands from opening the directory's books.
func lockBooks(ctx context.Context, dataDir string) (unlock func(), err error) {
	gateway, err := tryLock(filepath.Join(dataDir, lockFile))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, adminBusy)
	defer cancel()
	migrations, err := lock(waiting, filepath.Join(dataDir, migrateFile))
	if err != nil {
		gateway()
		return nil, err
	}
	return func() { migrations(); gateway() }, nil
}

// prove checks an unpacked database, and brings it up to this program's schema.
func prove(ctx context.Context, o Options, path string) (report AuditReport, err error) {
	if _, format, err := contents(path, true); err != nil || format != booksFormat {
		return report, fmt.Errorf("%w: its database is not of this gateway", ErrBackup)
	}
	s := &store{path: path}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.open(ctx, adminBusy, true); err != nil {
		if errors.Is(err, errNewerSchema) {
			err = fmt.Errorf("%w: it was made by a newer version: %w", ErrBackup, err)
		}
		return report, err
	}
	if err := s.quickCheck(); err != nil {
		return report, fmt.Errorf("%w: its database is damaged", ErrBackup)
	}
	digests := newDigester(o.Pepper)
	if err := s.checkPepper(digests); err != nil {
		return report, err
	}
	admin := &Admin{opt: o, store: s, digests: digests}
	return admin.Audit(ctx)
}

// exchangeFile moves the database into its place, and what was there aside. A
// crash in the middle leaves no database but the mark that there was one: no
// gateway begins new books then, and restoring again finishes the work.
func exchangeFile(o Options, m Manifest, staged, aside string) (kept string, err error) {
	if _, err := inspect(o.DataDir, o.Path); errors.Is(err, ErrForeignDatabase) {
		return "", err
	}
	known, err := os.ReadFile(filepath.Join(o.DataDir, instanceFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	old := []string{o.Path, o.Path + "-wal", o.Path + "-shm"}
	if strings.TrimSpace(string(known)) != m.Instance {
		// Charges that wait for other books must not be posted in these.
		old = append(old, filepath.Join(o.DataDir, spillFile))
	}
	folder := filepath.Join(filepath.Dir(o.Path), aside)
	for _, name := range old {
		_, err := os.Lstat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil && kept == "" {
			kept = folder
			err = os.Mkdir(folder, 0o700)
		}
		if err == nil {
			err = os.Rename(name, filepath.Join(folder, filepath.Base(name)))
		}
		if err != nil {
			return kept, err
		}
	}
	if err := os.Rename(staged, o.Path); err != nil {
		return kept, err
	}
	if err := writeFile(filepath.Join(o.DataDir, instanceFile), m.Instance+"\n"); err != nil {
		return kept, err
	}
	return kept, syncDir(filepath.Dir(o.Path))
}
