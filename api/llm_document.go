package api

import (
	"maps"
	"math"
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
		403: {"invalid_api_key", "model_not_allowed", "model_not_priced"},
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
		return open("A choice.", map[string]*huma.Schema{"index": integer(0, 0), "finish_reason": orNull(text("")), content: s})
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
	op.Responses["200"].Content["text/event-stream"] = &huma.MediaType{
		// Of no type: to some readers a schema here is one event's, to others the whole text's.
		Schema:  &huma.Schema{Description: "Server-sent events: chunks of the answer in `data`, then `[DONE]`."},
		Example: "data: {\"object\":\"" + id + ".chunk\",\"choices\":[{\"index\":0}]}\n\ndata: [DONE]\n\n",
	}
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
		403: "Unknown, blocked, revoked or expired API key (one answer for all), or a model that this key may not use.",
		413: "The body is larger than the gateway takes.",
		415: "The body has a content-encoding.",
		429: "A rate limit (`rate_limit_exceeded`: wait as `Retry-After` says) or a token budget (`insufficient_quota`: SDKs are told not to retry).",
		502: "The model server could not be reached or broke off.",
		503: "The gateway cannot check the request now.",
		504: "The model server did not answer in time.",
	}
	for _, class := range []string{"4XX", "5XX"} {
		op.Responses[class] = &huma.Response{Description: "Another error of the model server, as it came.", Content: map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{}}}}
	}
	for status, codes := range ErrorCodes() {
		r := &huma.Response{
			Description: texts[status] + " `error.code`: " + strings.Join(codes, ", ") + ". Or the model server's answer with this status.",
			Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{AnyOf: []*huma.Schema{
				errorSchema(d), open("The model server's own error, as it came.", nil),
			}}}},
		}
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

// The schemas below allow what the gate accepts and, of that, what model servers
// accept: OpenAI refuses an empty text to embed, the gate would let it pass.

func chatRequest() *huma.Schema {
	part := open("A part: text, or media such as `image_url`, `input_audio` and `file`.", map[string]*huma.Schema{
		"type": orNull(text("")), "text": orNull(text("")),
	})
	message := open("A message.", map[string]*huma.Schema{
		"role":    minimal(text("system, developer, user, assistant, tool or function.")),
		"content": {Description: "What is said.", AnyOf: []*huma.Schema{text(""), list(part, 0), {Type: "null"}}},
	}, "role")
	s := request(map[string]*huma.Schema{"messages": list(message, 1), "max_completion_tokens": ceilingSchema()}, "model", "messages")
	s.Properties["tools"] = &huma.Schema{Description: "Counts as prompt, as do `functions` and `response_format`."}
	return s
}

func completionRequest() *huma.Schema {
	s := request(map[string]*huma.Schema{
		"prompt":  prompts("What to continue: a text, several, or their tokens.", text("")),
		"best_of": choicesSchema(),
		"suffix":  {Description: "Counts as prompt."},
	}, "prompt")
	orNull(s.Properties["model"]).Description += " May be missing where the server has one model."
	return s
}

func embeddingRequest() *huma.Schema {
	input := prompts("What to embed: a text, several, or their tokens.", minimal(text("")))
	return open("", map[string]*huma.Schema{"model": modelSchema(), "input": input}, "model", "input")
}

// prompts are the four ways in which OpenAI takes texts.
func prompts(description string, one *huma.Schema) *huma.Schema {
	token := integer(0, math.MaxUint32)
	return &huma.Schema{Description: description, AnyOf: []*huma.Schema{one, list(one, 1), list(token, 1), list(list(token, 1), 1)}}
}

// request is what chat and completion requests share.
func request(more map[string]*huma.Schema, required ...string) *huma.Schema {
	members := map[string]*huma.Schema{
		"model": modelSchema(), "max_tokens": ceilingSchema(), "n": choicesSchema(),
		"stream": orNull(&huma.Schema{Type: huma.TypeBoolean, Description: "Whether the answer comes in events."}),
		"stream_options": orNull(open("With `stream` only. Usage is asked for in any case; the gateway takes it out where you did not ask.",
			map[string]*huma.Schema{"include_usage": orNull(&huma.Schema{Type: huma.TypeBoolean})})),
	}
	maps.Copy(members, more)
	return open("Further members of OpenAI's API pass to the model server. No member may come twice, or in another case.", members, required...)
}

func modelSchema() *huma.Schema {
	s := minimal(text("Name of the model: at most 256 bytes, without control characters."))
	s.MaxLength, s.Pattern = pointer(256), `^[^\x00-\x1f\x7f\ufffd]*$`
	s.Examples = []any{"gpt-4o-mini"}
	return s
}

func ceilingSchema() *huma.Schema {
	s := orNull(integer(1, 10_000_000))
	s.Description = "Most tokens to produce per choice. They are held before the answer; without it the gateway's default is."
	return s
}

func choicesSchema() *huma.Schema {
	s := orNull(integer(1, 128))
	s.Description = "Answers to each prompt; each may take the ceiling."
	return s
}

// orNull is a schema of one type that takes null, which means "not there".
func orNull(s *huma.Schema) *huma.Schema {
	s.Nullable = true
	return s
}

// minimal is a text that is not empty.
func minimal(s *huma.Schema) *huma.Schema {
	s.MinLength = pointer(1)
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

// integer is a whole number; a bound of 0 above is none.
func integer(low, high float64) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeInteger, Minimum: &low}
	if high > 0 {
		s.Maximum = &high
	}
	return s
}

func pointer(n int) *int { return &n }
