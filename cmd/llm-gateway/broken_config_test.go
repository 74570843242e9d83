package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// brokenCanary stands where a secret could be. It must never be shown.
const brokenCanary = "sk-canary-0123456789-0123456789-0123456789"

// brokenConfig is a configuration that no gateway may start with.
type brokenConfig struct {
	name  string
	env   []string
	files map[string]string // in the working directory; c.yaml is the configuration file
	args  []string
	code  int      // 0 = 1
	want  []string // the lines, without the program's name
	soft  bool     // check goes on and tells it as the state of a part
}

func yamlFileOf(text string) map[string]string { return map[string]string{"c.yaml": text} }

// brokenYAML: the file itself is wrong.
func brokenYAML() []brokenConfig {
	const invalid = ": write name: value, sections indented by spaces"
	bomb := "a: &a {x: 1, y: 1, z: 1}\n"
	for i, name := range "bcdefghi" {
		before := string("abcdefgh"[i])
		bomb += string(name) + ": &" + string(name) + " {x: *" + before + ", y: *" + before + ", z: *" + before + "}\n"
	}
	return []brokenConfig{
		{name: "unknown at the top", files: yamlFileOf("limit: 5\n"), want: []string{"c.yaml: limit is not known: did you mean listen?"}},
		{name: "unknown below", files: yamlFileOf("limits: {dayly: 5}\n"), want: []string{"c.yaml: limits.dayly is not known: did you mean limits.daily?"}},
		{name: "unknown section", files: yamlFileOf("limit: {daily: 5}\n"), want: []string{"c.yaml: limit.daily is not known: did you mean limits.daily?"}},
		{name: "secret as a name", files: yamlFileOf(brokenCanary + ": 5\n"), want: []string{"c.yaml: line 1: the name there is not known: write one of a setting"}},
		{name: "section as a value", files: yamlFileOf("limits: 5\n"), want: []string{"c.yaml: limits is a section: write its settings below it, indented"}},
		{name: "section as a list", files: yamlFileOf("limits: [daily]\n"), want: []string{"c.yaml: limits is a section: write its settings below it, indented"}},
		{name: "value as a section", files: yamlFileOf("data: {dir: x}\n"), want: []string{"c.yaml: data.dir is not known: did you mean data?"}},
		{name: "list for one value", files: yamlFileOf("limits: {daily: [1, 2]}\n"), want: []string{"c.yaml: limits.daily: write one value, not a list"}},
		{name: "list of lists", files: yamlFileOf("auth: {allowed_keys: [[" + brokenCanary + "]]}\n"), want: []string{"c.yaml: auth.allowed_keys: write a list of texts without commas"}},
		{name: "dotted name", files: yamlFileOf("limits.daily: 5\n"), want: []string{"c.yaml: line 1: write the section alone, and its settings below it, indented"}},
		{name: "twice", files: yamlFileOf("data: a\nlisten: 0.0.0.0:1\ndata: b\n"), want: []string{"c.yaml: line 3: the same name stands above it: keep one of them"}},
		{name: "section twice", files: yamlFileOf("limits: {daily: 1}\nlimits: {daily: 2}\n"), want: []string{"c.yaml: line 2: the same name stands above it: keep one of them"}},
		{name: "second document", files: yamlFileOf("data: a\n---\ndata: b\n"), want: []string{"c.yaml: line 2 begins a second document: keep one of them"}},
		{name: "tabs", files: yamlFileOf("limits:\n\tdaily: 5\n"), want: []string{"c.yaml is not valid YAML near line 2" + invalid}},
		{name: "open bracket", files: yamlFileOf("auth:\n  allowed_keys: [" + brokenCanary + "\n"), want: []string{"c.yaml is not valid YAML near line 1" + invalid}},
		{name: "a text", files: yamlFileOf(brokenCanary + "\n"), want: []string{"c.yaml is not valid YAML near line 1" + invalid}},
		{name: "not UTF-8", files: yamlFileOf("data: \xff\xfe\n"), want: []string{"c.yaml is not UTF-8 text: save it as UTF-8"}},
		{name: "merge", files: yamlFileOf("limits:\n  <<: {daily: 5}\n"), want: []string{"c.yaml: line 2: << is not understood here: write the settings out"}},
		{name: "bomb of aliases", files: yamlFileOf(bomb + "limits: *i\n"), want: []string{"c.yaml is nested too deeply, or its aliases (*name) make it too large: write each setting once, below its section"}},
		{name: "too large", files: yamlFileOf("data: x\n#" + strings.Repeat("x", 1<<20)), want: []string{"configuration file: c.yaml is larger than 1 MiB: name another file"}},
		{name: "no such file", args: []string{"--config", "none.yaml"}, want: []string{"configuration file none.yaml does not exist"}},
		{name: "a directory", files: map[string]string{"dir/x": ""}, env: []string{"LLMGW_CONFIG=dir"}, want: []string{"configuration file: dir is a directory: name a file"}},
		{name: "exponent", files: yamlFileOf("limits: {daily: 1e3}\n"), want: []string{"c.yaml: limits.daily: write a whole number above 0, digits only"}},
		{name: "hexadecimal", files: yamlFileOf("limits: {daily: 0x10}\n"), want: []string{"c.yaml: limits.daily: write a whole number above 0, digits only"}},
		{name: "fraction", files: yamlFileOf("limits: {daily: 1.5}\n"), want: []string{"c.yaml: limits.daily: write a whole number above 0, digits only"}},
		{name: "wrong type", files: yamlFileOf("docs: {enabled: 2}\n"), want: []string{"c.yaml: docs.enabled: write true or false"}},
	}
}

