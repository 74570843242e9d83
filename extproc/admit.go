package extproc

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
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
	secret, found := bearer(h.authorization)
	switch found {
	case credentialMissing:
		return missingKey()
	case credentialMalformed:
		return malformedCredential()
	case credentialPresent:
	}
	key, err := x.s.o.Books.Lookup(secret)
	if err != nil {
		if isKeyError(err) {
			return invalidKey(x.s.o.InvalidKeyStatus)
		}
		return unavailable()
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

// admitWithoutBody takes a place in the window; there are no tokens to hold.
func (x *exchange) admitWithoutBody() *refusal {
	x.window = x.s.o.Limits.Take(x.key.ID, x.limit())
	if !x.window.Allowed {
		return rateLimited(x.window)
	}
	return nil
}

// admit reads the body, takes a place in the window and holds the worst-case
// tokens, all or nothing. It returns the body to send on, nil = unchanged.
func (x *exchange) admit(ctx context.Context, body []byte) ([]byte, *refusal) {
	if int64(len(body)) > x.s.o.MaxRequestBytes {
		return nil, tooLarge(x.s.o.MaxRequestBytes)
	}
	if !x.endpoint.Metered() {
		return nil, x.admitWithoutBody()
	}
	request, r := readRequest(x.endpoint.Shape, body)
	if r != nil {
		return nil, r
	}
	x.request = request
	if len(x.key.Models) > 0 && !slices.Contains(x.key.Models, request.model) {
		return nil, modelNotAllowed()
	}
	x.window = x.s.o.Limits.Take(x.key.ID, x.limit())
	if !x.window.Allowed {
		return nil, x.strictest()
	}
	hold, err := x.s.o.Books.Reserve(ctx, x.holdRequest(body))
	if err != nil {
		x.s.o.Limits.GiveBack(x.key.ID, x.window)
		x.window.Remaining++
		return nil, x.s.reserveRefusal(err, &x.window)
	}
	x.hold = hold
	x.keep(body)
	return x.edited(body), nil
}

// strictest answers a full window: when a budget refuses too, the one with the
// longer wait answers, so that a client that waits as told passes.
func (x *exchange) strictest() *refusal {
	need := x.request.prompt.bound() + max(x.request.ceiling, 1)*x.request.choices
	if x.endpoint.Shape == ShapeEmbedding {
		need = x.request.prompt.bound()
	}
	if b := x.s.o.Books.Budget(x.key.ID, need); b != nil && b.ResetIn > x.window.RetryIn {
		return budgetSpent(b, &x.window)
	}
	return rateLimited(x.window)
}

// limit is the key's own rate, per minute, or the gateway's window.
func (x *exchange) limit() ratelimit.Limit {
	if x.key.RPM > 0 {
		return ratelimit.Limit{Max: x.key.RPM, Window: time.Minute}
	}
	return x.s.o.Window
}

func (x *exchange) holdRequest(body []byte) billing.HoldRequest {
	r := billing.HoldRequest{
		KeyID: x.key.ID, Model: x.request.model, Endpoint: x.endpoint.Name, RequestID: x.requestID,
		PromptBound:    x.request.prompt.bound(),
		PromptEstimate: x.request.prompt.estimate(),
		Ceiling:        x.request.ceiling,
		Choices:        x.request.choices,
		DefaultCeiling: x.s.o.DefaultOutputTokens,
		PromptTokens: func() (int64, bool) {
			if x.request.prompt.textBytes > sampleBytes {
				return 0, false // a scaled sample is no bound
			}
			n, known := billing.CountTokens(x.request.model, promptText(x.endpoint.Shape, body))
			return x.request.prompt.withText(n), known
		},
	}
	if x.endpoint.Shape == ShapeEmbedding {
		r.Ceiling, r.DefaultCeiling = 0, 0
	}
	return r
}

// keep remembers the body for the case that its tokens must be counted: small
// ones as they are, of larger ones only as much text as is counted anyway.
func (x *exchange) keep(body []byte) {
	if len(body) <= sampleBytes {
		x.body = body
		return
	}
	x.sample = promptText(x.endpoint.Shape, body)
}

// edited is the body with what the gateway adds: the wish for usage in a
// stream, and the held ceiling where BudgetExact asks for it.
func (x *exchange) edited(body []byte) []byte {
	var ceiling *edit
	if x.s.o.BudgetExact && x.request.ceiling == 0 && x.endpoint.Shape != ShapeEmbedding {
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
	if x.s.o.UpstreamKey != "" {
		m.SetHeaders = []*corev3.HeaderValueOption{setHeader(headerAuthorization, "Bearer "+x.s.o.UpstreamKey)}
		m.RemoveHeaders = slices.DeleteFunc(m.RemoveHeaders, func(name string) bool { return name == headerAuthorization })
	}
	return m
}

// logRefusal says who was refused and why: never a credential, never a body.
func (s *Server) logRefusal(x *exchange, r *refusal) {
	s.o.Log.Info("request refused",
		zap.String("request_id", x.requestID), zap.Int("status", r.status), zap.String("code", r.code),
		zap.String("key_id", x.key.ID), zap.String("method", clip(x.headers.method)), zap.String("path", clip(strings.ToValidUTF8(x.headers.path, "?"))))
}
