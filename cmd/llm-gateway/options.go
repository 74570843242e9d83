package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// billingOptions is the configuration as the books want it.
func (c Config) billingOptions(log *zap.Logger) billing.Options {
	var pepper []byte
	if c.Auth.Pepper != "" {
		pepper = []byte(c.Auth.Pepper.Reveal())
	}
	o := billing.Options{
		DataDir:  c.Data,
		Pepper:   pepper,
		Defaults: c.budgets(),

		RefuseUnpriced: c.Prices.UnknownModel == unknownRefuse,

		ReserveWait: c.Reserve.MaxWait,
		SettleWait:  c.Settle.MaxWait,
		Lease:       c.Database.Lease,
		Log:         log,
	}
	if database := c.Database.URL.Reveal(); isPostgres(database) {
		o.URL = database
	} else {
		o.Path = database
	}
	return o
}

// databasePath is the file that holds the books, "" when they are in PostgreSQL.
func (c Config) databasePath() string {
	switch path := c.Database.URL.Reveal(); {
	case path == "":
		return filepath.Join(c.Data, "billing.db")
	case isPostgres(path):
		return ""
	default:
		return path
	}
}

// upstreamURL reads LLM_SERVER_URL. Its text is not repeated when it is wrong,
// because a URL may carry a password.
func upstreamURL(text string) (any, string) {
	if text == "" {
		return "", ""
	}
	if _, err := envoy.ParseUpstream(text); err != nil {
		return nil, "the URL of an OpenAI-compatible server, such as http://localhost:8080 or https://host/v1, " +
			"without user, query or fragment"
	}
	return text, ""
}

// originList reads cors.origins.
func originList(text string) (any, string) {
	list, err := envoy.ParseOrigins(text)
	if err != nil {
		return nil, `"*" for any web page, "none", or origins as browsers send them, separated by commas, ` +
			"such as https://app.example.com or http://localhost:3000, without a path"
	}
	return list, ""
}

// cors is the configuration as Envoy wants it.
func (c Config) cors() envoy.CORS {
	return envoy.CORS{Origins: c.CORS.Origins, Credentials: c.CORS.Credentials, MaxAge: c.CORS.MaxAge}
}

// conflicts are settings that are fine alone and not together.
func (c Config) conflicts(from origins) (problems mistakes) {
	if err := c.cors().Check(); errors.Is(err, envoy.ErrAnyOriginWithCredentials) {
		problems = append(problems, from.of("cors.credentials")+" needs a list of origins in cors.origins "+
			"(LLMGW_CORS__ORIGINS): with any origin every web page could act for its visitors")
	}
	if c.Redis.URL != "" && c.Redis.Host != "" {
		problems = append(problems, fmt.Sprintf("%s and %s are both set: keep one of them", from.of("redis.url"), from.of("redis.host")))
	}
	if c.Admin.Token != "" && c.adminTokenIsShared() {
		problems = append(problems, fmt.Sprintf(
			"%s: it is a client's key, the model server's or the pepper: write a token of its own, such as `openssl rand -hex 32` prints", from.of("admin.token")))
	}
	return problems
}

// envoyUpstream is the model server as Envoy's configuration wants it; without
// one it is the demo model's socket in folder.
func (c Config) envoyUpstream(folder runFolder) (envoy.Upstream, error) {
	if c.Upstream.URL == "" {
		return demoUpstream(folder.socket("demo.sock"))
	}
	up, err := envoy.ParseUpstream(c.Upstream.URL)
	if err != nil {
		return envoy.Upstream{}, fmt.Errorf("LLM_SERVER_URL: %w", err)
	}
	up.CAFile = c.Upstream.CAFile
	return up, nil
}
