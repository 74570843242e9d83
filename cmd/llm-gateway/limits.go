package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// defaultLimits are the rate limits of a key that has none of its own.
func (c Config) defaultLimits() ratelimit.Limits {
	return ratelimit.Limits{
		Requests:   ratelimit.Limit{Max: c.Limits.Requests, Window: c.Limits.Window},
		Tokens:     ratelimit.Limit{Max: c.Limits.TokensPerMinute, Window: time.Minute},
		Concurrent: c.Limits.Concurrent,
	}
}

// longestWindow is how far back an admission may still count. Keys with limits
// of their own have them per minute.
func (c Config) longestWindow() time.Duration { return max(c.Limits.Window, time.Minute) }

// limiterOptions is the configuration as the rate limits want it.
func (c Config) limiterOptions(log *zap.Logger) (ratelimit.Options, error) {
	o := ratelimit.Options{
		Replicas: c.RateLimit.Replicas, OnError: c.RateLimit.OnError,
		LongestWindow: c.longestWindow(), Log: log,
	}
	redis, err := c.redisOptions()
	if err != nil {
		return o, err
	}
	o.Redis = redis
	return o, nil
}

// redisOptions is the Redis server, nil when none is configured.
func (c Config) redisOptions() (*ratelimit.RedisOptions, error) {
	var o ratelimit.RedisOptions
	var err error
	switch r := c.Redis; {
	case r.URL != "":
		if o, err = ratelimit.ParseRedisURL(r.URL.Reveal()); err != nil {
			return nil, fmt.Errorf("REDIS_URL: %w", err)
		}
	case r.Host != "":
		o = ratelimit.RedisOptions{
			Address: net.JoinHostPort(r.Host, strconv.Itoa(r.Port)), DB: r.DB,
			Username: r.Username, Password: r.Password.Reveal(),
		}
		if r.TLS {
			o.TLS = &tls.Config{ServerName: r.Host, MinVersion: tls.VersionTLS12}
		}
	default:
		return nil, nil
	}
	if o.TLS != nil && c.Redis.CAFile != "" {
		if o.TLS.RootCAs, err = caPool("REDIS_CA_FILE", c.Redis.CAFile); err != nil {
			return nil, err
		}
	}
	o.Prefix = c.Redis.Prefix
	return &o, nil
}

// redisURL checks REDIS_URL. It is never repeated: it may hold a password.
func redisURL(text string) (any, string) {
	if text == "" {
		return Secret(""), ""
	}
	if _, err := ratelimit.ParseRedisURL(text); err != nil {
		return nil, "redis://user:password@host:6379/0, or rediss:// for TLS"
	}
	return Secret(text), ""
}

func hostName(text string) (any, string) {
	if strings.ContainsAny(text, "/@ ") || strings.ContainsFunc(text, isControl) {
		return nil, "a host name or an address, without scheme and port"
	}
	return strings.Trim(text, "[]"), ""
}

var prefixForm = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

func redisPrefix(text string) (any, string) {
	if !prefixForm.MatchString(text) {
		return nil, "1 to 64 letters, digits and _ . : -"
	}
	return text, ""
}
