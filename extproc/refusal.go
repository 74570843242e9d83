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
	param   string // the request's member that is wrong, "" = null
	message string
	headers [][2]string
}

// Error types of OpenAI's API; SDKs map the status, people read these.
const (
	typeInvalidRequest    = "invalid_request_error"
	typeInsufficientQuota = "insufficient_quota"
	typeRequests          = "requests"
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
		status: 400, kind: typeInvalidRequest, code: "malformed_authorization",
		message: "Send exactly one API key, and nothing behind it, as: Authorization: Bearer YOUR_KEY.",
	}
}

// invalidKey is one answer for unknown, revoked, expired and malformed keys:
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

// unavailable is the closed answer: a dependency cannot say yes. Envoy says
// the same in the same words when the gate itself is away.
func unavailable() *refusal {
	return &refusal{
		status: 503, kind: typeAPI, code: "gateway_unavailable",
		message: "The gateway cannot check this request now. Please retry.",
		headers: [][2]string{{"retry-after", "1"}},
	}
}

func rateLimited(d ratelimit.Decision) *refusal {
	return &refusal{
		status: 429, kind: typeRequests, code: "rate_limit_exceeded",
		message: fmt.Sprintf("Rate limit reached: %d requests per %s. Please try again in %s.",
			d.Limit.Max, seconds(d.Limit.Window), seconds(d.RetryIn)),
		headers: append(windowHeaders(d), retryHeaders(d.RetryIn)...),
	}
}

func budgetSpent(e *billing.BudgetError, window *ratelimit.Decision) *refusal {
	r := &refusal{
		status: 429, kind: typeInsufficientQuota, code: "insufficient_quota",
		message: fmt.Sprintf("The %s token budget of this key cannot take this request: limit %d, used %d, held by running requests %d, needed %d. It starts anew in %s.",
			e.Budget, e.Limit, e.Used, e.Held, e.Needed, seconds(e.ResetIn)),
		// SDKs would otherwise wait and repeat: some as long as Retry-After
		// says, which here can be a month.
		headers: append(retryHeaders(e.ResetIn), [2]string{"x-should-retry", "false"}),
	}
	if window != nil {
		r.headers = append(r.headers, windowHeaders(*window)...)
	}
	return r
}

// reserveRefusal maps what the books said to an answer.
func (s *Server) reserveRefusal(err error, window *ratelimit.Decision) *refusal {
	var budget *billing.BudgetError
	switch {
	case errors.As(err, &budget):
		return budgetSpent(budget, window)
	case isKeyError(err): // revoked between look-up and hold
		return invalidKey(s.o.InvalidKeyStatus)
	}
	return unavailable()
}

func isKeyError(err error) bool {
	return errors.Is(err, billing.ErrUnknownKey) || errors.Is(err, billing.ErrRevokedKey) || errors.Is(err, billing.ErrExpiredKey)
}

// windowHeaders tell where a client stands in its request window: the names of
// the original gateway (seconds) and OpenAI's (Go durations).
func windowHeaders(d ratelimit.Decision) [][2]string {
	limit, remaining := strconv.FormatInt(d.Limit.Max, 10), strconv.FormatInt(d.Remaining, 10)
	return [][2]string{
		{"x-ratelimit-limit", limit},
		{"x-ratelimit-remaining", remaining},
		{"x-ratelimit-reset", wholeSeconds(d.ResetIn)},
		{"x-ratelimit-limit-requests", limit},
		{"x-ratelimit-remaining-requests", remaining},
		{"x-ratelimit-reset-requests", roundUp(d.ResetIn, time.Millisecond).String()},
	}
}

// budgetHeaders tell about the tightest token budget, before this answer's
// own tokens are known.
func budgetHeaders(h billing.Hold) [][2]string {
	return [][2]string{
		{"x-ratelimit-limit-tokens", strconv.FormatInt(h.Limit, 10)},
		{"x-ratelimit-remaining-tokens", strconv.FormatInt(max(0, h.Remaining), 10)},
		{"x-ratelimit-reset-tokens", roundUp(h.ResetIn, time.Second).String()},
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
