package extproc

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/billing"
)

const (
	chatBody   = `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}`
	streamBody = `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5,"stream":true}`
	jsonAnswer = `{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`

	delta      = "data: {\"id\":\"1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"yes\"},\"finish_reason\":null}],\"usage\":null}\n\n"
	finish     = "data: {\"id\":\"1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
	usageChunk = "data: {\"id\":\"1\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\n\n"
	done       = "data: [DONE]\n\n"
)

// admittedConversation is a request that has left.
func (r *rig) admittedConversation(body string) *conversation {
	r.t.Helper()
	c := r.begin()
	if a := c.say(post("/v1/chat/completions")); admitted(a) {
		r.t.Fatal("admitted before the body was read")
	}
	if a := c.say(requestBodyMsg(body)); !admitted(a) {
		r.t.Fatalf("not admitted: %v", a)
	}
	return c
}

func TestExchange_jsonAnswerIsChargedBeforeItsEndIsReleased(t *testing.T) {
	r := newRig(t, nil)
	c := r.admittedConversation(chatBody)
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
	half := len(jsonAnswer) / 2
	c.say(responseBodyMsg(jsonAnswer[:half], false))
	if r.books.resolutions() != 0 {
		t.Fatal("charged before the end was seen")
	}
	c.say(responseBodyMsg(jsonAnswer[half:], false))
	if d := cmp.Diff([]string{"reserve h1", "settle h1 reported 3+4"}, r.books.events); d != "" {
		t.Fatalf("the closing brace was released unpaid: %s", d)
	}
	c.say(responseBodyMsg("", true))
	c.end()
	if len(r.books.events) != 2 {
		t.Errorf("charged again: %v", r.books.events)
	}
}

func TestExchange_streamAsksForUsageAndTakesItOutAgain(t *testing.T) {
	r := newRig(t, nil)
	c := r.begin()
	c.say(post("/v1/chat/completions"))
	a := c.say(requestBodyMsg(streamBody))
	sent := a.GetRequestBody().GetResponse()
	want := strings.TrimSuffix(streamBody, "}") + `,"stream_options":{"include_usage":true}}`
	if got := string(sent.GetBodyMutation().GetBody()); got != want {
		t.Errorf("sent %s", got)
	}
	if got := setHeaders(sent.GetHeaderMutation().GetSetHeaders())["content-length"]; got != strconv.Itoa(len(want)) {
		t.Errorf("content-length %q, body has %d", got, len(want))
	}
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream"))
	if a := c.say(responseBodyMsg(delta, false)); a != r.server.shared.passResponseBody {
		t.Errorf("an untouched piece costs a message of its own: %v", a)
	}
	c.say(responseBodyMsg(finish, false))
	before := len(r.books.outcomes)
	a = c.say(responseBodyMsg(usageChunk, false))
	if before != 0 || len(r.books.outcomes) != 1 || r.books.outcomes[0].Provenance != billing.Reported {
		t.Fatalf("events %v", r.books.events)
	}
	if !a.GetResponseBody().GetResponse().GetBodyMutation().GetClearBody() {
		t.Errorf("the usage chunk nobody asked for is passed on: %v", a)
	}
	fields := a.GetDynamicMetadata().GetFields()["llmgw"].GetStructValue().GetFields()
	if fields["total_tokens"].GetNumberValue() != 7 || fields["provenance"].GetStringValue() != "reported" {
		t.Errorf("metadata %v", fields)
	}
	c.say(responseBodyMsg(done, false))
	c.say(responseBodyMsg("", true))
	c.end()
	if r.books.resolutions() != 1 {
		t.Errorf("events %v", r.books.events)
	}
}

func TestExchange_usageTheClientAskedForStays(t *testing.T) {
	r := newRig(t, nil)
	c := r.begin()
	c.say(post("/v1/chat/completions"))
	a := c.say(requestBodyMsg(strings.TrimSuffix(streamBody, "}") + `,"stream_options":{"include_usage":true}}`))
	if a.GetRequestBody().GetResponse().GetBodyMutation() != nil {
		t.Error("the request was changed")
	}
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream"))
	for _, piece := range []string{delta, finish, usageChunk, done} {
		if a := c.say(responseBodyMsg(piece, false)); a.GetResponseBody().GetResponse().GetBodyMutation() != nil {
			t.Errorf("%q was changed", piece)
		}
	}
	c.say(responseBodyMsg("", true))
	c.end()
}

