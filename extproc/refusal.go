package extproc

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// refusal is an answer of the gateway's own: what a refused client reads. It
// never carries anything that came out of a dependency's error.
type refusal struct {
	status  int
	kind    string // error.type in OpenAI's error object
	code    string // error.code; also names the reason in Envoy's access log
	limit   string // the rate limit or budget that refused, for the log
	param   string // the request's member that is wrong, "" = null
	message string
	headers [][2]string
}

// ErrorCodes are all values of error.code that the gate answers.
func ErrorCodes() []string {
	return []string{
		"gateway_unavailable", "insufficient_quota", "invalid_api_key", "invalid_json", "invalid_type", "invalid_value",
		codeMalformedCredential, "method_not_allowed", "missing_api_key", "missing_required_parameter", "model_not_allowed", "model_not_priced",
		"not_found", "rate_limit_exceeded", "request_too_large", "unsupported_content_encoding",
	}
}

// codeMalformedCredential is an authentication failure, though its status is 400.
const codeMalformedCredential = "malformed_authorization"

// Error types of OpenAI's API; SDKs map the status, people read these.
const (
	typeInvalidRequest    = "invalid_request_error"
	typeInsufficientQuota = "insufficient_quota"
	typeRequests          = "requests"
	typeTokens            = "tokens"
	typeAPI               = "api_error"
)

// body is the error object that OpenAI SDKs read, with the detail string that
// clients of the original gateway read.
func (r *refusal) body() []byte {
	type inner struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	e := inner{Message: r.message, Type: r.kind, Code: r.code}
	if r.param != "" {
		e.Param = &r.param
	}
	out, err := json.Marshal(struct {
		Error  inner  `json:"error"`
		Detail string `json:"detail"`
	}{e, r.message})
	if err != nil {
		panic(fmt.Sprintf("marshalling strings failed: %v", err)) // cannot happen
	}
	return out
}

func badRequest(code, param, message string) *refusal {
	return &refusal{status: 400, kind: typeInvalidRequest, code: code, param: param, message: message}
}

func notFound() *refusal {
	return &refusal{status: 404, kind: typeInvalidRequest, code: "not_found", message: "Unknown endpoint. See the documentation for what this gateway serves."}
}

func methodNotAllowed(allow string) *refusal {
	return &refusal{
		status: 405, kind: typeInvalidRequest, code: "method_not_allowed",
		message: "This endpoint only takes " + allow + ".",
		headers: [][2]string{{"allow", allow}},
	}
}

func tooLarge(limit int64) *refusal {
	return &refusal{status: 413, kind: typeInvalidRequest, code: "request_too_large", message: "The request body may have at most " + strconv.FormatInt(limit, 10) + " bytes."}
}

func encodedBody() *refusal {
	return &refusal{status: 415, kind: typeInvalidRequest, code: "unsupported_content_encoding", message: "Send the request body without a content-encoding."}
}

func missingKey() *refusal {
	return &refusal{
		status: 401, kind: typeInvalidRequest, code: "missing_api_key",
		message: "You didn't provide an API key. Send it as: Authorization: Bearer YOUR_KEY.",
		headers: [][2]string{{"www-authenticate", `Bearer realm="llm-gateway"`}},
	}
}

func malformedCredential() *refusal {
	return &refusal{
		status: 400, kind: typeInvalidRequest, code: codeMalformedCredential,
		message: "Send exactly one API key, and nothing behind it, as: Authorization: Bearer YOUR_KEY.",
	}
}

// invalidKey is one answer for unknown, blocked, revoked, expired and malformed keys:
// whoever guesses keys learns nothing from it.
func invalidKey(status int) *refusal {
	return &refusal{
		status: status, kind: typeInvalidRequest, code: "invalid_api_key",
		message: "This API key is not valid.",
		headers: [][2]string{{"www-authenticate", `Bearer realm="llm-gateway", error="invalid_token"`}},
	}
}

func modelNotAllowed() *refusal {
	return &refusal{status: 403, kind: typeInvalidRequest, code: "model_not_allowed", param: "model", message: "This API key may not use this model."}
}

func modelNotPriced() *refusal {
	return &refusal{status: 403, kind: typeInvalidRequest, code: "model_not_priced", param: "model", message: "This gateway has no price for the model and does not serve it without one."}
}

// unavailable is the closed answer: a dependency cannot say yes. Envoy says
// the same in the same words when the gate itself is away.
func unavailable() *refusal {
	return &refusal{
		status: 503, kind: typeAPI, code: "gateway_unavailable",
		message: "The gateway cannot check this request now. Please retry.",
		headers: [][2]string{{"retry-after", "1"}},
	}
}

