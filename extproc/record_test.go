package extproc

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	zapobserver "go.uber.org/zap/zaptest/observer"

	"github.com/MaksimVF/llm-gateway/billing"
)

// watched is a rig whose log is kept.
func watched(t *testing.T, level zapcore.Level, change func(*Options)) (*rig, *zapobserver.ObservedLogs) {
	t.Helper()
	core, logs := zapobserver.New(level)
	return newRig(t, func(o *Options) {
		o.Log = zap.New(core)
		if change != nil {
			change(o)
		}
	}), logs
}

// line is the one access line, without what differs from run to run.
func line(t *testing.T, logs *zapobserver.ObservedLogs) (zapcore.Level, map[string]any) {
	t.Helper()
	found := logs.FilterMessage("request").AllUntimed()
	if len(found) != 1 {
		t.Fatalf("%d access lines, want 1: %v", len(found), found)
	}
	fields := found[0].ContextMap()
	maps.DeleteFunc(fields, func(name string, _ any) bool { return strings.HasSuffix(name, "_ms") })
	return found[0].Level, fields
}

// Every way an exchange can go, and the line that tells of it.
func TestOneLineTellsHowAnExchangeWent(t *testing.T) {
	answer := func(c *conversation, pieces ...string) {
		c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream"))
		for _, p := range pieces {
			c.say(responseBodyMsg(p, false))
		}
	}
	cases := map[string]struct {
		body   string
		change func(*rig)
		walk   func(*rig, *conversation) // after the request's headers and body
		level  zapcore.Level
		want   map[string]any
	}{
		"json": {body: chatBody, level: zap.InfoLevel, walk: func(_ *rig, c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
			c.say(responseBodyMsg(jsonAnswer, true))
		}, want: map[string]any{"ending": "served", "status": int64(200), "prompt_tokens": int64(3), "completion_tokens": int64(4), "total_tokens": int64(7), "provenance": "reported"}},
		"priced": {body: chatBody, level: zap.InfoLevel, change: func(r *rig) {
			input, output := billing.Money(2_500_000_000), billing.Money(10_000_000_000)
			r.books.rates = &billing.Rates{Input: &input, Output: &output}
		}, walk: func(_ *rig, c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
			c.say(responseBodyMsg(jsonAnswer, true))
		}, want: map[string]any{
			"ending": "served", "status": int64(200), "prompt_tokens": int64(3), "completion_tokens": int64(4), "total_tokens": int64(7), "provenance": "reported",
			"price": int64(7), "cost": "0.0000475",
		}},
		"stream": {body: streamBody, level: zap.InfoLevel, walk: func(_ *rig, c *conversation) {
			answer(c, delta, finish, usageChunk, done)
			c.say(responseBodyMsg("", true))
		}, want: map[string]any{"ending": "served", "status": int64(200), "stream": true, "prompt_tokens": int64(3), "completion_tokens": int64(4), "total_tokens": int64(7), "provenance": "reported"}},
		"client gone in the middle": {body: streamBody, level: zap.InfoLevel, walk: func(_ *rig, c *conversation) {
			answer(c, delta)
		}, want: map[string]any{"ending": "aborted", "status": int64(200), "stream": true, "prompt_tokens": int64(8), "completion_tokens": int64(1), "total_tokens": int64(9), "provenance": "aborted"}},
		"client gone before the answer": {
			body: chatBody, level: zap.InfoLevel, walk: func(*rig, *conversation) {},
			want: map[string]any{"ending": "aborted", "status": int64(0), "prompt_tokens": int64(8), "total_tokens": int64(8), "provenance": "aborted", "note": "abort_before_first_byte"},
		},
		"upstream's error": {body: chatBody, level: zap.WarnLevel, walk: func(_ *rig, c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "500"))
		}, want: map[string]any{"ending": "upstream_error", "status": int64(500)}},
		"upstream refuses the request": {body: chatBody, level: zap.InfoLevel, walk: func(_ *rig, c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "404"))
		}, want: map[string]any{"ending": "upstream_error", "status": int64(404)}},
		"unreachable": {body: chatBody, level: zap.WarnLevel, walk: func(_ *rig, c *conversation) {
			c.say(responseHeadersMsg("upstream_reset_before_response_started{connection_failure}", false, ":status", "502"))
		}, want: map[string]any{"ending": "upstream_unreachable", "status": int64(502)}},
		"timeout": {body: chatBody, level: zap.WarnLevel, walk: func(_ *rig, c *conversation) {
			c.say(responseHeadersMsg("response_timeout", false, ":status", "504"))
		}, want: map[string]any{"ending": "upstream_timeout", "status": int64(504)}},
		"charge not written": {body: chatBody, level: zap.ErrorLevel, change: func(r *rig) { r.books.settleErr = errors.New("disk") }, walk: func(r *rig, c *conversation) {
			c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
			if _, err := c.x.step(r.t.Context(), responseBodyMsg(jsonAnswer, true)); err == nil {
				r.t.Fatal("released unpaid")
			}
		}, want: map[string]any{"ending": "failed", "status": int64(200), "prompt_tokens": int64(3), "completion_tokens": int64(4), "total_tokens": int64(7), "provenance": "reported"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r, logs := watched(t, zap.InfoLevel, nil)
			if c.change != nil {
				c.change(r)
			}
			talk := r.admittedConversation(c.body)
			c.walk(r, talk)
			talk.end()
			level, got := line(t, logs)
			want := map[string]any{
				"request_id": "req-1", "key_id": "key_1", "key": "***", "method": "POST", "path": "/v1/chat/completions", "endpoint": "chat.completions",
				"model": "m", "stream": false, "prompt_tokens": int64(0), "completion_tokens": int64(0), "total_tokens": int64(0),
				"cached_tokens": int64(0), "reasoning_tokens": int64(0), "price": int64(0), "cost": "0", "provenance": "", "held_tokens": got["held_tokens"], "rate_limit_storage": "",
			}
			maps.Copy(want, c.want)
			if diff := cmp.Diff(want, got); diff != "" || level != c.level {
				t.Errorf("level %v, want %v\n%s", level, c.level, diff)
			}
		})
	}
}

