package billing

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repack changes an archive: its manifest, or a part of its database.
func repack(t *testing.T, path string, manifest func(*Manifest), database func([]byte) []byte) string {
	t.Helper()
	in, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	to := filepath.Join(t.TempDir(), "changed.zip")
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := zip.NewWriter(out)
	for _, f := range in.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == manifestName && manifest != nil {
			var m Manifest
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			manifest(&m)
			if text, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
		if f.Name == backupDatabase && database != nil {
			text = database(text)
		}
		entry, err := w.Create(f.Name)
		if err == nil {
			_, err = entry.Write(text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}

// What is no usable backup changes nothing, and says why.
func TestUnusableBackupsTouchNothing(t *testing.T) {
	o := home{}.options(t, nil)
	b, _ := worked(t, o)
	m, path := backup(t, o)
	shut(t, b)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file := func(content []byte) string {
		name := filepath.Join(t.TempDir(), "file.zip")
		write(t, name, string(content))
		return name
	}
	cases := map[string]struct {
		path string
		want error
	}{
		"empty":            {file(nil), ErrBackup},
		"text":             {file([]byte("hello")), ErrBackup},
		"no manifest":      {repackWithout(t, path, manifestName), ErrBackup},
		"no database":      {repackWithout(t, path, backupDatabase), ErrBackup},
		"another format":   {repack(t, path, func(m *Manifest) { m.Format = "x" }, nil), ErrBackup},
		"newer layout":     {repack(t, path, func(m *Manifest) { m.Version++ }, nil), ErrBackup},
		"another digest":   {repack(t, path, func(m *Manifest) { m.SHA256 = m.SHA256[1:] + "0" }, nil), ErrBackup},
		"longer":           {repack(t, path, nil, func(d []byte) []byte { return append(d, 0) }), ErrBackup},
		"one bit":          {repack(t, path, nil, func(d []byte) []byte { d[len(d)/2] ^= 1; return d }), ErrBackup},
		"a foreign schema": {resealed(t, path, m, "DROP TABLE meta"), ErrBackup},
		"a newer schema":   {resealed(t, path, m, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"), ErrBackup},
		"unbalanced":       {resealed(t, path, m, "UPDATE accounts SET used = used + 1"), ErrUnbalanced},
		"missing":          {filepath.Join(t.TempDir(), "none"), os.ErrNotExist},
	}
	for _, n := range []int{1, 30, len(whole) / 2, len(whole) - 30, len(whole) - 1} {
		cases[fmt.Sprintf("truncated to %d", n)] = struct {
			path string
			want error
		}{file(whole[:n]), ErrBackup}
	}
	before := contentOf(t, o.DataDir)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Restore(t.Context(), o, c.path, RestoreOptions{})
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if diff := cmp.Diff(before, contentOf(t, o.DataDir)); diff != "" {
				t.Fatal("the books were touched")
			}
		})
	}
	if _, err := Restore(t.Context(), o, cases["unbalanced"].path, RestoreOptions{AcceptUnbalanced: true}); err != nil {
		t.Fatal(err)
	}
}

func repackWithout(t *testing.T, path, name string) string {
	t.Helper()
	in, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	to := filepath.Join(t.TempDir(), "less.zip")
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := zip.NewWriter(out)
	for _, f := range in.File {
		if f.Name == name {
			continue
		}
		if err := w.Copy(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}

// resealed is a backup whose database was changed and whose digest fits again.
func resealed(t *testing.T, path string, m Manifest, statement string) string {
	t.Helper()
	in, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	dir := t.TempDir()
	database := filepath.Join(dir, databaseFile)
	if err := extract(t.Context(), &in.Reader, m, database, nil); err != nil {
		t.Fatal(err)
	}
	execSQL(t, raw(t, Options{DataDir: dir}), statement)
	to := filepath.Join(t.TempDir(), "resealed.zip")
	if _, err := writeBackup(t.Context(), m, database, to, nil); err != nil {
		t.Fatal(err)
	}
	return to
}

// A bit that turned anywhere in the packed database is damage, and said to be. A
// rare one is none: packed data says in several ways what the same bytes are, and
// the digest proves that they are.
func TestDamagedBackupsAreNamed(t *testing.T) {
	o := home{}.options(t, nil)
	b, _ := worked(t, o)
	_, path := backup(t, o)
	shut(t, b)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	in, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	packed := in.File[0]
	from, err := packed.DataOffset()
	if err != nil || packed.Name != backupDatabase {
		t.Fatal(packed.Name, err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.zip")
	place := home{}.options(t, nil)
	harmless := 0
	for i := int64(1); i < 100; i++ { // not the first byte: "the last block" changes nothing when all is in one
		at := from + i*int64(packed.CompressedSize64)/100
		whole[at] ^= 1 << (i % 8)
		write(t, damaged, string(whole))
		whole[at] ^= 1 << (i % 8)
		switch _, err := Restore(t.Context(), place, damaged, RestoreOptions{}); {
		case err == nil:
			harmless++
		case !errors.Is(err, ErrBackup):
			t.Fatalf("byte %d: %v, want ErrBackup", at, err)
		}
	}
	if harmless > 5 {
		t.Fatalf("%d of 99 damaged archives were restored", harmless)
	}
}
