package api

import "fmt"

// rootReport is the body of GET /, in the original's shape.
type rootReport struct {
	Service     string            `json:"service"`
	Version     string            `json:"version"`
	Description string            `json:"description"`
	Features    []string          `json:"features" nullable:"false"`
	Endpoints   map[string]string `json:"endpoints"`
}

func rootOf(o Options) rootReport {
	requests := o.Defaults().Requests
	r := rootReport{
		Service: "LLM Gateway", Version: o.Version,
		Description: "API keys, rate limits and exact token billing in front of an OpenAI-compatible model server.",
		Features: []string{
			"API key authentication",
			fmt.Sprintf("Rate limiting (%d requests per %d s, exact sliding window)", requests.Max, wholeSeconds(requests.Window)),
			"Exact token accounting",
			"Tariffs with monthly token limits",
			"Daily and monthly token budgets",
			"Redis for several gateways, memory as fallback",
		},
		Endpoints: map[string]string{
			"completions": "/v1/completions", "usage": "/usage", "limits": "/limits", "tariff": "/tariff", "rate_limit": "/rate-limit", "health": "/health",
			"chat_completions": "/v1/chat/completions", "embeddings": "/v1/embeddings", "models": "/v1/models", "key": "/api/v1/key",
			"live": "/healthz/live", "ready": "/healthz/ready",
		},
	}
	if o.Docs != nil && o.Docs() {
		for name, path := range map[string]string{"openapi": documentPath, "docs": "/docs", "redoc": "/redoc"} {
			r.Endpoints[name] = path
		}
	}
	return r
}
