package main

import (
	"time"

	"github.com/MaksimVF/llm-gateway/envoy"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// Config is everything that can be set. The tags are the paths of the YAML file;
// the names in the environment and what is allowed stand in [settings].
type Config struct {
	Listen    string          `koanf:"listen"` // Envoy's public listener, address:port
	Data      string          `koanf:"data"`   // data directory, mode 0700
	Log       LogConfig       `koanf:"log"`
	Upstream  UpstreamConfig  `koanf:"upstream"`
	Auth      AuthConfig      `koanf:"auth"`
	Limits    LimitsConfig    `koanf:"limits"`
	Prices    PricesConfig    `koanf:"prices"`
	Request   RequestConfig   `koanf:"request"`
	Database  DatabaseConfig  `koanf:"database"`
	Settle    WaitConfig      `koanf:"settle"`  // wait for a charge before it goes to the spill file
	Reserve   WaitConfig      `koanf:"reserve"` // wait for a hold before the request is refused
	Envoy     EnvoyConfig     `koanf:"envoy"`
	Redis     RedisConfig     `koanf:"redis"`
	RateLimit RateLimitConfig `koanf:"ratelimit"`
	Metrics   MetricsConfig   `koanf:"metrics"`
	CORS      CORSConfig      `koanf:"cors"`
	Docs      DocsConfig      `koanf:"docs"`
	Admin     AdminConfig     `koanf:"admin"`
}

// LogConfig is about the log on stderr.
type LogConfig struct {
	Level string `koanf:"level"` // debug, info, warn or error
}

// UpstreamConfig is the server that answers the requests.
type UpstreamConfig struct {
	URL     string        `koanf:"url"`     // empty: the built-in demo model
	APIKey  Secret        `koanf:"api_key"` // sent upstream instead of the client's key; empty: none
	Timeout time.Duration `koanf:"timeout"` // silence before the first byte and inside an answer
	CAFile  string        `koanf:"ca_file"` // PEM bundle; empty: the system's
}

// AuthConfig is about client keys.
type AuthConfig struct {
	AllowedKeys      []Secret `koanf:"allowed_keys"`       // imported at start with the default limits
	KeysFile         string   `koanf:"keys_file"`          // a keys.json, imported before them; empty: keys.json in the data directory, if there is one
	InvalidKeyStatus int      `koanf:"invalid_key_status"` // 403 or 401
	Pepper           Secret   `koanf:"pepper"`             // HMAC key of the digests; empty: plain SHA-256
}

// LimitsConfig holds what applies to a key that sets nothing of its own.
type LimitsConfig struct {
	Requests int64         `koanf:"requests"` // requests per window
	Window   time.Duration `koanf:"window"`
	// Both are optional; 0 is no such limit.
	TokensPerMinute int64 `koanf:"tokens_per_minute"` // held before the answer, corrected after it
	Concurrent      int64 `koanf:"concurrent"`        // requests that run at once
	Daily           int64 `koanf:"daily"`             // tokens per UTC day
	Monthly         int64 `koanf:"monthly"`           // tokens per UTC month
	Tariff          int64 `koanf:"tariff"`            // tokens per UTC month by tariff
}

// PricesConfig is about money; the prices themselves are in the books.
type PricesConfig struct {
	UnknownModel string `koanf:"unknown_model"` // without a price: "meter" in tokens only, or "refuse"
}

// RequestConfig bounds one request.
type RequestConfig struct {
	MaxBytes            int64 `koanf:"max_bytes"`             // larger bodies are refused with 413
	DefaultOutputTokens int64 `koanf:"default_output_tokens"` // held when the request names no ceiling
	BudgetExact         bool  `koanf:"budget_exact"`          // write that ceiling into the request
}

// DatabaseConfig says where the books are.
type DatabaseConfig struct {
	URL Secret `koanf:"url"` // empty: billing.db in the data directory; a PostgreSQL URL holds a password
	// Lease is how long a gateway on PostgreSQL may be silent before the others
	// settle the requests it was serving.
	Lease time.Duration `koanf:"lease"`
}

// WaitConfig is the longest wait for the books.
type WaitConfig struct {
	MaxWait time.Duration `koanf:"max_wait"`
}

// EnvoyConfig is about the Envoy that `up` runs.
type EnvoyConfig struct {
	Path  string        `koanf:"path"`  // binary; empty: PATH, then the cache
	Drain time.Duration `koanf:"drain"` // how long a stop waits for running answers
}

// RedisConfig names the Redis server that several gateways keep their rate
// limits in. Without URL and Host there is none: limits are in memory.
type RedisConfig struct {
	URL      Secret `koanf:"url"` // instead of what follows
	Host     string `koanf:"host"`
	Port     int    `koanf:"port"`
	DB       int    `koanf:"db"`
	Username string `koanf:"username"`
	Password Secret `koanf:"password"`
	TLS      bool   `koanf:"tls"`
	CAFile   string `koanf:"ca_file"` // PEM bundle; empty: the system's
	Prefix   string `koanf:"prefix"`  // of all key names, for gateways that share a server but not their limits
}

// RateLimitConfig says what happens while Redis is away.
type RateLimitConfig struct {
	OnError  string `koanf:"on_error"` // "memory" or "closed"
	Replicas int    `koanf:"replicas"` // gateways that share the Redis; each enforces its share of a limit meanwhile
}

// MetricsConfig is about GET /metrics, which is never on the public listener.
type MetricsConfig struct {
	Listen string   `koanf:"listen"` // address:port; empty: none
	Models []string `koanf:"models"` // that have series of their own; all others are "other"
}

// CORSConfig says which web pages' scripts may use the gateway.
type CORSConfig struct {
	Origins     []string      `koanf:"origins"`     // "*" alone is any; empty: none
	Credentials bool          `koanf:"credentials"` // cookies and client certificates; never with "*"
	MaxAge      time.Duration `koanf:"max_age"`     // how long browsers remember a preflight
}

// DocsConfig is about the documentation of the routes.
type DocsConfig struct {
	Enabled bool `koanf:"enabled"` // serve /openapi.json, /docs and /redoc
}

// AdminConfig is about the admin API.
type AdminConfig struct {
	Token  Secret `koanf:"token"`  // its credential; empty: there is no admin API
	Listen string `koanf:"listen"` // address:port or unix:///path
}

// Default is the configuration of a gateway that nobody has configured. The
// figures for limits are those of the original gateway's environment.
func Default() Config {
	return Config{
		Listen:    "0.0.0.0:12000",
		Data:      "./data",
		Log:       LogConfig{Level: "info"},
		Upstream:  UpstreamConfig{Timeout: 300 * time.Second},
		Auth:      AuthConfig{InvalidKeyStatus: 403},
		Limits:    LimitsConfig{Requests: 30, Window: time.Minute, Daily: 50_000, Monthly: 1_000_000, Tariff: 50_000},
		Prices:    PricesConfig{UnknownModel: unknownMeter},
		Request:   RequestConfig{MaxBytes: 32 << 20, DefaultOutputTokens: 4096},
		Settle:    WaitConfig{MaxWait: time.Second},
		Reserve:   WaitConfig{MaxWait: 250 * time.Millisecond},
		Envoy:     EnvoyConfig{Drain: 30 * time.Second},
		Database:  DatabaseConfig{Lease: 10 * time.Second},
		Redis:     RedisConfig{Port: 6379, Prefix: "llmgw"},
		RateLimit: RateLimitConfig{OnError: ratelimit.OnErrorMemory, Replicas: 1},
		CORS:      CORSConfig{Origins: []string{envoy.AnyOrigin}, MaxAge: 10 * time.Minute},
		Docs:      DocsConfig{Enabled: true},
		Admin:     AdminConfig{Listen: "127.0.0.1:12090"},
	}
}