// TestExchange_outcomes is the outcome table: how an exchange ends decides
// what is charged and how sure the figure is.
func TestExchange_outcomes(t *testing.T) {
	sse := responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream")
	jsonHeaders := responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json")
	noUsage := strings.Split(jsonAnswer, `,"usage"`)[0] + "}"
	for _, c := range []struct {
		name, body string
		answer     []*extprocv3.ProcessingRequest
		want       string
	}{
		{"client leaves before the first byte", chatBody, nil, "settle h1 aborted 8+0"},
		{"upstream refused", chatBody, []*extprocv3.ProcessingRequest{responseHeadersMsg("upstream_reset_before_response_started{connection_refused}", false, ":status", "503"), responseBodyMsg("{}", true)}, "void h1"},
		{"upstream says 400", chatBody, []*extprocv3.ProcessingRequest{responseHeadersMsg("via_upstream", false, ":status", "400", "content-type", "application/json")}, "void h1"},
		{"upstream says 302", chatBody, []*extprocv3.ProcessingRequest{responseHeadersMsg("via_upstream", false, ":status", "302")}, "void h1"},
		{"no usage in a complete JSON", chatBody, []*extprocv3.ProcessingRequest{jsonHeaders, responseBodyMsg(noUsage, true)}, "settle h1 estimated 8+1"},
		{"usage lies", chatBody, []*extprocv3.ProcessingRequest{jsonHeaders, responseBodyMsg(strings.Replace(jsonAnswer, ":4,", ":-4,", 1), true)}, "settle h1 estimated 8+1"},
		{"JSON cut", chatBody, []*extprocv3.ProcessingRequest{jsonHeaders, responseBodyMsg(noUsage[:len(noUsage)-4], false)}, "settle h1 aborted 8+1"},
		{"204", chatBody, []*extprocv3.ProcessingRequest{responseHeadersMsg("via_upstream", true, ":status", "204")}, "settle h1 estimated 8+0"},
		{"stream without usage", streamBody, []*extprocv3.ProcessingRequest{sse, responseBodyMsg(delta+finish, false), responseBodyMsg(done, false), responseBodyMsg("", true)}, "settle h1 estimated 8+1"},
		{"stream broken off", streamBody, []*extprocv3.ProcessingRequest{sse, responseBodyMsg(delta, false)}, "settle h1 aborted 8+1"},
		{"stream ends without [DONE]", streamBody, []*extprocv3.ProcessingRequest{sse, responseBodyMsg(delta, false), responseBodyMsg("", true)}, "settle h1 aborted 8+1"},
		{"client leaves after the usage chunk", streamBody, []*extprocv3.ProcessingRequest{sse, responseBodyMsg(delta+finish, false), responseBodyMsg(usageChunk, false)}, "settle h1 reported 3+4"},
		{"trailers end the answer", streamBody, []*extprocv3.ProcessingRequest{sse, responseBodyMsg(delta+finish+usageChunk+done, false), responseTrailersMsg()}, "settle h1 reported 3+4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			talk := r.admittedConversation(c.body)
			for _, m := range c.answer {
				talk.say(m)
			}
			talk.end()
			talk.end() // the defer may run after an orderly end too
			got := slices.DeleteFunc(r.books.events, func(e string) bool { return strings.HasPrefix(e, "checkpoint") })
			if d := cmp.Diff([]string{"reserve h1", c.want}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestExchange_unwrittenChargeCutsTheAnswer(t *testing.T) {
	r := newRig(t, nil)
	c := r.admittedConversation(chatBody)
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
	r.books.settleErr = billing.ErrUnavailable
	if a, err := c.x.step(t.Context(), responseBodyMsg(jsonAnswer, true)); err == nil {
		t.Fatalf("the end was given away: %v", a)
	}
}

func TestExchange_laterLargerFigureIsCorrected(t *testing.T) {
	r := newRig(t, nil)
	c := r.admittedConversation(streamBody)
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream"))
	c.say(responseBodyMsg(delta+usageChunk, false))
	c.say(responseBodyMsg(strings.NewReplacer(":4,", ":6,", ":7}", ":9}").Replace(usageChunk), false))
	c.say(responseBodyMsg(done, true))
	c.end()
	want := []string{"reserve h1", "checkpoint h1", "settle h1 reported 3+4", "correct h1 3+6"}
	if d := cmp.Diff(want, r.books.events); d != "" {
		t.Error(d)
	}
}

func TestExchange_closedWhenTheBooksAre(t *testing.T) {
	for name, set := range map[string]func(*rig){
		"keys":  func(r *rig) { r.books.lookupErr = errors.New("disk on fire at /var/lib/x") },
		"holds": func(r *rig) { r.books.reserveErr = billing.ErrUnavailable },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			set(r)
			talk := r.begin()
			a := talk.say(post("/v1/chat/completions"))
			if a.GetImmediateResponse() == nil {
				a = talk.say(requestBodyMsg(chatBody))
			}
			checkRefusal(t, a, 503, "gateway_unavailable")
			if strings.Contains(string(a.GetImmediateResponse().GetBody()), "disk") {
				t.Error("internals are shown")
			}
		})
	}
}

func TestExchange_forwardsNoSecretOfTheClient(t *testing.T) {
	r := newRig(t, func(o *Options) { o.UpstreamKey = "sk-upstream" })
	c := r.begin()
	a := c.say(post("/v1/chat/completions", "x-api-key", "a", "cookie", "b", "x-llmgw-admit", "1", "x-llmgw-key", "z"))
	m := a.GetRequestHeaders().GetResponse().GetHeaderMutation()
	if got := setHeaders(m.GetSetHeaders()); got["authorization"] != "Bearer sk-upstream" || len(got) != 1 {
		t.Errorf("set %v", got)
	}
	for _, name := range []string{"accept-encoding", "x-api-key", "cookie", "x-llmgw-admit", "x-llmgw-key"} {
		if !slices.Contains(m.GetRemoveHeaders(), name) {
			t.Errorf("%s is not removed: %v", name, m.GetRemoveHeaders())
		}
	}
	without := newRig(t, nil).begin().say(post("/v1/chat/completions")).GetRequestHeaders().GetResponse().GetHeaderMutation()
	if !slices.Contains(without.GetRemoveHeaders(), "authorization") {
		t.Errorf("the client's key reaches the upstream: %v", without)
	}
}

func TestExchange_modelsListIsAdmittedOnItsHeaders(t *testing.T) {
	r := newRig(t, nil)
	c := r.begin()
	a := c.say(requestHeadersMsg(true, ":method", "GET", ":path", "/v1/models?x=1", "authorization", "Bearer "+goodSecret))
	if !admitted(a) || len(r.limits.taken) != 1 || len(r.books.requests) != 0 {
		t.Fatalf("%v", a)
	}
	a = c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "x-ratelimit-limit-requests", "9", "retry-after", "3"))
	m := a.GetResponseHeaders().GetResponse().GetHeaderMutation()
	if !slices.Contains(m.GetRemoveHeaders(), "x-ratelimit-limit-requests") || !slices.Contains(m.GetRemoveHeaders(), "retry-after") {
		t.Errorf("the upstream's limits are shown: %v", m)
	}
	if a.GetModeOverride().GetResponseBodyMode() != filterv3.ProcessingMode_NONE {
		t.Error("a body nobody meters is sent")
	}
	c.end()
}