// brokenValues: a value is wrong by itself.
func brokenValues() []brokenConfig {
	const positive, base = ": write a whole number above 0, digits only", ": write "
	env := func(name, value, want string) brokenConfig {
		return brokenConfig{name: name + "=" + value, env: []string{name + "=" + value}, want: []string{name + base + want}}
	}
	duration := func(low, high string) string {
		return "a duration from " + low + " to " + high + ", such as 30s or 5m (a bare number is seconds)"
	}
	const (
		listen   = "an address and a port, such as 0.0.0.0:12000 or [::]:12000"
		upstream = "the URL of an OpenAI-compatible server, such as http://localhost:8080 or https://host/v1, without user, query or fragment"
		openssl  = ", such as `openssl rand -hex 32` prints"
		sqlite   = "a path to an SQLite file, such as sqlite:///./billing.db, or a PostgreSQL URL"
		postgres = "a PostgreSQL URL such as postgres://user:password@host:5432/database"
		redis    = "redis://user:password@host:6379/0, or rediss:// for TLS"
		whole    = "a whole number above 0, digits only"
	)
	return []brokenConfig{
		env("API_DAILY_LIMIT", "-1", whole), env("API_MONTHLY_LIMIT", "0", whole), env("DEFAULT_MAX_TOKENS", "1e6", whole),
		env("RATE_LIMIT_REQUESTS", "99999999999999999999", whole), env("RATE_LIMIT_REQUESTS", "many", whole),
		env("MAX_REQUEST_BYTES", "1023", "a whole number from 1024 to 268435456, digits only"),
		env("RATE_LIMIT_WINDOW", "25h", duration("1s", "24h")), env("RATE_LIMIT_WINDOW", "1 minute", duration("1s", "24h")),
		env("LLMGW_ENVOY__DRAIN", "2h", duration("0s", "1h")), env("LLMGW_ENVOY__DRAIN", "-1s", duration("0s", "1h")),
		env("LLM_TIMEOUT", "0", duration("100ms", "1h")),
		env("LLMGW_LISTEN", "0.0.0.0:0", listen), env("LLMGW_LISTEN", "localhost", listen), env("LLMGW_LISTEN", "example.org:80", listen),
		env("LLMGW_METRICS__LISTEN", "127.0.0.1:70000", listen),
		env("LLMGW_ADMIN__LISTEN", ":12090", "an address and a port such as 127.0.0.1:12090, or unix:///PATH"),
		env("LLM_SERVER_URL", "ftp://host", upstream), env("LLM_SERVER_URL", "https://host/v1?key="+brokenCanary, upstream),
		env("LLM_SERVER_URL", "https://user:"+brokenCanary+"@host", upstream),
		env("LLM_API_KEY", "Bearer "+brokenCanary, "the key alone, in printable ASCII without spaces"),
		env("ALLOWED_API_KEYS", brokenCanary+" x", "keys separated by commas, each of at most 256 printable ASCII characters without spaces"),
		env("LLMGW_KEY_PEPPER", brokenCanary[:15], "at least 16 bytes"),
		env("LLMGW_ADMIN__TOKEN", brokenCanary[3:20], "a token of at least 32 characters"+openssl),
		env("LLMGW_ADMIN__TOKEN", strings.Repeat("ab", 20), "a token that is not the same few characters again and again"+openssl),
		env("LLMGW_ADMIN__TOKEN", brokenCanary, "a token that does not look like a key of a client (sk-…)"+openssl),
		env("DATABASE_URL", "mysql://u:"+brokenCanary+"@h/db", sqlite), env("DATABASE_URL", "postgres://u:"+brokenCanary+"@h", postgres),
		env("DATABASE_URL", "sqlite://billing.db", sqlite+" (three slashes, or four for an absolute path)"),
		env("REDIS_URL", "http://u:"+brokenCanary+"@h", redis), env("REDIS_PORT", "0", "a whole number from 1 to 65535, digits only"),
		env("LLMGW_CORS__ORIGINS", "https://a/path", `"*" for any web page, "none", or origins as browsers send them, separated by commas, such as https://app.example.com or http://localhost:3000, without a path`),
		env("LLMGW_RATELIMIT__ON_ERROR", "open", "memory or closed"), env("LOG_LEVEL", "loud", "debug, info, warn or error"),
		{name: "an option", args: []string{"--upstream", "ftp://" + brokenCanary}, code: exitUsage, want: []string{"option --upstream: write " + upstream}},
		{name: ".env", files: map[string]string{".env": "API_DAILY_LIMIT=none\n"}, want: []string{".env: API_DAILY_LIMIT" + positive}},
	}
}

