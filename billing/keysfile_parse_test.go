package billing

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// What the original shipped, wrote and was fed by hand.
const originalKeys = `{
  "sk-test-key-1": {"max_tokens": 10000, "name": "Test Basic", "description": "Базовый тариф", "created_at": "2025-06-01"},
  "sk-test-key-2": {"max_tokens": 15000, "name": "Test Limited", "description": "", "created_at": "2025-06-13T11:56:46.548995"},
  "sk-prod-key-123": {"max_tokens": 1000000, "name": " Production Premium "},
  "sk-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKl": {"max_tokens": 250000, "created_at": "2025-06-13T11:56:46+03:00"}
}`

func TestParseKeysFile_original(t *testing.T) {
	for name, text := range map[string]string{"as it is": originalKeys, "with a byte order mark": "\ufeff" + originalKeys} {
		got, err := ParseKeysFile([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		want := KeysFile{Keys: []ListedKey{
			{secret: "sk-test-key-1", Limit: 10_000, Name: "Test Basic", Description: "Базовый тариф", CreatedAt: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)},
			{secret: "sk-test-key-2", Limit: 15_000, Name: "Test Limited", CreatedAt: time.Date(2025, 6, 13, 11, 56, 46, 548_995_000, time.UTC)},
			{secret: "sk-prod-key-123", Limit: 1_000_000, Name: "Production Premium"},
			{
				secret: "sk-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789AbCdEfGhIjKl", Limit: 250_000,
				CreatedAt: time.Date(2025, 6, 13, 8, 56, 46, 0, time.UTC),
			},
		}}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(ListedKey{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseKeysFile_mistakes(t *testing.T) {
	const ok = `{"max_tokens": 5}`
	long := strings.Repeat("x", secretMax+1)
	for _, c := range []struct{ name, text, want string }{
		{"empty", " \n", `it is empty; write {"<key>": {"max_tokens": N}, ...}`},
		{"a list", "\n[1]", `line 2: write one object {"<key>": {"max_tokens": N}, ...}`},
		{"a text", `"sk-canary"`, "line 1: write one object"},
		{"cut off", "{\n\"sk-canary\": {\"max_tokens\": 5}", "line 2: its end is missing"},
		{"cut off in a key", "{\n\"sk-cana", "line 2: its end is missing"},
		{"no JSON", "{\n\n\"sk-canary\": {max_tokens: 5}}", "line 3 is not valid JSON"},
		{"no UTF-8", "{\"sk-canary\": {\"max_tokens\": 5, \"name\": \"\xff\"}}", "line 1 is not valid JSON"},
		{"more", `{"sk-canary":` + ok + `}` + "\n{}", "line 2: there is more after the end"},
		{"a number", `{"sk-canary": 5}`, `entry 1 (line 1, sk-…): write an object {"max_tokens": N}`},
		{"null", `{"sk-canary": null}`, `entry 1 (line 1, sk-…): write an object`},
		{"no limit", `{"sk-canary": {}}`, "entry 1 (line 1, sk-…): max_tokens is missing"},
		{"other case", `{"sk-canary": {"Max_Tokens": 5}}`, "max_tokens is missing"},
		{"zero", `{"sk-canary": {"max_tokens": 0}}`, "entry 1 (line 1, sk-…): max_tokens: write a whole number above 0, digits only"},
		{"negative", `{"sk-canary": {"max_tokens": -1}}`, "max_tokens: write a whole number above 0"},
		{"a fraction", `{"sk-canary": {"max_tokens": 5.0}}`, "max_tokens: write a whole number above 0"},
		{"an exponent", `{"sk-canary": {"max_tokens": 1e3}}`, "max_tokens: write a whole number above 0"},
		{"beyond int64", `{"sk-canary": {"max_tokens": 9223372036854775808}}`, "max_tokens: write a whole number above 0"},
		{"a quoted limit", `{"sk-canary": {"max_tokens": "5"}}`, "max_tokens: write a whole number above 0"},
		{"a truth", `{"sk-canary": {"max_tokens": true}}`, "max_tokens: write a whole number above 0"},
		{"twice", `{"sk-canary": {"max_tokens": 5, "max_tokens": 6}}`, "max_tokens stands there twice"},
		{"a name that is none", `{"sk-canary": {"max_tokens": 5, "name": 5}}`, "name: write a text of at most 500 bytes"},
		{"no name", `{"sk-canary": {"max_tokens": 5, "name": null}}`, "name: write a text"},
		{"a line in a name", `{"sk-canary": {"max_tokens": 5, "name": "a\nb"}}`, "name: write a text"},
		{"a long description", `{"sk-canary": {"max_tokens": 5, "description": "` + strings.Repeat("x", 501) + `"}}`, "description: write a text"},
		{"a day that is none", `{"sk-canary": {"max_tokens": 5, "created_at": "2025-02-30"}}`, "created_at: write a day such as 2026-01-31"},
		{"seconds", `{"sk-canary": {"max_tokens": 5, "created_at": 1730419200}}`, "created_at: write a day"},
		{"before all time", `{"sk-canary": {"max_tokens": 5, "created_at": "1969-12-31"}}`, "created_at: write a day"},
		{"empty key", `{"": ` + ok + `}`, "entry 1 (line 1, …): the key is empty"},
		{"long key", `{"` + long + `": ` + ok + `}`, "entry 1 (line 1, …): the key is longer than 256 bytes"},
		{"space in a key", `{"sk-canary with a space in it": ` + ok + `}`, "entry 1 (line 1, sk-…): the key has spaces"},
		{"beyond ASCII", `{"sk-canary-й": ` + ok + `}`, "the key has spaces, control characters or letters beyond ASCII"},
		{"broken key of ours", `{"sk-lgw_canary": ` + ok + `}`, "the key begins as those of create-key do, and is not whole"},
		{"same key", "{\"sk-canary\":" + ok + ",\n\"sk-b\":" + ok + ",\n\"sk-canary\":" + ok + "}", "entry 3 (line 3, sk-…): the same key as entry 1; keep one of them"},
		{"same key in other words", `{"sk-canary":` + ok + `,"\u0073k-canary":` + ok + `}`, "the same key as entry 1"},
		{"a long key", `{"sk-canary0123456789012345678": {}}`, "entry 1 (line 1, sk-…5678): max_tokens is missing"},
		{"all of them", `{"sk-canary": 5, "sk-b": {"max_tokens": 0, "name": 7}}`, "entry 1 (line 1, sk-…): write an object {\"max_tokens\": N}\n" +
			"entry 2 (line 1, sk-…): max_tokens: write a whole number above 0, digits only\nentry 2 (line 1, sk-…): name: write"},
		{"mistakes and an end too early", `{"sk-canary": 5,`, "write an object {\"max_tokens\": N}\nline 1: its end is missing"},
		{"too large", strings.Repeat(" ", KeysFileMax) + "{}", "it is larger than 16 MiB"},
	} {
		got, err := ParseKeysFile([]byte(c.text))
		var wrong KeysFileError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) || len(got.Keys) > 0 {
			t.Errorf("%s: %v, %d keys, want no key and %q", c.name, err, len(got.Keys), c.want)
			continue
		}
		if strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), long) {
			t.Errorf("%s: a key is in %q", c.name, err)
		}
	}
}

func TestParseKeysFile_boundsWhatItSays(t *testing.T) {
	var text strings.Builder
	text.WriteString("{")
	for i := range 1000 {
		fmt.Fprintf(&text, `"sk-%d": 0,`, i)
	}
	text.WriteString(`"sk-last": {"max_tokens": 5}}`)
	_, err := ParseKeysFile([]byte(text.String()))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 101 || lines[100] != "and 900 more mistakes" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

func TestParseKeysFile_ignoresWhatItDoesNotKnow(t *testing.T) {
	got, err := ParseKeysFile([]byte(`{"sk-a": {"color": {"sk-canary": [1]}, "max_tokens": 5, "sk-canary": 1}, "sk-b": {"max_tokens": 6, "color": 1}}`))
	want := []string{"color is not known, and is ignored (entries with it: 2)", "a member is not known, and is ignored (entries with it: 1)"}
	if diff := cmp.Diff(want, got.Warnings); err != nil || diff != "" || len(got.Keys) != 2 {
		t.Errorf("%v, %d keys (-want +got):\n%s", err, len(got.Keys), diff)
	}
}

// Whatever stands in a file: nothing of it is imported when something is wrong,
// and no key of it is told.
func TestParseKeysFile_anyText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(originalKeys)
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
			text[at] = rapid.Byte().Draw(t, "byte")
		}
		text = text[:rapid.IntRange(0, len(text)).Draw(t, "length")]
		got, err := ParseKeysFile(text)
		if err == nil {
			return
		}
		if len(got.Keys) > 0 {
			t.Fatalf("%d keys beside %v", len(got.Keys), err)
		}
		for _, secret := range []string{"key-1", "key-2", "key-123", "AbCdEfGh"} {
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("a key is in %v", err)
			}
		}
	})
}

func TestReadKeysFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"keys.json": originalKeys, "bad.json": `{"sk-a": 1}`, "odd.json": `{"sk-a": {"max_tokens": 1, "odd": 1}}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := ReadKeysFile(filepath.Join(dir, "keys.json")); err != nil || len(f.Keys) != 4 {
		t.Errorf("%d keys, %v", len(f.Keys), err)
	}
	if f, err := ReadKeysFile(filepath.Join(dir, "odd.json")); err != nil || len(f.Warnings) != 1 || !strings.HasPrefix(f.Warnings[0], filepath.Join(dir, "odd.json")+": odd ") {
		t.Errorf("warnings %q, %v", f.Warnings, err)
	}
	for name, want := range map[string]string{
		"bad.json": filepath.Join(dir, "bad.json") + ": entry 1 (line 1, sk-…): write",
		"none":     "read the keys of " + filepath.Join(dir, "none") + ": no such file",
		".":        "it is a directory",
	} {
		if _, err := ReadKeysFile(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestIsKeysFile(t *testing.T) {
	for text, want := range map[string]bool{
		originalKeys:                      true,
		"\ufeff {}":                       true,
		`{"k": {"name": 1, "max_tokens":`: true,
		`{"k": {"name": 1}}`:              false,
		`{"format": "something else"}`:    false,
		`[]`:                              false,
		"PK\x03\x04":                      false,
		"":                                false,
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := IsKeysFile(path); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if IsKeysFile(filepath.Join(t.TempDir(), "none")) {
		t.Error("a file that is not there is one")
	}
}
