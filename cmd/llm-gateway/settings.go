package main

import (
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// setting is one thing that can be set: where its value may come from, and how
// its text is read.
type setting struct {
	path   string // in the YAML file
	env    string // in the environment and in .env
	flag   string // on the command line of those commands that offer it
	secret bool   // never repeated, and NAME_FILE is accepted beside NAME
	change effect // when a change takes effect in a running gateway
	read   reader
}

// effect says when a change of a setting takes effect in a running gateway.
type effect int

// There is no default: whoever adds a setting decides, and a test holds to it.
const (
	_                 effect = iota
	atReload                 // for the requests that begin after the reload
	atReloadIfShorter        // at once when it is shorter than the one in force, else at the next start
	atRestart
)

// reader turns the trimmed text of a setting into its value, or says in wants
// what should be written instead ("" = fine).
type reader func(text string) (value any, wants string)

// settings lists everything that can be set. The environment names without the
// LLMGW_ prefix are those of the original gateway.
func settings() []setting {
	const day = 24 * time.Hour
	return []setting{
		{path: "listen", env: "LLMGW_LISTEN", flag: "listen", change: atRestart, read: listenAddress},
		{path: "data", env: "LLMGW_DATA", flag: "data", change: atRestart, read: folder},
		{path: "log.level", env: "LOG_LEVEL", flag: "log-level", change: atReload, read: logLevel},
		{path: "upstream.url", env: "LLM_SERVER_URL", flag: "upstream", change: atRestart, read: upstreamURL},
		{path: "upstream.api_key", env: "LLM_API_KEY", secret: true, change: atReload, read: headerSecret},
		{path: "upstream.timeout", env: "LLM_TIMEOUT", change: atRestart, read: between(100*time.Millisecond, time.Hour)},
		{path: "upstream.ca_file", env: "LLM_CA_FILE", change: atRestart, read: plain},
		{path: "auth.allowed_keys", env: "ALLOWED_API_KEYS", secret: true, change: atReload, read: keyList},
		{path: "auth.keys_file", env: "LLMGW_AUTH__KEYS_FILE", change: atReload, read: plain},
		{path: "auth.invalid_key_status", env: "LLMGW_AUTH__INVALID_KEY_STATUS", change: atReload, read: oneOfNumbers(403, 401)},
		{path: "auth.pepper", env: "LLMGW_KEY_PEPPER", secret: true, change: atRestart, read: pepper},
		{path: "limits.requests", env: "RATE_LIMIT_REQUESTS", change: atReload, read: whole(1, math.MaxInt64)},
		{path: "limits.window", env: "RATE_LIMIT_WINDOW", change: atReloadIfShorter, read: between(time.Second, day)},
		{path: "limits.daily", env: "API_DAILY_LIMIT", change: atReload, read: whole(1, math.MaxInt64)},
		{path: "limits.monthly", env: "API_MONTHLY_LIMIT", change: atReload, read: whole(1, math.MaxInt64)},
		{path: "limits.tariff", env: "DEFAULT_MAX_TOKENS", change: atReload, read: whole(1, math.MaxInt64)},
		{path: "prices.unknown_model", env: "LLMGW_PRICES__UNKNOWN_MODEL", change: atReload, read: oneOfWords(unknownMeter, unknownRefuse)},
		{path: "request.max_bytes", env: "MAX_REQUEST_BYTES", change: atRestart, read: whole(1<<10, 256<<20)},
		{path: "request.default_output_tokens", env: "DEFAULT_OUTPUT_TOKENS", change: atReload, read: whole(1, 10_000_000)},
		{path: "request.budget_exact", env: "BUDGET_EXACT", change: atReload, read: boolean},
		{path: "limits.tokens_per_minute", env: "LLMGW_LIMITS__TOKENS_PER_MINUTE", change: atReload, read: whole(0, math.MaxInt64)},
		{path: "limits.concurrent", env: "LLMGW_LIMITS__CONCURRENT", change: atReload, read: whole(0, 1_000_000)},
		{path: "database.url", env: "DATABASE_URL", secret: true, change: atRestart, read: databaseURL},
		{path: "database.lease", env: "LLMGW_DATABASE__LEASE", change: atRestart, read: between(2*time.Second, 10*time.Minute)},
		{path: "settle.max_wait", env: "LLMGW_SETTLE__MAX_WAIT", change: atRestart, read: between(50*time.Millisecond, 4*time.Second)},
		{path: "reserve.max_wait", env: "LLMGW_RESERVE__MAX_WAIT", change: atRestart, read: between(10*time.Millisecond, 4*time.Second)},
		{path: "envoy.path", env: "ENVOY_PATH", change: atRestart, read: plain},
		{path: "envoy.drain", env: "LLMGW_ENVOY__DRAIN", flag: "drain", change: atRestart, read: between(0, time.Hour)},
		{path: "redis.url", env: "REDIS_URL", secret: true, change: atRestart, read: redisURL},
		{path: "redis.host", env: "REDIS_HOST", change: atRestart, read: hostName},
		{path: "redis.port", env: "REDIS_PORT", change: atRestart, read: whole(1, 65_535)},
		{path: "redis.db", env: "REDIS_DB", change: atRestart, read: whole(0, math.MaxInt32)},
		{path: "redis.username", env: "REDIS_USERNAME", change: atRestart, read: plain},
		{path: "redis.password", env: "REDIS_PASSWORD", secret: true, change: atRestart, read: password},
		{path: "redis.tls", env: "REDIS_TLS", change: atRestart, read: boolean},
		{path: "redis.ca_file", env: "REDIS_CA_FILE", change: atRestart, read: plain},
		{path: "redis.prefix", env: "LLMGW_REDIS__PREFIX", change: atRestart, read: redisPrefix},
		{path: "ratelimit.on_error", env: "LLMGW_RATELIMIT__ON_ERROR", change: atRestart, read: oneOfWords(ratelimit.OnErrorMemory, ratelimit.OnErrorClosed)},
		{path: "ratelimit.replicas", env: "LLMGW_RATELIMIT__REPLICAS", change: atRestart, read: whole(1, 1000)},
		{path: "metrics.listen", env: "LLMGW_METRICS__LISTEN", change: atRestart, read: optionalAddress},
		{path: "metrics.models", env: "LLMGW_METRICS__MODELS", change: atReload, read: modelList},
		{path: "cors.origins", env: "LLMGW_CORS__ORIGINS", change: atRestart, read: originList},
		{path: "cors.credentials", env: "LLMGW_CORS__CREDENTIALS", change: atRestart, read: boolean},
		{path: "cors.max_age", env: "LLMGW_CORS__MAX_AGE", change: atRestart, read: between(0, day)},
		{path: "docs.enabled", env: "LLMGW_DOCS__ENABLED", change: atReload, read: boolean},
		{path: "admin.token", env: "LLMGW_ADMIN__TOKEN", secret: true, change: atRestart, read: adminToken},
		{path: "admin.listen", env: "LLMGW_ADMIN__LISTEN", change: atRestart, read: adminAddress},
	}
}

// What becomes of requests for a model that has no price.
const (
	unknownMeter  = "meter"
	unknownRefuse = "refuse"
)

func plain(text string) (any, string) {
	if strings.ContainsFunc(text, isControl) {
		return nil, "text without control characters"
	}
	return text, ""
}

func folder(text string) (any, string) {
	if _, wants := plain(text); text == "" || wants != "" {
		return nil, "the path of a directory"
	}
	return text, ""
}

func password(text string) (any, string) { return Secret(text), "" }

// whole reads a plain decimal integer. Separators and exponents are refused: a
// limit must not depend on which of them somebody thought of.
func whole(low, high int64) reader {
	wants := "a whole number from " + strconv.FormatInt(low, 10) + " to " + strconv.FormatInt(high, 10) + ", digits only"
	if high == math.MaxInt64 {
		wants = "a whole number above " + strconv.FormatInt(low-1, 10) + ", digits only"
	}
	return func(text string) (any, string) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < low || n > high {
			return nil, wants
		}
		return n, ""
	}
}