// brokenSecretsAndNames: what is around the values is wrong.
func brokenSecretsAndNames() []brokenConfig {
	return []brokenConfig{
		{name: "empty secret", env: []string{"LLM_API_KEY_FILE=key"}, files: map[string]string{"key": " \n"}, want: []string{"LLM_API_KEY_FILE: key is empty: write the secret into it"}},
		{name: "missing secret", env: []string{"LLM_API_KEY_FILE=key"}, want: []string{"LLM_API_KEY_FILE: cannot be read: open key: no such file or directory"}},
		{name: "unreadable secret", env: []string{"LLM_API_KEY_FILE=key/x"}, files: map[string]string{"key": "x"}, want: []string{"LLM_API_KEY_FILE: cannot be read: open key/x: not a directory"}},
		{name: "secret is a directory", env: []string{"LLM_API_KEY_FILE=dir"}, files: map[string]string{"dir/x": ""}, want: []string{"LLM_API_KEY_FILE: cannot be read: dir is a directory: name a file"}},
		{name: "large secret", env: []string{"LLM_API_KEY_FILE=key"}, files: map[string]string{"key": strings.Repeat("x", 1<<20+1)}, want: []string{"LLM_API_KEY_FILE: cannot be read: key is larger than 1 MiB: name another file"}},
		{name: "bad secret in a file", env: []string{"LLMGW_KEY_PEPPER_FILE=key"}, files: map[string]string{"key": brokenCanary[:12]}, want: []string{"LLMGW_KEY_PEPPER_FILE: write at least 16 bytes"}},
		{
			name: "secret and file", env: []string{"LLM_API_KEY_FILE=key"}, files: map[string]string{".env": "LLM_API_KEY=" + brokenCanary, "key": brokenCanary},
			want: []string{".env: LLM_API_KEY and LLM_API_KEY_FILE are both set: keep one of them"},
		},
		{name: "unknown variable", env: []string{"LLMGW_LISTE=" + brokenCanary}, want: []string{"LLMGW_LISTE is not known: did you mean LLMGW_LISTEN?"}},
		{name: "unknown in .env", files: map[string]string{".env": "LLMGW_LIMITS__DAILY=5\n"}, want: []string{".env: LLMGW_LIMITS__DAILY is not known: did you mean API_DAILY_LIMIT?"}},
		{
			name: "bad line of .env", files: map[string]string{".env": "LOG_LEVEL=info\n" + brokenCanary + "\n"},
			want: []string{".env: line 2 cannot be read: write NAME=value, with quotes around values that hold spaces or #"},
		},
		{
			name: "open quote in .env", files: map[string]string{".env": "LLM_API_KEY=\"" + brokenCanary + "\nLOG_LEVEL=info\n"},
			want: []string{".env: line 1 cannot be read: write NAME=value, with quotes around values that hold spaces or #"},
		},
		{name: ".env is not UTF-8", files: map[string]string{".env": "LOG_LEVEL=\xff\n"}, want: []string{".env: it is not UTF-8 text: save it as UTF-8"}},
		{name: ".env is a directory", files: map[string]string{".env/x": ""}, want: []string{".env: .env is a directory: name a file"}},
		{name: "unknown option", args: []string{"--limit", "5"}, code: exitUsage, want: []string{"unknown option --limit"}},
		{name: "option without value", args: []string{"--config"}, code: exitUsage, want: []string{"option --config needs a value"}},
		{name: "argument", args: []string{brokenCanary}, code: exitUsage, want: []string{"COMMAND takes options only"}},
	}
}

