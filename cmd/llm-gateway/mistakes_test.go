package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestConfig_mistakes: each mistake is one line that names the place and says
// what to write, and never repeats what may be a secret.
func TestConfig_mistakes(t *testing.T) {
	const canary = "sk-canary" // stands where a secret could be
	empty := writeFile(t, "empty", " \n")
	for _, c := range []struct {
		name, env, dotenv, yaml, flag string
		want                          string
	}{
		{name: "not a number", env: "RATE_LIMIT_REQUESTS=abc", want: "RATE_LIMIT_REQUESTS: write a whole number above 0, digits only"},
		{name: "zero", env: "API_DAILY_LIMIT=0", want: "API_DAILY_LIMIT: write a whole number above 0"},
		{name: "negative", env: "API_MONTHLY_LIMIT=-1", want: "API_MONTHLY_LIMIT: write a whole number above 0"},
		{name: "separators", env: "DEFAULT_MAX_TOKENS=50_000", want: "DEFAULT_MAX_TOKENS: write a whole number"},
		{name: "beyond int64", env: "DEFAULT_MAX_TOKENS=9223372036854775808", want: "DEFAULT_MAX_TOKENS: write a whole number"},
		{name: "window too long", env: "RATE_LIMIT_WINDOW=25h", want: "RATE_LIMIT_WINDOW: write a duration from 1s to 24h"},
		{name: "window of no time", env: "RATE_LIMIT_WINDOW=0", want: "RATE_LIMIT_WINDOW: write a duration from 1s to 24h"},
		{name: "seconds beyond a duration", env: "RATE_LIMIT_WINDOW=9999999999999", want: "RATE_LIMIT_WINDOW: write a duration"},
		{name: "body too small", env: "MAX_REQUEST_BYTES=1023", want: "MAX_REQUEST_BYTES: write a whole number from 1024 to 268435456"},
		{name: "body too large", env: "MAX_REQUEST_BYTES=268435457", want: "MAX_REQUEST_BYTES: write a whole number from 1024"},
		{name: "not a bool", env: "BUDGET_EXACT=maybe", want: "BUDGET_EXACT: write true or false"},
		{name: "settle too long", env: "LLMGW_SETTLE__MAX_WAIT=5s", want: "LLMGW_SETTLE__MAX_WAIT: write a duration from 50ms to 4s"},
		{name: "level", env: "LOG_LEVEL=loud", want: "LOG_LEVEL: write debug, info, warn or error"},
		{name: "status", env: "LLMGW_AUTH__INVALID_KEY_STATUS=404", want: "LLMGW_AUTH__INVALID_KEY_STATUS: write 403 or 401"},
		{name: "listen on a name", env: "LLMGW_LISTEN=example.org:80", want: "LLMGW_LISTEN: write an address and a port"},
		{name: "listen without port", env: "LLMGW_LISTEN=0.0.0.0", want: "LLMGW_LISTEN: write an address and a port"},
		{name: "port", env: "REDIS_PORT=65536", want: "REDIS_PORT: write a whole number from 1 to 65535"},
		{name: "redis db", env: "REDIS_DB=-1", want: "REDIS_DB: write a whole number from 0"},
		{name: "postgres without a database", env: "DATABASE_URL=postgresql://u:" + canary + "@h", want: "DATABASE_URL: write a PostgreSQL URL such as postgres://user:password@host:5432/database"},
		{name: "postgres port", env: "DATABASE_URL=postgresql://u:" + canary + "@h:x/db", want: "DATABASE_URL: write a PostgreSQL URL"},
		{name: "another database", env: "DATABASE_URL=mysql://u:" + canary + "@h/db", want: "DATABASE_URL: write a path to an SQLite file"},
		{name: "redis scheme", env: "REDIS_URL=http://u:" + canary + "@h", want: "REDIS_URL: write redis://user:password@host:6379/0, or rediss:// for TLS"},
		{name: "redis host as a URL", env: "REDIS_HOST=redis://" + canary + "@h", want: "REDIS_HOST: write a host name or an address"},
		{name: "redis prefix", env: "LLMGW_REDIS__PREFIX={x}", want: "LLMGW_REDIS__PREFIX: write 1 to 64 letters"},
		{name: "on error open", env: "LLMGW_RATELIMIT__ON_ERROR=open", want: "LLMGW_RATELIMIT__ON_ERROR: write memory or closed"},
		{name: "no replica", env: "LLMGW_RATELIMIT__REPLICAS=0", want: "LLMGW_RATELIMIT__REPLICAS: write a whole number from 1 to 1000"},
		{name: "short lease", env: "LLMGW_DATABASE__LEASE=1s", want: "LLMGW_DATABASE__LEASE: write a duration from 2s to 10m"},
		{name: "metrics everywhere", env: "LLMGW_METRICS__LISTEN=9464", want: "LLMGW_METRICS__LISTEN: write an address and a port"},
		{name: "two slashes", env: "DATABASE_URL=sqlite://billing.db", want: "DATABASE_URL: write a path to an SQLite file"},
		{name: "database in memory", env: "DATABASE_URL=sqlite:///:memory:", want: "the books must be a file"},
		{name: "upstream with user", env: "LLM_SERVER_URL=http://u:" + canary + "@host/", want: "LLM_SERVER_URL: write the URL of an OpenAI-compatible server"},
		{name: "short pepper", env: "LLMGW_KEY_PEPPER=" + canary, want: "LLMGW_KEY_PEPPER: write at least 16 bytes"},
		{name: "short admin token", env: "LLMGW_ADMIN__TOKEN=" + canary, want: "LLMGW_ADMIN__TOKEN: write a token of at least 32 characters"},
		{name: "one character", env: "LLMGW_ADMIN__TOKEN=" + strings.Repeat("a", 40), want: "LLMGW_ADMIN__TOKEN: write a token that is not the same few characters"},
		{name: "sample admin token", env: "LLMGW_ADMIN__TOKEN=Change-Me-" + canary + "-0123456789abcdef", want: "LLMGW_ADMIN__TOKEN: write a token of its own in the place of the sample text"},
		{name: "client key as admin token", env: "LLMGW_ADMIN__TOKEN=sk-" + canary + "0123456789abcdef0123456789", want: "LLMGW_ADMIN__TOKEN: write a token that does not look like a key of a client"},
		{name: "admin token with a space", env: "LLMGW_ADMIN__TOKEN=Bearer " + canary + "0123456789abcdef0123456789", want: "LLMGW_ADMIN__TOKEN: write a token of at most 256 printable ASCII characters"},
		{name: "empty admin token file", env: "LLMGW_ADMIN__TOKEN_FILE=" + empty, want: "LLMGW_ADMIN__TOKEN_FILE: " + empty + " is empty: write the secret into it"},
		{name: "admin port alone", env: "LLMGW_ADMIN__LISTEN=:12090", want: "LLMGW_ADMIN__LISTEN: write an address and a port such as 127.0.0.1:12090, or unix:///PATH"},
		{name: "key with a space", env: "ALLOWED_API_KEYS=sk-a," + canary + " b", want: "ALLOWED_API_KEYS: write keys separated by commas"},
		{name: "upstream key with a space", env: "LLM_API_KEY=Bearer " + canary, want: "LLM_API_KEY: write the key alone"},
		{name: "empty secret file", env: "LLM_API_KEY_FILE=" + empty, want: "LLM_API_KEY_FILE: " + empty + " is empty: write the secret into it"},
		{name: "secret file absent", env: "LLM_API_KEY_FILE=/nonexistent", want: "LLM_API_KEY_FILE: cannot be read"},
		{name: "secret twice", env: "LLM_API_KEY_FILE=" + empty, dotenv: "LLM_API_KEY=" + canary, want: "LLM_API_KEY and LLM_API_KEY_FILE are both set: keep one of them"},
		{name: "unknown variable", env: "LLMGW_LISTE=x", want: "LLMGW_LISTE is not known: did you mean LLMGW_LISTEN?"},
		{name: "variable spelt as its path", env: "LLMGW_LIMITS__DAILY=5", want: "LLMGW_LIMITS__DAILY is not known: did you mean API_DAILY_LIMIT?"},
		{name: "unknown in .env", dotenv: "LLMGW_DATTA=x", want: "LLMGW_DATTA is not known: did you mean LLMGW_DATA?"},
		{name: "not .env", dotenv: "LOG_LEVEL=info\n" + canary + "\nLLMGW_DATA=x\n", want: ".env: line 2 cannot be read: write NAME=value"},
		{name: "open quote in .env", dotenv: "LOG_LEVEL=info\nLLM_API_KEY=\"" + canary + "\n", want: ".env: line 2 cannot be read"},
		{name: "unknown in file", yaml: "limits:\n  dayly: 5\n", want: "limits.dayly is not known: did you mean limits.daily?"},
		{name: "unknown section", yaml: "limit:\n  daily: 5\n", want: "limit.daily is not known: did you mean limits.daily?"},
		{name: "secret as a name", yaml: canary + ": 5\n", want: "line 1: the name there is not known"},
		{name: "section as a value", yaml: "limits: 5\n", want: "limits is a section: write its settings below it, indented"},
		{name: "value as a section", yaml: "data:\n  dir: x\n", want: "data.dir is not known"},
		{name: "fraction", yaml: "limits:\n  daily: 1.5\n", want: "limits.daily: write a whole number above 0"},
		{name: "list", yaml: "limits:\n  daily: [1, 2]\n", want: "limits.daily: write one value, not a list"},
		{name: "twice", yaml: "data: a\ndata: b\n", want: "line 2: the same name stands above it"},
		{name: "not a map", yaml: canary + "\n", want: "is not valid YAML near line 1: write name: value"},
		{name: "broken YAML", yaml: "a: [\n" + canary, want: "is not valid YAML"},
		{name: "origin with a path", env: "LLMGW_CORS__ORIGINS=https://app.example.com/", want: `LLMGW_CORS__ORIGINS: write "*" for any web page, "none", or origins`},
		{name: "credentials for anybody", env: "LLMGW_CORS__CREDENTIALS=true", want: "LLMGW_CORS__CREDENTIALS needs a list of origins in cors.origins (LLMGW_CORS__ORIGINS)"},
		{name: "file absent", flag: "config", want: "configuration file /nonexistent.yaml does not exist"},
		{name: "option", flag: "upstream", want: "option --upstream: write the URL of an OpenAI-compatible server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := sources{dir: t.TempDir(), env: []string{c.env}}
			if c.dotenv != "" {
				if err := os.WriteFile(filepath.Join(src.dir, ".env"), []byte(c.dotenv), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.yaml != "" {
				src.file = writeFile(t, "llm-gateway.yaml", c.yaml)
			}
			switch c.flag {
			case "config":
				src.file = "/nonexistent.yaml"
			case "upstream":
				src.flags = map[string]string{"upstream.url": "ftp://" + canary}
			}
			_, err := loadConfig(src)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %q\nwant %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("one mistake, several lines: %q", err)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("%q repeats what may be a secret", err)
			}
			if call := (*callError)(nil); errors.As(err, &call) != (c.flag == "upstream") {
				t.Errorf("%T: only a wrong option is a mistake in the call", err)
			}
		})
	}
}

func TestConfig_allMistakesAtOnce(t *testing.T) {
	path := writeFile(t, "c.yaml", "limits:\n  daily: none\nsettle:\n  wait: 1s\n")
	_, err := loadConfig(sources{
		dir: t.TempDir(), file: path, env: []string{"REDIS_PORT=x", "LLMGW_X=1", "LOG_LEVEL=info"},
		flags: map[string]string{"listen": "here"},
	})
	var got mistakes
	if !errors.As(err, &got) {
		t.Fatalf("%T %v, want mistakes", err, err)
	}
	var places []string
	for _, line := range got {
		place := strings.TrimPrefix(line, path+": ")
		places = append(places, strings.FieldsFunc(place, func(r rune) bool { return r == ':' || r == ' ' })[0])
	}
	slices.Sort(places)
	if diff := cmp.Diff([]string{"LLMGW_X", "REDIS_PORT", "limits.daily", "option", "settle.wait"}, places); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