func oneOfNumbers(allowed ...int64) reader {
	words := make([]string, len(allowed))
	for i, n := range allowed {
		words[i] = strconv.FormatInt(n, 10)
	}
	return func(text string) (any, string) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || !slices.Contains(allowed, n) {
			return nil, strings.Join(words, " or ")
		}
		return n, ""
	}
}

func oneOfWords(allowed ...string) reader {
	return func(text string) (any, string) {
		word := strings.ToLower(text)
		if !slices.Contains(allowed, word) {
			return nil, strings.Join(allowed, " or ")
		}
		return word, ""
	}
}

// between reads a duration; a bare number is seconds, as the original gateway
// had it.
func between(low, high time.Duration) reader {
	wants := "a duration from " + shortDuration(low) + " to " + shortDuration(high) + ", such as 30s or 5m (a bare number is seconds)"
	return func(text string) (any, string) {
		d, err := time.ParseDuration(text)
		if n, bare := strconv.ParseInt(text, 10, 64); bare == nil {
			if n > int64(math.MaxInt64/time.Second) || n < 0 {
				return nil, wants
			}
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d < low || d > high {
			return nil, wants
		}
		return d, ""
	}
}

func boolean(text string) (any, string) {
	switch strings.ToLower(text) {
	case "true", "1", "yes", "on":
		return true, ""
	case "false", "0", "no", "off":
		return false, ""
	}
	return nil, "true or false"
}

func logLevel(text string) (any, string) {
	level := strings.ToLower(text)
	if level == "warning" {
		level = "warn"
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, level) {
		return nil, "debug, info, warn or error"
	}
	return level, ""
}

// listenAddress wants an address rather than a name: a listener on a name would
// depend on what a resolver says at the moment of the start.
func listenAddress(text string) (any, string) {
	const wants = "an address and a port, such as 0.0.0.0:12000 or [::]:12000"
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, wants
	}
	switch host {
	case "":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return nil, wants
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, wants
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), ""
}

