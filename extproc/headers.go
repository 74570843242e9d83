package extproc

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Names as Envoy sends them: lower case.
const (
	headerAuthorization   = "authorization"
	headerContentEncoding = "content-encoding"
	headerContentLength   = "content-length"
	headerContentType     = "content-type"
	headerMethod          = ":method"
	headerPath            = ":path"
	headerRequestID       = "x-request-id"
	headerRetryAfter      = "retry-after"
	headerShouldRetry     = "x-should-retry"
	headerStatus          = ":status"
	headerTraceParent     = "traceparent"
	headerTraceState      = "tracestate"

	prefixOwn       = "x-llmgw-"
	prefixRateLimit = "x-ratelimit-"
)

// isCredentialHeader names what never reaches the upstream: whatever a client
// puts there is a secret of the client's, and the upstream's credential is
// ours. accept-encoding goes too, so that answers stay readable for the meter,
// and with it everything in the gateway's own namespace.
func isCredentialHeader(name string) bool {
	switch name {
	case headerAuthorization, "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key", "accept-encoding":
		return true
	}
	return strings.HasPrefix(name, prefixOwn)
}

// value is a header's value: Envoy fills raw_value, other speakers of the
// protocol fill value.
func value(h *corev3.HeaderValue) string {
	if len(h.GetRawValue()) > 0 {
		return string(h.GetRawValue())
	}
	return h.GetValue()
}

// requestHeaders are the few request headers that a decision depends on.
type requestHeaders struct {
	method, path    string // path without the query
	requestID       string
	contentEncoding string
	contentLength   string // "" when the client sent none (chunked)
	traceParent     string // W3C Trace Context
	traceState      string
	authorization   []string // every occurrence: more than one is refused
	strip           []string // names of credential headers that are present
}

func readRequestHeaders(list []*corev3.HeaderValue) requestHeaders {
	var r requestHeaders
	for _, h := range list {
		switch name := h.GetKey(); name {
		case headerMethod:
			r.method = value(h)
		case headerPath:
			r.path, _, _ = strings.Cut(value(h), "?")
		case headerRequestID:
			r.requestID = value(h)
		case headerContentEncoding:
			if r.contentEncoding != "" {
				r.contentEncoding += ","
			}
			r.contentEncoding += strings.ToLower(strings.TrimSpace(value(h)))
		case headerContentLength:
			r.contentLength = value(h)
		case headerTraceParent:
			r.traceParent = value(h)
		case headerTraceState:
			r.traceState = value(h)
		default:
			if name == headerAuthorization {
				r.authorization = append(r.authorization, value(h))
			}
			if isCredentialHeader(name) {
				r.strip = append(r.strip, name)
			}
		}
	}
	return r
}

// responseHeaders are the few response headers that a decision depends on.
type responseHeaders struct {
	status          string
	contentType     string
	contentEncoding string
	upstreamLimits  []string // the upstream's own rate-limit headers: they describe its account with the provider
}

func readResponseHeaders(list []*corev3.HeaderValue) responseHeaders {
	var r responseHeaders
	for _, h := range list {
		switch name := h.GetKey(); {
		case name == headerStatus:
			r.status = value(h)
		case name == headerContentType:
			r.contentType = value(h)
		case name == headerContentEncoding:
			if r.contentEncoding != "" {
				r.contentEncoding += ","
			}
			r.contentEncoding += value(h)
		case name == headerRetryAfter || name == "retry-after-ms" || strings.HasPrefix(name, prefixRateLimit):
			r.upstreamLimits = append(r.upstreamLimits, name)
		}
	}
	return r
}

// success tells whether the status is 2xx.
func (r responseHeaders) success() bool { return len(r.status) == 3 && r.status[0] == '2' }

// credential is what an Authorization header offered.
type credential uint8

const (
	credentialMissing   credential = iota // none, or a scheme that carries no key
	credentialMalformed                   // more than one, or something after the key
	credentialPresent
)

// bearer takes the one key out of the Authorization headers. The scheme's case
// does not matter (RFC 9110, section 11.1). Two headers may have been joined
// with a comma on the way, whatever their schemes.
func bearer(values []string) (string, credential) {
	switch len(values) {
	case 0:
		return "", credentialMissing
	case 1:
	default:
		return "", credentialMalformed
	}
	text := strings.TrimSpace(values[0])
	for part := range strings.SplitSeq(text, ",") {
		if scheme, _, _ := strings.Cut(strings.TrimSpace(part), " "); len(part) < len(text) && strings.EqualFold(scheme, "Bearer") {
			return "", credentialMalformed
		}
	}
	scheme, secret, _ := strings.Cut(text, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", credentialMissing
	}
	secret = strings.Trim(secret, " ")
	if secret == "" {
		return "", credentialMissing
	}
	if strings.ContainsAny(secret, " \t,") {
		return "", credentialMalformed
	}
	return secret, credentialPresent
}
