package api

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The routes of models are served by the upstream, through the gate; here is
// what the gate reads of a request and what it adds to an answer. Everything
// else of OpenAI's API passes, so objects are open.

// Endpoint is one route of models in the document.
type Endpoint struct{ Method, Path string }

// ModelEndpoints are the routes of models that the document describes.
func ModelEndpoints() []Endpoint {
	return []Endpoint{
		{http.MethodPost, "/v1/chat/completions"},
		{http.MethodPost, "/v1/completions"},
		{http.MethodPost, "/v1/embeddings"},
		{http.MethodGet, "/v1/models"},
	}
}

// ErrorCodes are the gate's errors in the document, by status.
func ErrorCodes() map[int][]string {
	return map[int][]string{
		400: {"invalid_json", "invalid_type", "invalid_value", "missing_required_parameter", "malformed_authorization", "bad_request"},
		401: {"missing_api_key"},
		403: {"invalid_api_key", "model_not_allowed"},
		413: {"request_too_large"},
		415: {"unsupported_content_encoding"},
		429: {"rate_limit_exceeded", "insufficient_quota"},
		502: {"upstream_error"},
		503: {"gateway_unavailable"},
		504: {"upstream_timeout"},
	}
}

func describeModels(d *huma.OpenAPI) {
	choice := func(content string, s *huma.Schema) *huma.Schema {
		return open("A choice.", map[string]*huma.Schema{"index": integer(0, 0), "finish_reason": nullable(text("")), content: s})
	}
	d.AddOperation(metered(d, "chat-completions", "/v1/chat/completions", "Chat", chatRequest(), open("", map[string]*huma.Schema{
		"id": text(""), "object": text(""), "created": integer(0, 0), "model": text(""),
		"choices": list(choice("message", open("", nil)), 0), "usage": usageSchema(),
	})))
	d.AddOperation(metered(d, "completions", "/v1/completions", "Complete a text", completionRequest(), open("", map[string]*huma.Schema{
		"id": text(""), "object": text(""), "created": integer(0, 0), "model": text(""),
		"choices": list(choice("text", text("")), 0), "usage": usageSchema(),
	})))
	embedding := metered(d, "embeddings", "/v1/embeddings", "Embed texts", embeddingRequest(), open("", map[string]*huma.Schema{
		"object": text(""), "model": text(""), "data": list(open("", nil), 0), "usage": usageSchema(),
	}))
	delete(embedding.Responses["200"].Content, "text/event-stream")
	d.AddOperation(embedding)
	models := modelOperation(d, http.MethodGet, "models", "/v1/models", "List the models")
	models.Responses["200"] = success("The models.", open("", map[string]*huma.Schema{"object": text(""), "data": list(open("", nil), 0)}))
	for _, status := range []string{"413", "415"} { // there is no body
		delete(models.Responses, status)
	}
	d.AddOperation(models)
}

// metered is an operation whose tokens are held, counted and charged.
func metered(d *huma.OpenAPI, id, path, summary string, request, response *huma.Schema) *huma.Operation {
	op := modelOperation(d, http.MethodPost, id, path, summary)
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: request}}}
	op.Responses["200"] = success("The model server's answer, as it came. With `stream`, events.", response)
	op.Responses["200"].Content["text/event-stream"] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
	return op
}

func success(description string, schema *huma.Schema) *huma.Response {
	return &huma.Response{Description: description, Headers: limitHeaders(), Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}
}

func modelOperation(d *huma.OpenAPI, method, id, path, summary string) *huma.Operation {
	op := &huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tagModels},
		Description: "OpenAI's API. Errors of the model server pass as they are; those of the gateway are below.",
		Security:    []map[string][]string{{bearerScheme: {}}},
		Responses:   map[string]*huma.Response{},
	}
	texts := map[int]string{
		400: "The body cannot be read in one way only, a value is wrong (`error.param` names it), or there is more than one credential.",
		401: "No API key.",
		403: "Unknown, revoked or expired API key (one answer for all), or a model that this key may not use.",
		413: "The body is larger than the gateway takes.",
		415: "The body has a content-encoding.",
		429: "A rate limit (`rate_limit_exceeded`: wait as `Retry-After` says) or a token budget (`insufficient_quota`: SDKs are told not to retry).",
		502: "The model server could not be reached or broke off.",
		503: "The gateway cannot check the request now.",
		504: "The model server did not answer in time.",
	}
	for status, codes := range ErrorCodes() {
		r := &huma.Response{Description: texts[status] + " `error.code`: " + strings.Join(codes, ", ") + ".", Content: map[string]*huma.MediaType{"application/json": {Schema: errorSchema(d)}}}
		switch status {
		case http.StatusUnauthorized, http.StatusForbidden:
			r.Headers = map[string]*huma.Param{"WWW-Authenticate": textHeader("How to authenticate (RFC 6750).")}
		case http.StatusTooManyRequests:
			r.Headers = limitHeaders()
			for name, what := range map[string]string{
				"Retry-After": "Seconds to wait, rounded up.", "retry-after-ms": "The same in milliseconds.", "x-should-retry": "false where waiting is of no use; OpenAI's SDKs obey it.",
			} {
				r.Headers[name] = textHeader(what)
			}
		case http.StatusServiceUnavailable:
			r.Headers = map[string]*huma.Param{"Retry-After": textHeader("Seconds to wait.")}
		}
		op.Responses[strconv.Itoa(status)] = r
	}
	return op
}

