package billing

import (
	"archive/zip"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A backup is a ZIP archive of two files: manifest.json says what it is, and
// billing.db is an SQLite database of the books, whichever database they came
// from. Everybody can open both without us.
const (
	backupFormat   = "llm-gateway backup"
	backupVersion  = 1
	manifestName   = "manifest.json"
	manifestMax    = 1 << 20
	backupDatabase = databaseFile
)

// Manifest says what a backup holds.
type Manifest struct {
	Format         string    `json:"format"`  // "llm-gateway backup"
	Version        int       `json:"version"` // of the archive's layout
	CreatedAt      time.Time `json:"created_at"`
	GatewayVersion string    `json:"gateway_version"`
	Storage        string    `json:"storage"`  // what the books were in: "sqlite" or "postgresql"
	Schema         int64     `json:"schema"`   // version of the SQLite schema inside
	Instance       string    `json:"instance"` // which books these are
	Bytes          int64     `json:"bytes"`    // of billing.db
	SHA256         string    `json:"sha256"`   // of billing.db, hexadecimal

	Keys       int64 `json:"keys"`
	Charges    int64 `json:"charges"`
	OpenHolds  int64 `json:"open_holds"`
	UsedTokens int64 `json:"used_tokens"` // sum of all charges
}

// check refuses what this program cannot restore.
func (m *Manifest) check() error {
	switch {
	case m.Format != backupFormat:
		return fmt.Errorf("%w: its manifest is of another program", ErrBackup)
	case m.Version != backupVersion:
		return fmt.Errorf("%w: layout version %d; this program reads %d", ErrBackup, m.Version, backupVersion)
	case m.Bytes <= 0 || len(m.SHA256) != sha256.Size*2:
		return fmt.Errorf("%w: its manifest is incomplete", ErrBackup)
	}
	return nil
}

// ReadBackup reads a backup's manifest. Errors: ErrBackup; those of the file.
func ReadBackup(path string) (Manifest, error) {
	m, archive, err := openBackup(path)
	if err != nil {
		return Manifest{}, fmt.Errorf("read backup %s: %w", path, err)
	}
	return m, archive.Close()
}

func openBackup(path string) (m Manifest, archive *zip.ReadCloser, err error) {
	if archive, err = zip.OpenReader(path); err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			return m, nil, err
		}
		return m, nil, fmt.Errorf("%w: it is no archive, or its end is missing", ErrBackup)
	}
	if m, err = readManifest(&archive.Reader); err != nil {
		return m, nil, errors.Join(err, archive.Close())
	}
	return m, archive, nil
}

func readManifest(archive *zip.Reader) (m Manifest, err error) {
	f, err := archive.Open(manifestName)
	if err != nil {
		return m, fmt.Errorf("%w: it has no %s", ErrBackup, manifestName)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, manifestMax))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return m, fmt.Errorf("%w: its %s cannot be read", ErrBackup, manifestName)
	}
	return m, m.check()
}

// extract writes the database of a backup to path, and proves its digest.
func extract(ctx context.Context, archive *zip.Reader, m Manifest, path string, progress func(done, total int64)) error {
	in, err := archive.Open(backupDatabase)
	if err != nil {
		return fmt.Errorf("%w: it has no %s", ErrBackup, backupDatabase)
	}
	defer func() { _ = in.Close() }() // it was only read
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	// One byte more than promised shows that there is more.
	n, err := copyAll(ctx, io.MultiWriter(out, sum), io.LimitReader(in, m.Bytes+1), m.Bytes, progress)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		if damaged(err) {
			err = fmt.Errorf("%w: it is damaged", ErrBackup)
		}
		return err
	}
	if n != m.Bytes || hex.EncodeToString(sum.Sum(nil)) != m.SHA256 {
		return fmt.Errorf("%w: %s is not what the manifest says", ErrBackup, backupDatabase)
	}
	return nil
}

// damaged tells whether an archive could be read and not be unpacked. A changed
// byte may end the compressed data early, and then what follows is out of place.
func damaged(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, zip.ErrChecksum) || errors.Is(err, zip.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &corrupt)
}

// writeBackup packs a database into an archive that appears under path all at
// once.
func writeBackup(ctx context.Context, m Manifest, database, path string, progress func(done, total int64)) (Manifest, error) {
	in, err := os.Open(database)
	if err != nil {
		return m, err
	}
	defer func() { _ = in.Close() }() // it was only read
	info, err := in.Stat()
	if err != nil {
		return m, err
	}
	m.Format, m.Version, m.Bytes = backupFormat, backupVersion, info.Size()
	out, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return m, err
	}
	defer func() { _ = os.Remove(out.Name()) }() // when it succeeded, it is no longer there
	archive := zip.NewWriter(out)
	sum := sha256.New()
	entry, err := archive.CreateHeader(&zip.FileHeader{Name: backupDatabase, Method: zip.Deflate, Modified: m.CreatedAt})
	if err == nil {
		_, err = copyAll(ctx, io.MultiWriter(entry, sum), in, m.Bytes, progress)
	}
	if err != nil {
		return m, errors.Join(err, out.Close())
	}
	m.SHA256 = hex.EncodeToString(sum.Sum(nil))
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, errors.Join(err, out.Close())
	}
	entry, err = archive.CreateHeader(&zip.FileHeader{Name: manifestName, Method: zip.Deflate, Modified: m.CreatedAt})
	if err == nil {
		_, err = entry.Write(append(text, '\n'))
	}
	if err = errors.Join(err, archive.Close(), out.Sync(), out.Close()); err != nil {
		return m, err
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return m, err
	}
	return m, syncDir(filepath.Dir(path))
}

// copyAll copies in pieces, so that it ends with ctx and tells how far it is.
func copyAll(ctx context.Context, to io.Writer, from io.Reader, total int64, progress func(done, total int64)) (done int64, err error) {
	for {
		n, err := io.CopyN(to, from, 4<<20)
		done += n
		if progress != nil {
			progress(done, total)
		}
		if errors.Is(err, io.EOF) {
			return done, nil
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return done, err
		}
	}
}