func optionalAddress(text string) (any, string) {
	if text == "" {
		return "", ""
	}
	return listenAddress(text)
}

// headerSecret reads a value that will stand in a header of a request.
func headerSecret(text string) (any, string) {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, "the key alone, in printable ASCII without spaces"
	}
	return Secret(text), ""
}

// minPepper is the shortest pepper that is accepted, in bytes: 128 bits.
const minPepper = 16

func pepper(text string) (any, string) {
	if len(text) < minPepper {
		return nil, "at least 16 bytes"
	}
	return Secret(text), ""
}

// maxClientKey is the longest key that can ever match, in bytes.
const maxClientKey = 256

func keyList(text string) (any, string) {
	keys := []Secret{}
	for key := range strings.SplitSeq(text, ",") {
		key = strings.TrimSpace(key)
		if key == "" {
			continue
		}
		if _, bad := headerSecret(key); bad != "" || len(key) > maxClientKey {
			return nil, "keys separated by commas, each of at most 256 printable ASCII characters without spaces"
		}
		keys = append(keys, Secret(key))
	}
	return keys, ""
}

// maxMetricModels bounds the series that models may have.
const maxMetricModels = 100

func modelList(text string) (any, string) {
	models := []string{}
	for model := range strings.SplitSeq(text, ",") {
		if model = strings.TrimSpace(model); model != "" {
			models = append(models, model)
		}
		if strings.ContainsFunc(model, isControl) || len(model) > 256 || len(models) > maxMetricModels {
			return nil, "at most 100 names of models, separated by commas"
		}
	}
	return models, ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