// brokenTogether: each value is right, the whole is not.
func brokenTogether() []brokenConfig {
	token := strings.TrimPrefix(brokenCanary, "sk-")
	return []brokenConfig{
		{
			name: "credentials for anybody", env: []string{"LLMGW_CORS__CREDENTIALS=true"},
			want: []string{"LLMGW_CORS__CREDENTIALS needs a list of origins in cors.origins (LLMGW_CORS__ORIGINS): with any origin every web page could act for its visitors"},
		},
		{
			name: "two servers of Redis", env: []string{"REDIS_HOST=h"}, files: yamlFileOf("redis: {url: redis://u:" + brokenCanary + "@h}\n"),
			want: []string{"c.yaml: redis.url and REDIS_HOST are both set: keep one of them"},
		},
		{
			name: "shared token", env: []string{"LLMGW_ADMIN__TOKEN=" + token, "LLM_API_KEY=" + token},
			want: []string{"LLMGW_ADMIN__TOKEN: it is a client's key, the model server's or the pepper: write a token of its own, such as `openssl rand -hex 32` prints"},
		},
		{
			name: "missing certificates", env: []string{"REDIS_URL=rediss://h", "REDIS_CA_FILE=ca.pem"},
			want: []string{"REDIS_CA_FILE: cannot be read: open ca.pem: no such file or directory: name a file of PEM certificates"},
		},
		{
			name: "no certificates", env: []string{"REDIS_URL=rediss://h"}, files: map[string]string{"c.yaml": "redis: {ca_file: ca.pem}\n", "ca.pem": brokenCanary},
			want: []string{"c.yaml: redis.ca_file: ca.pem holds no PEM certificate: name a file of PEM certificates"},
		},
		{
			name: "data is a file", env: []string{"LLMGW_DATA=here"}, files: map[string]string{"here": "x"}, soft: true,
			want: []string{"LLMGW_DATA: here is not a directory: name another one with --data"},
		},
		{
			name: "data below a file", args: []string{"--data", "here/data"}, files: map[string]string{"here": "x"}, soft: true,
			want: []string{"option --data: here is not a directory: name another one with --data"},
		},
		{
			name: "foreign books", env: []string{"DATABASE_URL=diary"}, files: map[string]string{"diary": "this is a diary, not a database"}, soft: true,
			want: []string{"DATABASE_URL: DIR/diary: not a database of this gateway: not an SQLite file; name another file"},
		},
		{
			name: "books are a directory", env: []string{"DATABASE_URL=sqlite:dir"}, files: map[string]string{"dir/x": ""}, soft: true,
			want: []string{"DATABASE_URL: DIR/dir is a directory: name a file in it"},
		},
		{
			name: "books without a directory", files: yamlFileOf("database: {url: sqlite:none/b.db}\n"), soft: true,
			want: []string{"c.yaml: database.url: there is no directory DIR/none: make it, or name a file elsewhere"},
		},
		{
			name: "books that are gone", files: map[string]string{"data/instance": "0123"}, soft: true,
			want: []string{"the books' database is missing: DIR/data/billing.db is gone, but data/instance shows that there were books; restore a backup, or move instance and spill.jsonl away to begin new books"},
		},
		{
			name: "everything at once", env: []string{"REDIS_PORT=x", "LLMGW_X=1"}, files: map[string]string{"c.yaml": "limits: {daily: no}\nfoo: 1\n", ".env": "BUDGET_EXACT=perhaps\n"}, args: []string{"--data", ""},
			want: []string{
				"c.yaml: foo is not known: did you mean data?", "c.yaml: limits.daily: write a whole number above 0, digits only",
				"LLMGW_X is not known: did you mean LLMGW_DATA?", ".env: BUDGET_EXACT: write true or false",
				"REDIS_PORT: write a whole number from 1 to 65535, digits only", "option --data: write the path of a directory",
			},
		},
	}
}