// Every refusal is one line, with the reason; nothing of the credential is in it.
func TestOneLineTellsOfARefusal(t *testing.T) {
	cases := map[string]struct {
		headers []string
		change  func(*rig)
		body    string
		level   zapcore.Level
		status  int64
		code    string
		limit   string
	}{
		"no key":      {headers: []string{":method", "POST", ":path", "/v1/chat/completions"}, level: zap.WarnLevel, status: 401, code: "missing_api_key"},
		"bad key":     {headers: []string{":method", "POST", ":path", "/v1/chat/completions", "authorization", "Bearer sk-canary-0123456789abcdef"}, level: zap.WarnLevel, status: 403, code: "invalid_api_key"},
		"two keys":    {headers: []string{":method", "POST", ":path", "/v1/chat/completions", "authorization", "Bearer sk-canary-1, Bearer sk-canary-2"}, level: zap.WarnLevel, status: 400, code: "malformed_authorization"},
		"no path":     {headers: []string{":method", "GET", ":path", "/v1/files?key=sk-canary"}, level: zap.InfoLevel, status: 404, code: "not_found"},
		"method":      {headers: []string{":method", "GET", ":path", "/v1/completions"}, level: zap.InfoLevel, status: 405, code: "method_not_allowed"},
		"bad body":    {body: "{", level: zap.InfoLevel, status: 400, code: "invalid_json"},
		"rate limit":  {body: chatBody, change: func(r *rig) { r.limits.denied = true }, level: zap.WarnLevel, status: 429, code: "rate_limit_exceeded", limit: "requests"},
		"budget":      {body: chatBody, change: func(r *rig) { r.books.reserveErr = &billing.BudgetError{Budget: "daily"} }, level: zap.WarnLevel, status: 429, code: "insufficient_quota", limit: "daily"},
		"books away":  {body: chatBody, change: func(r *rig) { r.books.reserveErr = billing.ErrUnavailable }, level: zap.ErrorLevel, status: 503, code: "gateway_unavailable"},
		"limits away": {body: chatBody, change: func(r *rig) { r.limits.away = true }, level: zap.ErrorLevel, status: 503, code: "gateway_unavailable"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r, logs := watched(t, zap.DebugLevel, nil)
			if c.change != nil {
				c.change(r)
			}
			talk := r.begin()
			if c.headers != nil {
				talk.say(requestHeadersMsg(false, c.headers...))
			} else {
				talk.say(post("/v1/chat/completions"))
				talk.say(requestBodyMsg(c.body))
			}
			talk.end()
			level, got := line(t, logs)
			limit, _ := got["limit"].(string)
			if level != c.level || got["status"] != c.status || got["code"] != c.code || limit != c.limit || got["ending"] != "refused" {
				t.Errorf("%v %v", level, got)
			}
			if text := fmt.Sprint(logs.AllUntimed()); strings.Contains(text, "canary") {
				t.Errorf("a credential in the log: %s", text)
			}
		})
	}
}

