//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// backup is one that was taken under load, and the place it was restored to.
type backup struct {
	path         string
	began, ended time.Time
	books        rig.CLI
}

// backups are one that was restored to SQLite and one to PostgreSQL.
type backups struct {
	g                *gateway
	sqlite, postgres backup
}

// takeBackups takes two while the load goes on, restores each elsewhere, and
// tries to restore them where the gateway works.
func takeBackups(t *testing.T, load *traffic, g *gateway, postgres *rig.Postgres) *backups {
	t.Helper()
	b := &backups{g: g}
	elsewhere := func(name string, env ...string) rig.CLI {
		return rig.CLI{Binary: g.cli.Binary, Data: filepath.Join(g.dir, name), Env: rig.MinimalEnv(env...), Dir: g.dir}
	}
	b.sqlite = backUp(t, g, elsewhere("to-sqlite"))
	b.postgres = backUp(t, g, elsewhere("to-postgres", "DATABASE_URL="+postgres.NewDatabase()))
	if load.ctx.Err() != nil {
		t.Error("the load had ended before the backups were taken")
	}
	return b
}

// backUp takes a backup, restores it into an empty place and proves the books
// there.
func backUp(t *testing.T, g *gateway, place rig.CLI) backup {
	t.Helper()
	b := backup{path: place.Data + ".zip", began: time.Now(), books: place}
	var manifest struct {
		Charges int64 `json:"charges"`
	}
	success(t, g.cli, &manifest, "backup", "--path", b.path)
	b.ended = time.Now()
	refused(t, g.cli, "restore beside a gateway", "stop it first", "restore", "--path", b.path, "--force")
	var restored struct {
		Balanced  bool   `json:"balanced"`
		KeptAside string `json:"kept_aside"`
		Charges   int64  `json:"charges"`
	}
	success(t, place, &restored, "restore", "--path", b.path, "--force")
	if !restored.Balanced || restored.KeptAside != "" || restored.Charges != manifest.Charges {
		t.Errorf("restored: %+v, the backup has %d charges", restored, manifest.Charges)
	}
	report, err := place.Audit()
	if err != nil {
		t.Fatal(err)
	}
	if !report.Balanced || len(report.Problems) > 0 || report.Charges != manifest.Charges {
		t.Errorf("the restored books: %+v, the backup has %d charges", report, manifest.Charges)
	}
	return b
}

// success runs a command with --json that must succeed.
func success(t *testing.T, c rig.CLI, answer any, args ...string) {
	t.Helper()
	r, err := c.Run(append(args, "--json")...)
	if err == nil {
		err = json.Unmarshal([]byte(r.Stdout), answer)
	}
	if err != nil || r.Code != 0 {
		t.Fatalf("%v: exit %d, %v\n%s%s", args, r.Code, err, r.Stdout, r.Stderr)
	}
}

// refused runs a command that must end with 1 and one line that says why.
func refused(t *testing.T, c rig.CLI, name, why string, args ...string) {
	t.Helper()
	r, err := c.Run(args...)
	line := strings.TrimSuffix(r.Stderr, "\n")
	if err != nil || r.Code != 1 || r.Stdout != "" || !strings.Contains(line, why) || strings.Contains(line, "\n") {
		t.Errorf("%s: exit %d, %v, stdout %q, stderr %q, want 1 and a line with %q", name, r.Code, err, r.Stdout, r.Stderr, why)
	}
}

// compare holds the restored books against the load, which has ended: all whose
// end a client had seen before the backup began are in it, none that was sent
// after its end, and every charge is what it is in the live books.
func (b *backups) compare(t *testing.T, load *traffic) {
	t.Helper()
	live := load.rides(t, b.g.cli)
	for _, one := range []backup{b.sqlite, b.postgres} {
		books := load.rides(t, one.books)
		wrong, needed := 0, 0
		for model, r := range load.sent {
			row, there := books[model]
			must, may := r.received.SawEnd() && r.received.Ended.Before(one.began), r.received.Started.Before(one.ended)
			if must {
				needed++
			}
			if there && (!may || cmp.Diff(live[model], row) != "") || must && !there {
				if wrong++; wrong <= 3 {
					t.Errorf("%s: restored %+v (there: %v, must be: %v, may be: %v), live %+v", model, row, there, must, may, live[model])
				}
			}
		}
		if wrong > 3 {
			t.Errorf("%s: %d requests are not in it as they should", one.path, wrong)
		}
		if needed == 0 || len(books) == len(live) {
			t.Errorf("%s: %d of %d requests in it, %d had to be: nothing is proved", one.path, len(books), len(live), needed)
		}
	}
}

// unusable tries to restore what is no backup over the restored books, and
// finds those as they were.
func (b *backups) unusable(t *testing.T) {
	t.Helper()
	bad := badArchives(t, b.sqlite.path)
	for _, books := range []rig.CLI{b.sqlite.books, b.postgres.books} {
		before, files := witness(t, books), contentOf(t, books.Data)
		for _, file := range bad {
			path := filepath.Join(b.g.dir, "bad.zip")
			if err := os.WriteFile(path, file.content, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, books, file.name, file.says, "restore", "--path", path, "--force")
			if diff := cmp.Diff(files, contentOf(t, books.Data)); diff != "" {
				t.Errorf("%s: the data changed (-before +after)\n%s", file.name, diff)
			}
		}
		if diff := cmp.Diff(before, witness(t, books)); diff != "" {
			t.Errorf("the books changed (-before +after)\n%s", diff)
		}
	}
}

// takeOver starts a gateway on the restored books: it knows the keys.
func (b *backups) takeOver(t *testing.T, k rig.NewKey) {
	t.Helper()
	g := prepare(t, setup{})
	g.data, g.cli.Data = b.sqlite.books.Data, b.sqlite.books.Data
	g.runUp()
	r := g.client(false).Do(g.context(), rig.Request{Key: k.Key, Body: rig.Chat{Model: "m", MaxTokens: 5, Script: rig.Script{Prompt: 3, Completion: 2}}.Body()})
	if r.Status != 200 {
		t.Errorf("a key in the restored books: %d %q", r.Status, r.Body)
	}
	g.balanced()
}

// witness is all that the commands tell about some books.
func witness(t *testing.T, books rig.CLI) string {
	t.Helper()
	var all bytes.Buffer
	for _, args := range [][]string{{"audit"}, {"usage", "--by", "day,key,model"}, {"list-keys", "--verbose"}} {
		var answer json.RawMessage
		success(t, books, &answer, args...)
		all.Write(answer)
	}
	return all.String()
}

// contentOf are the digests of all files below a folder.
func contentOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		out[path] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