// limitHeaders tell where the key stands.
func limitHeaders() map[string]*huma.Param {
	h := map[string]*huma.Param{"x-request-id": textHeader("Names the request in the gateway's log.")}
	for name, what := range map[string]string{
		"X-RateLimit-Limit": "Requests per window.", "X-RateLimit-Remaining": "Requests left in the window.", "X-RateLimit-Reset": "Seconds until the window is empty.",
		"x-ratelimit-limit-requests": "Requests per window.", "x-ratelimit-remaining-requests": "Requests left in the window.", "x-ratelimit-reset-requests": "Until the window is empty, such as 1m30s.",
		"x-ratelimit-limit-tokens": "The tightest token limit.", "x-ratelimit-remaining-tokens": "Tokens left of it, before this answer.", "x-ratelimit-reset-tokens": "Until it is full again.",
	} {
		h[name] = textHeader(what)
	}
	return h
}

func chatRequest() *huma.Schema {
	message := open("A message.", map[string]*huma.Schema{"role": {Type: huma.TypeString, Enum: []any{"system", "developer", "user", "assistant"}}, "content": text("What is said.")}, "role", "content")
	return request(map[string]*huma.Schema{"messages": list(message, 1), "max_completion_tokens": ceilingSchema(), "n": integer(1, 128)}, "model", "messages")
}

func completionRequest() *huma.Schema {
	return request(map[string]*huma.Schema{"prompt": text("What to continue."), "n": integer(1, 128)}, "model", "prompt")
}

func embeddingRequest() *huma.Schema {
	input := &huma.Schema{Description: "What to embed.", OneOf: []*huma.Schema{text(""), list(text(""), 1)}}
	return open("", map[string]*huma.Schema{"model": modelSchema(), "input": input}, "model", "input")
}

// request is what chat and completion requests share.
func request(more map[string]*huma.Schema, required ...string) *huma.Schema {
	members := map[string]*huma.Schema{
		"model": modelSchema(), "max_tokens": ceilingSchema(),
		"stream": {Type: huma.TypeBoolean, Description: "Whether the answer comes in events."},
		"stream_options": open("Usage is asked for in any case; the gateway takes it out where you did not ask.",
			map[string]*huma.Schema{"include_usage": {Type: huma.TypeBoolean}}),
	}
	for name, s := range more {
		members[name] = s
	}
	return open("Further members of OpenAI's API pass to the model server. No member may come twice, or in another case.", members, required...)
}

func modelSchema() *huma.Schema {
	s := text("Name of the model.")
	s.MinLength, s.MaxLength, s.Pattern = pointer(1), pointer(64), `^[A-Za-z0-9._:/-]+$`
	s.Examples = []any{"gpt-4o-mini"}
	return s
}

func ceilingSchema() *huma.Schema {
	s := integer(1, 10_000_000)
	s.Description = "Most tokens to produce per choice. They are held before the answer; without it the gateway's default is."
	return s
}

func usageSchema() *huma.Schema {
	return open("What is charged.", map[string]*huma.Schema{"prompt_tokens": integer(0, 0), "completion_tokens": integer(0, 0), "total_tokens": integer(0, 0)})
}

// open is an object that may have other members too.
func open(description string, members map[string]*huma.Schema, required ...string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Description: description, Properties: members, Required: required, AdditionalProperties: true}
}

func list(of *huma.Schema, least int) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeArray, Items: of}
	if least > 0 {
		s.MinItems = &least
	}
	return s
}

func text(description string) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Description: description}
}

func nullable(s *huma.Schema) *huma.Schema {
	return &huma.Schema{OneOf: []*huma.Schema{s, {Type: "null"}}}
}

// integer is a whole number; a bound of 0 above is none.
func integer(low, high float64) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeInteger, Minimum: &low}
	if high > 0 {
		s.Maximum = &high
	}
	return s
}

func pointer(n int) *int { return &n }