// Envoy's own answer to a request that it never showed is no request of ours.
func TestAnAnswerToNothingLeavesNoLine(t *testing.T) {
	r, logs := watched(t, zap.DebugLevel, nil)
	c := r.begin()
	c.say(responseHeadersMsg("request_header_timeout", false, ":status", "408"))
	c.end()
	if logs.Len() != 0 {
		t.Errorf("%v", logs.AllUntimed())
	}
}

func TestTheIncomingRequestIsToldAtDebug(t *testing.T) {
	r, logs := watched(t, zap.DebugLevel, nil)
	r.books.keys[goodSecret] = billing.Key{ID: "key_1", Display: "sk-lgw_…wxyz"}
	r.admittedConversation(chatBody).end()
	got := logs.FilterMessage("request received").AllUntimed()
	if len(got) != 1 || got[0].ContextMap()["key"] != "sk-lgw_…wxyz" || got[0].ContextMap()["key_id"] != "key_1" {
		t.Errorf("%v", got)
	}
}

func TestWhatClientsWriteIsClipped(t *testing.T) {
	r, logs := watched(t, zap.InfoLevel, nil)
	c := r.begin()
	c.say(requestHeadersMsg(true, ":method", "GET", ":path", "/v1/"+strings.Repeat("x", 5000)+"\xff", "x-request-id", strings.Repeat("y\n", 500)))
	c.end()
	_, got := line(t, logs)
	for name, v := range got {
		if text, ok := v.(string); ok && len(text) > maxRecordedText+len("…") {
			t.Errorf("%s has %d bytes", name, len(text))
		}
	}
}

func TestUpstreamHealth(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	h := &upstreamHealth{}
	tell := func(ending Ending, status int) { h.learn(&Record{Ending: ending, Status: status, Start: now}) }
	expect := func(want UpstreamState) {
		t.Helper()
		if got := h.state(now); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	expect(UpstreamUnknown)
	tell(EndingRefused, 403)
	tell(EndingAborted, 200)
	expect(UpstreamUnknown)
	tell(EndingServed, 200)
	expect(UpstreamWorking)
	tell(EndingTimeout, 504)
	tell(EndingUnreachable, 502)
	expect(UpstreamWorking)
	tell(EndingAborted, 0) // says nothing either way
	tell(EndingUpstream, 503)
	expect(UpstreamFailing)
	tell(EndingUpstream, 400) // an answer
	expect(UpstreamWorking)
	for range upstreamFailures {
		tell(EndingUnreachable, 502)
	}
	expect(UpstreamFailing)
	now = now.Add(upstreamMemory + time.Second)
	expect(UpstreamUnknown)
}
