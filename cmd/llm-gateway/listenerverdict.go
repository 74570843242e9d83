package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/MaksimVF/llm-gateway/envoy"
	"github.com/MaksimVF/llm-gateway/extproc"
)

// knock is a request by which `check --listener` tries a door.
type knock struct {
	name   string
	method string
	path   string // as it goes on the wire
	header http.Header
	body   string
	judge  func(answered) (detail string, ok bool)
}

// answered is what came back.
type answered struct {
	status int
	header http.Header
	body   []byte // its beginning
}

// checkBody costs next to nothing where it gets through.
const checkBody = `{"model":"llm-gateway-check","max_tokens":1,"messages":[{"role":"user","content":"llm-gateway check --listener"}]}`

const chatPath = "/v1/chat/completions"

// knocks are requests without a valid key, in the ways in which one could come
// past the gateway. Unknown is a key that nobody has.
func knocks(unknown string) []knock {
	bearer := http.Header{"Authorization": {"Bearer " + unknown}}
	chat := func(name, path string, header http.Header) knock {
		return knock{name, http.MethodPost, path, header, checkBody, refused}
	}
	return []knock{
		chat("no key", chatPath, nil),
		chat("unknown key", chatPath, bearer),
		chat("forged headers", chatPath, forgedHeaders()),
		chat("forged headers, unknown key", chatPath, joined(bearer, forgedHeaders())),
		{"models, no key", http.MethodGet, modelsPath, nil, "", refused},
		{"websocket, no key", http.MethodGet, chatPath, http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"bGxtLWdhdGV3YXkgY2hlY2s="},
		}, "", refused},
		chat("path //v1", "//v1/chat/completions", nil),
		chat("path %63hat", "/v1/%63hat/completions", nil),
		chat("path /v1/../v1", "/v1/../v1/chat/completions", nil),
	}
}

const modelsPath = "/v1/models"

// validKnock asks with a key for what costs nothing.
func validKnock(key string) knock {
	return knock{"valid key", http.MethodGet, modelsPath, http.Header{"Authorization": {"Bearer " + key}}, "", metered}
}

// forgedHeaders are what only the gateway and Envoy may say.
func forgedHeaders() http.Header {
	return http.Header{
		"X-Llmgw-Admit": {"1"}, "X-Llmgw-Key-Id": {"key_00000000000000000000000000"}, "X-Llmgw-Upstream": {"main"},
		"X-Envoy-Internal": {"true"}, "X-Envoy-Original-Path": {"/health"},
		"X-Envoy-Retry-On": {"5xx"}, "X-Envoy-Upstream-Rq-Timeout-Ms": {"1000"},
	}
}

func joined(headers ...http.Header) http.Header {
	all := http.Header{}
	for _, h := range headers {
		for name, values := range h {
			all[name] = append(all[name], values...)
		}
	}
	return all
}

// refused wants an error of the gateway's own, of a kind that nobody gets who
// was let through.
func refused(a answered) (string, bool) {
	code, ours := a.gatewayCode()
	switch {
	case a.status < 300:
		return fmt.Sprintf("%d: it was let through", a.status), false
	case a.status < 400:
		return fmt.Sprintf("%d, on to %s: nothing is known about this listener; check the one that answers",
			a.status, printable(a.header.Get("Location"))), false
	case !ours:
		return fmt.Sprintf("%d, and not in the gateway's words: it went past the gateway, to the model server or to another route of this listener", a.status), false
	case reachedUpstream(code):
		return fmt.Sprintf("%d %s: it was let through, only the model server did not answer", a.status, code), false
	case a.status == http.StatusServiceUnavailable:
		return fmt.Sprintf("%d %s: closed, because the gateway itself does not work", a.status, code), true
	}
	return fmt.Sprintf("%d %s", a.status, code), true
}

// metered wants an answer that has come through the gateway, with the limits of
// the key on it.
func metered(a answered) (string, bool) {
	code, ours := a.gatewayCode()
	switch {
	case ours && reachedUpstream(code):
		return fmt.Sprintf("%d %s: the gateway let it through, and the model server did not answer", a.status, code), false
	case ours:
		return fmt.Sprintf("%d %s: it is refused", a.status, code), false
	case a.header.Get("X-Ratelimit-Limit") == "":
		return fmt.Sprintf("%d, without the gateway's X-RateLimit headers: it went past the gateway", a.status), false
	}
	return fmt.Sprintf("%d, through the gateway", a.status), true
}

// reachedUpstream says of the gateway's own error whether the request had been
// admitted.
func reachedUpstream(code string) bool { return strings.HasPrefix(code, "upstream_") }

// gatewayCode is error.code of an error of the gateway's. Model servers have
// codes of the same names; none has the same text again in "detail".
func (a answered) gatewayCode() (code string, ok bool) {
	var p struct {
		Error struct {
			Message string `json:"message"`
			Code    string `json:"code"`
		} `json:"error"`
		Detail string `json:"detail"`
	}
	if a.status < 400 || json.Unmarshal(a.body, &p) != nil || p.Detail == "" || p.Detail != p.Error.Message {
		return "", false
	}
	return p.Error.Code, slices.Contains(append(extproc.ErrorCodes(), envoy.ErrorCodes()...), p.Error.Code)
}
