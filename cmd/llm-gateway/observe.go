package main

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/extproc"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// observe opens what the gate's metrics and spans go to, as far as that is
// configured.
func (g *gateway) observe(ctx context.Context, c Config, env []string, log *zap.Logger) (err error) {
	if c.Metrics.Listen != "" {
		g.registry = newRegistry(g.book, g.limiter)
	}
	g.tracing, err = openTracing(ctx, env, log)
	return err
}

// observed tells the gate where its metrics and spans go.
func (g *gateway) observed(o *extproc.Options, c Config) {
	if g.registry != nil {
		o.Metrics = g.registry
	}
	if g.tracing != nil {
		o.Tracer = g.tracing.tracer()
	}
	o.Provider = providerOf(c.Upstream.URL)
}

// providerOf is the upstream's name in OpenTelemetry's GenAI conventions, as far
// as its host tells; "openai_compatible" is nobody's in particular.
func providerOf(upstream string) string {
	if upstream == "" {
		return "demo"
	}
	u, err := url.Parse(upstream)
	if err != nil || u.Hostname() == "" {
		u, err = url.Parse("http://" + upstream)
	}
	if err != nil {
		return "openai_compatible"
	}
	host := u.Hostname()
	for _, p := range []struct{ host, provider string }{
		{"api.openai.com", "openai"},
		{".openai.azure.com", "azure.ai.openai"},
		{"api.anthropic.com", "anthropic"},
		{"generativelanguage.googleapis.com", "gcp.gemini"},
		{"aiplatform.googleapis.com", "gcp.vertex_ai"},
		{"api.cohere.com", "cohere"},
		{"api.deepseek.com", "deepseek"},
		{"api.mistral.ai", "mistral_ai"},
		{"api.groq.com", "groq"},
		{"api.x.ai", "x_ai"},
		{"api.perplexity.ai", "perplexity"},
	} {
		if host == p.host || strings.HasSuffix(host, p.host) && p.host[0] == '.' {
			return p.provider
		}
	}
	return "openai_compatible"
}

// redisFacts tell whether there is a Redis at all: without one everything is as
// it should be, in memory.
func (g *gateway) redisFacts() map[string]string {
	s := g.limiter.Status()
	storage := ratelimit.StorageMemory
	if s.Configured {
		storage = s.Storage
	}
	return map[string]string{"storage": storage, "configured": strconv.FormatBool(s.Configured)}
}

// upstreamHealthy is an error while the latest requests all failed at the model
// server. Nobody is asked: a probe would cost tokens, or prove nothing.
func (g *gateway) upstreamHealthy(context.Context) error {
	if g.exchanges.Upstream() == extproc.UpstreamFailing {
		return errors.New("the latest requests failed at the model server")
	}
	return nil
}
