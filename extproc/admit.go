package extproc

import (
	"context"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/MaksimVF/llm-gateway/billing"
)

// The order of questions: does the endpoint exist, who asks, can the body be
// read, may this key use this model, how often, how much. A request refused
// anywhere takes nothing from any limit.

// identify answers everything that the request headers can answer.
func (x *exchange) identify(bodyless bool) *refusal {
	h := &x.headers
	endpoint, ok := x.s.endpoints[h.path]
	if !ok {
		return notFound()
	}
	x.endpoint = endpoint
	if h.method != endpoint.Method {
		return methodNotAllowed(endpoint.Method)
	}
	key, r := x.s.who(h.authorization, x.set)
	if r != nil {
		return r
	}
	x.key = key
	if h.contentEncoding != "" && h.contentEncoding != "identity" {
		return encodedBody()
	}
	if n, err := strconv.ParseInt(h.contentLength, 10, 64); err == nil && n > x.s.o.MaxRequestBytes {
		return tooLarge(x.s.o.MaxRequestBytes)
	}
	if bodyless && endpoint.Metered() {
		return badRequest("invalid_json", "", "The request needs a JSON body.")
	}
	return nil
}

// who finds the key of a credential: every occurrence of the authorization
// header, of which there must be one.
func (s *Server) who(authorization []string, set *Settings) (billing.Key, *refusal) {
	secret, found := bearer(authorization)
	switch found {
	case credentialMissing:
		return billing.Key{}, missingKey()
	case credentialMalformed:
		return billing.Key{}, malformedCredential()
	case credentialPresent:
	}
	key, err := s.o.Books.Lookup(secret)
	switch {
	case err == nil:
		return key, nil
	case isKeyError(err):
		return billing.Key{}, invalidKey(set.InvalidKeyStatus)
	}
	return billing.Key{}, unavailable()
}

// Denied is the answer to a credential that is not let in.
type Denied struct {
	Status  int
	Headers [][2]string // names in lower case
	Body    []byte      // JSON
}

// Authenticate answers for the info routes, which Envoy does not send through
// the gate: the same credential is read and refused in the same words on both.
// It takes every occurrence of the authorization header.
func (s *Server) Authenticate(authorization []string) (billing.Key, *Denied) {
	key, r := s.who(authorization, s.settings.Load())
	if r == nil {
		return key, nil
	}
	return billing.Key{}, &Denied{Status: r.status, Headers: r.headers, Body: r.body()}
}

// admitWithoutBody takes a place under the rate limits; there are no tokens to
// hold.
func (x *exchange) admitWithoutBody(ctx context.Context) *refusal { return x.take(ctx, nil) }

// admit reads the body, takes a place under the rate limits and holds the
// worst-case tokens, all or nothing. It returns the body to send on, nil = unchanged.
func (x *exchange) admit(ctx context.Context, body []byte) ([]byte, *refusal) {
	if int64(len(body)) > x.s.o.MaxRequestBytes {
		return nil, tooLarge(x.s.o.MaxRequestBytes)
	}
	if !x.endpoint.Metered() {
		return nil, x.admitWithoutBody(ctx)
	}
	request, r := readRequest(x.endpoint.Shape, body)
	if r != nil {
		return nil, r
	}
	x.request = request
	if !x.key.AllowsModel(request.model) {
		return nil, modelNotAllowed()
	}
	if r := x.take(ctx, body); r != nil {
		return nil, r
	}
	hold, err := x.s.o.Books.Reserve(ctx, x.holdRequest(body))
	if err != nil {
		x.giveBack(ctx)
		return nil, x.reserveRefusal(err)
	}
	x.hold = hold
	x.keep(body)
	return x.edited(body), nil
}

func (x *exchange) holdRequest(body []byte) billing.HoldRequest {
	r := billing.HoldRequest{
		ID: x.place.ask.ID, KeyID: x.key.ID, Model: x.request.model, Endpoint: x.endpoint.Name, RequestID: x.requestID,
		PromptBound:    x.request.prompt.bound(),
		PromptEstimate: x.request.prompt.estimate(),
		Ceiling:        x.request.ceiling,
		Choices:        x.request.choices,
		DefaultCeiling: x.defaultCeiling(),
		PromptTokens:   func() (int64, bool) { return x.countPrompt(body) },
	}
	if x.endpoint.Shape == ShapeEmbedding {
		r.Ceiling, r.DefaultCeiling = 0, 0
	}
	return r
}

// countPrompt is the tokenizer's count of the prompt, for models whose
// vocabulary is known. It takes milliseconds for a long prompt.
func (x *exchange) countPrompt(body []byte) (int64, bool) {
	if x.request.prompt.textBytes > sampleBytes {
		return 0, false // a scaled sample is no bound
	}
	n, known := billing.CountTokens(x.request.model, promptTexts(x.endpoint.Shape, body)...)
	return x.request.prompt.withText(n), known
}

// keep remembers the body for the case that its tokens must be counted: small
// ones as they are, of larger ones only as much text as is counted anyway.
func (x *exchange) keep(body []byte) {
	if len(body) <= sampleBytes {
		x.body = body
		return
	}
	x.sample = promptTexts(x.endpoint.Shape, body)
}

// edited is the body with what the gateway adds: the wish for usage in a
// stream, and the held ceiling where BudgetExact asks for it.
func (x *exchange) edited(body []byte) []byte {
	var ceiling *edit
	if x.set.BudgetExact && x.request.ceiling == 0 && x.endpoint.Shape != ShapeEmbedding {
		ceiling = x.ceilingEdit()
	}
	if x.request.usageEdit == nil && ceiling == nil {
		return nil
	}
	return apply(body, x.request.usageEdit, ceiling)
}

func (x *exchange) ceilingEdit() *edit {
	text := strconv.FormatInt(x.hold.Ceiling, 10)
	if at := x.request.ceilingAt; at != nil {
		return &edit{from: at.from, to: at.to, text: text}
	}
	name := "max_completion_tokens"
	if x.endpoint.Shape == ShapeCompletion {
		name = "max_tokens"
	}
	return &edit{from: x.request.end, to: x.request.end, text: `,"` + name + `":` + text}
}

// forwardHeaders takes the client's credential and everything in our own
// namespace away, and puts the upstream's credential in.
func (x *exchange) forwardHeaders() *extprocv3.HeaderMutation {
	m := &extprocv3.HeaderMutation{RemoveHeaders: slices.Compact(x.headers.strip)}
	if x.set.UpstreamKey != "" {
		m.SetHeaders = []*corev3.HeaderValueOption{setHeader(headerAuthorization, "Bearer "+x.set.UpstreamKey)}
		m.RemoveHeaders = slices.DeleteFunc(m.RemoveHeaders, func(name string) bool { return name == headerAuthorization })
	}
	return m
}
