package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// writeFile puts a file into a fresh directory and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfig_sampleFileIsTheDefault(t *testing.T) {
	const sample = "../../deploy/llm-gateway.yaml"
	got, err := loadConfig(sources{file: sample, dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("the sample is not the default (-default +sample):\n%s", diff)
	}
	k := koanf.New(".")
	if err := k.Load(file.Provider(sample), yaml.Parser()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings() {
		if !k.Exists(s.path) {
			t.Errorf("the sample does not show %s", s.path)
		}
		if !strings.Contains(string(content), s.env) {
			t.Errorf("the sample does not name %s", s.env)
		}
	}
}

func TestConfig_exampleOfEnvironment(t *testing.T) {
	content, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for line := range strings.Lines(string(content)) {
		name, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "#"), "=")
		if strings.HasPrefix(line, "#") && ok && !strings.Contains(name, " ") {
			shown = append(shown, name)
		} else if ok && !strings.HasPrefix(line, "#") {
			t.Errorf("%s is set, it should be commented out", name)
		}
	}
	for _, name := range shown {
		if !slices.Contains(envNames(), name) {
			t.Errorf("%s is shown, but not known", name)
		}
	}
	for _, s := range settings() {
		if !slices.Contains(shown, s.env) {
			t.Errorf("%s is not shown", s.env)
		}
	}
}

func TestConfig_everyFieldIsASetting(t *testing.T) {
	var paths []string
	for _, s := range settings() {
		paths = append(paths, s.path)
	}
	fields := leaves(reflect.TypeFor[Config](), "")
	slices.Sort(paths)
	slices.Sort(fields)
	if diff := cmp.Diff(fields, paths); diff != "" {
		t.Errorf("fields of Config and settings differ (-fields +settings):\n%s", diff)
	}
}

func leaves(t reflect.Type, prefix string) (paths []string) {
	for f := range t.Fields() {
		path := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			paths = append(paths, leaves(f.Type, path+".")...)
		} else {
			paths = append(paths, path)
		}
	}
	return paths
}