func TestExchange_budgetExactWritesTheCeiling(t *testing.T) {
	r := newRig(t, func(o *Options) { o.BudgetExact = true })
	for body, want := range map[string]string{
		`{"model":"m","messages":[{"content":"x"}]}`:                   `{"model":"m","messages":[{"content":"x"}],"max_completion_tokens":100}`,
		`{"model":"m","max_tokens":null,"messages":[{"content":"x"}]}`: `{"model":"m","max_tokens":100,"messages":[{"content":"x"}]}`,
		`{"model":"m","max_tokens":4,"messages":[{"content":"x"}]}`:    ``,
	} {
		c := r.begin()
		c.say(post("/v1/chat/completions"))
		if got := string(c.say(requestBodyMsg(body)).GetRequestBody().GetResponse().GetBodyMutation().GetBody()); got != want {
			t.Errorf("%s became %s, want %s", body, got, want)
		}
	}
}

func TestExchange_rateOfTheKeyBeatsTheDefault(t *testing.T) {
	r := newRig(t, nil)
	r.begin().say(requestHeadersMsg(true, ":method", "GET", ":path", "/v1/models", "authorization", "Bearer sk-rpm"))
	if l := r.limits.taken[0].Requests; l.Max != 7 || l.Window != time.Minute {
		t.Errorf("%+v", l)
	}
}

func TestExchange_refusesModesItCannotMeter(t *testing.T) {
	for name, config := range map[string]*extprocv3.ProtocolConfiguration{
		"request body not sent":  {ResponseBodyMode: filterv3.ProcessingMode_STREAMED},
		"response body not sent": {RequestBodyMode: filterv3.ProcessingMode_BUFFERED},
		"response body buffered": {RequestBodyMode: filterv3.ProcessingMode_BUFFERED, ResponseBodyMode: filterv3.ProcessingMode_BUFFERED},
	} {
		t.Run(name, func(t *testing.T) {
			m := post("/v1/chat/completions")
			m.ProtocolConfig = config
			if a, err := newRig(t, nil).server.newExchange().step(t.Context(), m); err == nil {
				t.Errorf("answered %v", a)
			}
		})
	}
}

func TestExchange_envoysOwnAnswerAsFirstMessage(t *testing.T) {
	r := newRig(t, nil)
	c := r.begin()
	c.say(responseHeadersMsg("http1.codec_error", false, ":status", "400"))
	c.say(responseBodyMsg("x", true))
	c.end()
	if len(r.books.events) != 0 {
		t.Error(r.books.events)
	}
}