// TestBrokenConfigurations: serve starts with none of them and check passes
// none. Each mistake is one line that names the place and says what to write;
// no line holds what may be a secret, and nothing is made.
func TestBrokenConfigurations(t *testing.T) {
	all := slices.Concat(brokenYAML(), brokenValues(), brokenSecretsAndNames(), brokenTogether())
	if len(all) < 40 {
		t.Errorf("%d configurations", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) { c.try(t) })
	}
}

func (c brokenConfig) try(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range c.files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c.code == 0 {
		c.code = exitFailed
	}
	before := everythingBelow(t)
	for _, command := range []string{"serve", "check"} {
		args := []string{command}
		if _, ok := c.files["c.yaml"]; ok {
			args = append(args, "--config", "c.yaml")
		}
		// A gateway that starts all the same is stopped.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var out, messages bytes.Buffer
		code := run(ctx, append(args, c.args...), c.env, strings.NewReader(""), &out, &messages)
		cancel()
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d", command, code, c.code)
		}
		got := c.lines(command, strings.ReplaceAll(out.String(), dir, "DIR"), strings.ReplaceAll(messages.String(), dir, "DIR"))
		want := slices.Clone(c.want)
		for i := range want {
			want[i] = strings.ReplaceAll(want[i], "COMMAND", command)
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", command, diff)
		}
		if all := out.String() + messages.String(); strings.Contains(all, brokenCanary[3:15]) || strings.Contains(all, "goroutine ") {
			t.Errorf("%s: a secret or a stack trace is in %q", command, all)
		}
		if command == "serve" && out.Len() > 0 {
			t.Errorf("%s: %q on stdout", command, out.String())
		}
		if diff := cmp.Diff(before, everythingBelow(t)); diff != "" {
			t.Errorf("%s has left something (-before +after):\n%s", command, diff)
		}
	}
}

// lines are the mistakes that a command told: serve on stderr, check as its
// result. An error of the command line is told by both in the same way.
func (c brokenConfig) lines(command, out, messages string) (list []string) {
	if c.code == exitUsage {
		message, _, _ := strings.Cut(strings.TrimPrefix(messages, "llm-gateway: "), " (see llm-gateway")
		return []string{message}
	}
	if command == "serve" {
		for line := range strings.Lines(messages) {
			list = append(list, strings.TrimSpace(strings.TrimPrefix(line, "llm-gateway: ")))
		}
		return list
	}
	for line := range strings.Lines(out) {
		kind, text, _ := strings.Cut(strings.TrimPrefix(line, "fail  "), " ")
		// Not about the configuration: this test has no Envoy.
		if strings.HasPrefix(line, "fail") && kind != "envoy" && (c.soft || kind == "config") {
			list = append(list, strings.TrimSpace(text))
		}
	}
	return list
}

// everythingBelow are the files of the working directory, with their contents.
func everythingBelow(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			all[path] = "a directory"
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