// rateLimited answers a full rate limit with the name of the limit and the true
// time until it would pass.
func rateLimited(p *place, standing billing.Standing) *refusal {
	d := &p.decision
	r := &refusal{status: 429, kind: typeRequests, code: "rate_limit_exceeded", limit: d.Refused}
	switch d.Refused {
	case ratelimit.NameTokens:
		r.kind = typeTokens
		r.message = fmt.Sprintf("Rate limit reached: %d tokens per %s; this request may need %d. Please try again in %s.",
			d.Tokens.Limit.Max, seconds(d.Tokens.Limit.Window), p.ask.MinTokens, seconds(d.RetryIn))
	case ratelimit.NameConcurrent:
		r.message = fmt.Sprintf("Rate limit reached: %d requests of this key are running, as many as it may have at once. Please try again when one has ended.",
			d.Concurrent.Limit.Max)
	default:
		r.message = fmt.Sprintf("Rate limit reached: %d requests per %s. Please try again in %s.",
			d.Requests.Limit.Max, seconds(d.Requests.Limit.Window), seconds(d.RetryIn))
	}
	r.headers = append(requestHeadersOf(d), tokenHeaders(d, standing)...)
	if d.RetryIn >= ratelimit.Never {
		r.message = fmt.Sprintf("This request may need %d tokens, and this key may use %d per %s. Ask for less at once.",
			p.ask.MinTokens, d.Tokens.Limit.Max, seconds(d.Tokens.Limit.Window))
		r.headers = append(r.headers, [2]string{headerShouldRetry, "false"}) // and no time to wait: none would be true
		return r
	}
	r.headers = append(r.headers, retryHeaders(d.RetryIn)...)
	return r
}

func budgetSpent(e *billing.BudgetError, d *ratelimit.Decision, standing billing.Standing) *refusal {
	message := fmt.Sprintf("The %s token budget of this key cannot take this request: limit %d, used %d, held by running requests %d, needed %d. It starts anew in %s.",
		e.Budget, e.Limit, e.Used, e.Held, e.Needed, seconds(e.ResetIn))
	if e.Budget == billing.BudgetMoney {
		message = fmt.Sprintf("The money budget of this key cannot take this request: limit %s, used %s, held by running requests %s, needed %s. It starts anew in %s.",
			billing.Money(e.Limit), billing.Money(e.Used), billing.Money(e.Held), billing.Money(e.Needed), seconds(e.ResetIn))
	}
	r := &refusal{
		status: 429, kind: typeInsufficientQuota, code: "insufficient_quota", limit: e.Budget, message: message,
		// SDKs would otherwise wait and repeat: some as long as Retry-After
		// says, which here can be a month.
		headers: append(retryHeaders(e.ResetIn), [2]string{headerShouldRetry, "false"}),
	}
	r.headers = append(r.headers, requestHeadersOf(d)...)
	r.headers = append(r.headers, tokenHeaders(d, standing)...)
	return r
}

// reserveRefusal maps what the books said to an answer.
func (x *exchange) reserveRefusal(err error) *refusal {
	var budget *billing.BudgetError
	switch {
	case errors.As(err, &budget):
		return budgetSpent(budget, &x.place.decision, x.s.o.Books.Standing(x.key.ID))
	case isKeyError(err): // revoked between look-up and hold
		return invalidKey(x.set.InvalidKeyStatus)
	case errors.Is(err, billing.ErrUnpriced):
		return modelNotPriced()
	}
	return unavailable()
}

func isKeyError(err error) bool {
	return errors.Is(err, billing.ErrUnknownKey) || errors.Is(err, billing.ErrRevokedKey) ||
		errors.Is(err, billing.ErrExpiredKey) || errors.Is(err, billing.ErrBlockedKey)
}

// requestHeadersOf tell where a client stands in its request window: the names
// of the original gateway (seconds) and OpenAI's (Go durations).
func requestHeadersOf(d *ratelimit.Decision) [][2]string {
	s := &d.Requests
	limit, remaining := strconv.FormatInt(s.Limit.Max, 10), strconv.FormatInt(max(0, s.Remaining), 10)
	return [][2]string{
		{"x-ratelimit-limit", limit},
		{"x-ratelimit-remaining", remaining},
		{"x-ratelimit-reset", wholeSeconds(s.ResetIn)},
		{"x-ratelimit-limit-requests", limit},
		{"x-ratelimit-remaining-requests", remaining},
		{"x-ratelimit-reset-requests", roundUp(s.ResetIn, time.Millisecond).String()},
	}
}

// tokenHeaders tell about the tightest token limit, per minute or budget,
// before this answer's own tokens are known.
func tokenHeaders(d *ratelimit.Decision, budget billing.Standing) [][2]string {
	limit, remaining, reset := budget.Limit, budget.Remaining, roundUp(budget.ResetIn, time.Second)
	if t := &d.Tokens; t.Limit.Max > 0 && t.Remaining < remaining {
		limit, remaining, reset = t.Limit.Max, t.Remaining, roundUp(t.ResetIn, time.Millisecond)
	}
	return [][2]string{
		{"x-ratelimit-limit-tokens", strconv.FormatInt(limit, 10)},
		{"x-ratelimit-remaining-tokens", strconv.FormatInt(max(0, remaining), 10)},
		{"x-ratelimit-reset-tokens", reset.String()},
	}
}

// retryHeaders are never early: rounded up, at least one second.
func retryHeaders(wait time.Duration) [][2]string {
	ms := int64(math.Ceil(float64(wait) / float64(time.Millisecond)))
	return [][2]string{
		{headerRetryAfter, wholeSeconds(max(wait, time.Second))},
		{"retry-after-ms", strconv.FormatInt(max(1, ms), 10)},
	}
}

func roundUp(d, unit time.Duration) time.Duration {
	if r := d % unit; r > 0 {
		d += unit - r
	}
	return d
}

func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(int64(roundUp(d, time.Second)/time.Second), 10)
}

func seconds(d time.Duration) string { return wholeSeconds(d) + " s" }