func TestConfig_everyNameIsRead(t *testing.T) {
	secret := writeFile(t, "pepper", "  0123456789abcdef\n")
	got, err := loadConfig(sources{dir: t.TempDir(), env: []string{
		"LLMGW_LISTEN=[::]:80", "LLMGW_DATA= /srv/llm ", "LOG_LEVEL=WARNING",
		"LLM_SERVER_URL=https://host/v1", "LLM_API_KEY=up", "LLM_TIMEOUT=30", "LLM_CA_FILE=/ca.pem",
		"ALLOWED_API_KEYS= sk-a ,,sk-b,", "LLMGW_AUTH__KEYS_FILE=/k.json", "LLMGW_AUTH__INVALID_KEY_STATUS=401", "LLMGW_KEY_PEPPER_FILE=" + secret,
		"RATE_LIMIT_REQUESTS=5", "RATE_LIMIT_WINDOW=90", "API_DAILY_LIMIT=6", "API_MONTHLY_LIMIT=7", "DEFAULT_MAX_TOKENS=8",
		"LLMGW_PRICES__UNKNOWN_MODEL=Refuse",
		"MAX_REQUEST_BYTES=2048", "DEFAULT_OUTPUT_TOKENS=9", "BUDGET_EXACT=TRUE",
		"DATABASE_URL=sqlite:///./b.db", "LLMGW_SETTLE__MAX_WAIT=2s", "LLMGW_RESERVE__MAX_WAIT=100ms",
		"ENVOY_PATH=/envoy", "LLMGW_ENVOY__DRAIN=1m", "REDIS_HOST=r", "REDIS_PORT=1", "REDIS_DB=2", "REDIS_PASSWORD=p",
		"REDIS_USERNAME=u", "REDIS_TLS=1", "REDIS_CA_FILE=/redis.pem", "LLMGW_REDIS__PREFIX=team:a",
		"LLMGW_RATELIMIT__ON_ERROR=closed", "LLMGW_RATELIMIT__REPLICAS=3", "LLMGW_LIMITS__TOKENS_PER_MINUTE=10", "LLMGW_LIMITS__CONCURRENT=11",
		"LLMGW_DATABASE__LEASE=20s", "LLMGW_METRICS__LISTEN=127.0.0.1:9464",
		"LLMGW_CORS__ORIGINS=HTTPS://App.example.com:443, http://localhost:3000", "LLMGW_CORS__CREDENTIALS=true", "LLMGW_CORS__MAX_AGE=5s",
		"LLMGW_DOCS__ENABLED=no", "LLMGW_ADMIN__TOKEN=0123456789abcdef0123456789abcdef", "LLMGW_ADMIN__LISTEN=unix:///run/admin.sock",
		"LLMGW_TEST_REDIS=of our own tests", "LLMGW_PORT_12000_TCP_ADDR=of Kubernetes", "RATE_LIMIT=not ours",
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen: "[::]:80", Data: "/srv/llm", Log: LogConfig{Level: "warn"},
		Upstream: UpstreamConfig{URL: "https://host/v1", APIKey: "up", Timeout: 30 * time.Second, CAFile: "/ca.pem"},
		Auth:     AuthConfig{AllowedKeys: []Secret{"sk-a", "sk-b"}, KeysFile: "/k.json", InvalidKeyStatus: 401, Pepper: "0123456789abcdef"},
		Limits:   LimitsConfig{Requests: 5, Window: 90 * time.Second, TokensPerMinute: 10, Concurrent: 11, Daily: 6, Monthly: 7, Tariff: 8},
		Prices:   PricesConfig{UnknownModel: unknownRefuse},
		Request:  RequestConfig{MaxBytes: 2048, DefaultOutputTokens: 9, BudgetExact: true},
		Database: DatabaseConfig{URL: "./b.db", Lease: 20 * time.Second},
		Settle:   WaitConfig{MaxWait: 2 * time.Second}, Reserve: WaitConfig{MaxWait: 100 * time.Millisecond},
		Envoy: EnvoyConfig{Path: "/envoy", Drain: time.Minute},
		Redis: RedisConfig{
			Host: "r", Port: 1, DB: 2, Username: "u", Password: "p",
			TLS: true, CAFile: "/redis.pem", Prefix: "team:a",
		},
		RateLimit: RateLimitConfig{OnError: "closed", Replicas: 3},
		Metrics:   MetricsConfig{Listen: "127.0.0.1:9464"},
		CORS:      CORSConfig{Origins: []string{"https://app.example.com", "http://localhost:3000"}, Credentials: true, MaxAge: 5 * time.Second},
		Admin:     AdminConfig{Token: "0123456789abcdef0123456789abcdef", Listen: "unix:///run/admin.sock"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got, err = loadConfig(sources{dir: t.TempDir(), env: []string{"REDIS_URL=rediss://u:p@h/3"}})
	if err != nil || got.Redis.URL != "rediss://u:p@h/3" { // not beside REDIS_HOST
		t.Errorf("REDIS_URL: %v", err)
	}
}

func TestConfig_origins(t *testing.T) {
	for yaml, want := range map[string][]string{
		"":                                   {"*"},
		"cors:\n  max_age: 1s\n":             {"*"},
		"cors: {origins: }\n":                {"*"},
		"cors: {origins: none}\n":            {},
		"cors: {origins: []}\n":              {},
		"cors: {origins: \"*\"}\n":           {"*"},
		"cors: {origins: http://a}\n":        {"http://a"},
		"cors: {origins: [http://a, b://c]}": {"http://a", "b://c"},
	} {
		got, err := loadConfig(sources{file: writeFile(t, "c.yaml", yaml), dir: t.TempDir()})
		if diff := cmp.Diff(want, got.CORS.Origins); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", yaml, err, diff)
		}
	}
}

func TestConfig_laterSourcesWin(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	named := write("named.yaml", "data: file\nlisten: 0.0.0.0:1\nlimits: {daily: 11, monthly: 12, tariff: 13, requests: 14}\nredis:\n")
	write(".env", "LLMGW_CONFIG="+named+"\nLLMGW_DATA=dotenv\nLLMGW_LISTEN=0.0.0.0:2\nAPI_MONTHLY_LIMIT=22\nDEFAULT_MAX_TOKENS=23\n")
	got, err := loadConfig(sources{
		dir:   dir,
		env:   []string{"LLMGW_DATA=env", "LLMGW_LISTEN=0.0.0.0:3", "DEFAULT_MAX_TOKENS=33", "RATE_LIMIT_REQUESTS="},
		flags: map[string]string{"listen": "0.0.0.0:4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen = "0.0.0.0:4" // flag
	want.Data = "env"
	want.Limits.Daily = 11 // file
	want.Limits.Monthly = 22
	want.Limits.Tariff = 33
	want.Limits.Requests = 14 // an empty variable is not set
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	other := write("flag.yaml", "data: flagfile\n")
	if got, err = loadConfig(sources{dir: t.TempDir(), file: other, env: []string{"LLMGW_CONFIG=" + named}}); err != nil || got.Data != "flagfile" {
		t.Errorf("Data is %q (%v), want that of --config, not of LLMGW_CONFIG", got.Data, err)
	}
	if got, err = loadConfig(sources{dir: dir, env: []string{"LLMGW_DATA= "}}); err != nil || got.Data != "dotenv" {
		t.Errorf("Data is %q (%v), want that of .env: an empty variable is not set", got.Data, err)
	}
}

func TestConfig_databaseURL(t *testing.T) {
	for text, want := range map[string]Secret{
		"sqlite:///./billing.db":        "./billing.db",
		"sqlite:///billing.db":          "billing.db",
		"sqlite:////var/lib/billing.db": "/var/lib/billing.db",
		"sqlite+aiosqlite:///b.db":      "b.db",
		"SQLITE:///b.db":                "b.db",
		"sqlite:some/path.db":           "some/path.db",
		"/plain/path.db":                "/plain/path.db",
		"./with:colon.db":               "./with:colon.db",
		"sqlite:///with%20space.db":     "with space.db",
		"postgres://u:p@h:5432/db":      "postgres://u:p@h:5432/db",
		"postgresql+asyncpg://h/db":     "postgresql://h/db",
	} {
		if got, wants := databaseURL(text); got != want || wants != "" {
			t.Errorf("databaseURL(%q) = %#v (%s), want %q", text, got, wants, want.Reveal())
		}
	}
}

func TestSecret_isNeverShown(t *testing.T) {
	const value = "sk-very-secret"
	c := Default()
	c.Upstream.APIKey, c.Auth.Pepper, c.Auth.AllowedKeys = value, value, []Secret{value}
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	s := Secret(value)
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "secret", s)
	for _, text := range []string{
		string(encoded), logged.String(),
		fmt.Sprint(c), fmt.Sprintf("%v %+v %#v", c, c, c), fmt.Sprintf("%s %q %x %X %d %#v", s, s, s, s, s, s),
		fmt.Sprint(&s), fmt.Sprint([]Secret{s}), fmt.Sprint(map[string]Secret{"k": s}),
	} {
		if strings.Contains(text, value) || strings.Contains(text, fmt.Sprintf("%x", value)) {
			t.Errorf("the secret is in %q", text)
		}
		if !strings.Contains(text, masked) {
			t.Errorf("no mask in %q", text)
		}
	}
	if s.Reveal() != value || Secret("").String() != "" {
		t.Error("Reveal gives the value; an empty secret shows that it is empty")
	}
}
