//go:build e2e

package e2e

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // a stranger's look at a backup: it is a ZIP archive with an SQLite database
)

// The members of a backup, as documented.
const (
	archiveManifest = "manifest.json"
	archiveDatabase = "billing.db"
)

// unpack reads all members of an archive.
func unpack(t *testing.T, path string) map[string][]byte {
	t.Helper()
	in, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out := map[string][]byte{}
	for _, f := range in.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if out[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func pack(t *testing.T, members map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for name, text := range members {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write(text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// repacked is a backup with another manifest, and perhaps another database
// whose size and digest the manifest then names.
func repacked(t *testing.T, members map[string][]byte, manifest map[string]any, database []byte) []byte {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(members[archiveManifest], &all); err != nil {
		t.Fatal(err)
	}
	if database == nil {
		database = members[archiveDatabase]
	} else {
		sum := sha256.Sum256(database)
		all["sha256"], all["bytes"] = hex.EncodeToString(sum[:]), len(database)
	}
	for name, value := range manifest {
		all[name] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return pack(t, map[string][]byte{archiveManifest: text, archiveDatabase: database})
}

// altered runs a statement on an SQLite database; nil is an empty one.
func altered(t *testing.T, database []byte, statement string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "altered.db")
	if err := os.WriteFile(path, database, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(statement)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// badArchive is a file that is no backup to restore, and what the refusal says.
type badArchive struct {
	name    string
	content []byte
	says    string
}

// badArchives makes them from a good one.
func badArchives(t *testing.T, path string) []badArchive {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	members := unpack(t, path)
	noise := make([]byte, 100_000)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	stranger := altered(t, nil, "CREATE TABLE recipes (name TEXT)")
	const noArchive = "no archive, or its end is missing"
	return []badArchive{
		{"empty", nil, noArchive},
		{"one byte", whole[:1], noArchive},
		{"half", whole[:len(whole)/2], noArchive},
		{"one byte less", whole[:len(whole)-1], noArchive},
		{"random bytes", noise, noArchive},
		{"a database, not packed", members[archiveDatabase], noArchive},
		{"archive of something else", pack(t, map[string][]byte{"letter.txt": []byte("Dear Ann")}), "it has no manifest.json"},
		{"no database", pack(t, map[string][]byte{archiveManifest: members[archiveManifest]}), "it has no billing.db"},
		{"another program's", repacked(t, members, map[string]any{"format": "something else"}, nil), "its manifest is of another program"},
		{"newer layout", repacked(t, members, map[string]any{"version": 2}, nil), "layout version 2; this program reads 1"},
		{"another database", repacked(t, members, nil, stranger), "its database is not of this gateway"},
		{"newer schema", repacked(t, members, nil, altered(t, members[archiveDatabase],
			"INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")), "it was made by a newer version"},
		{"damaged", damaged(whole), "not a usable backup"},
		{"changed by hand", pack(t, map[string][]byte{
			archiveManifest: members[archiveManifest], archiveDatabase: altered(t, members[archiveDatabase], "UPDATE charges SET total = total + 1"),
		}), "is not what the manifest says"},
		{"books that do not balance", repacked(t, members, nil, altered(t, members[archiveDatabase], "UPDATE accounts SET used = used + 1")), "--accept-unbalanced"},
	}
}

// damaged turns a bit in the middle.
func damaged(whole []byte) []byte {
	out := bytes.Clone(whole)
	out[len(out)/2] ^= 1
	return out
}
