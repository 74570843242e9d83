package extproc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// fakeBooks is the ledger reduced to what a test asserts: what happened to
// which hold, in which order. Errors are made on cue.
type fakeBooks struct {
	rates      *billing.Rates // of holds, nil = the models have no price
	keys       map[string]billing.Key
	lookupErr  error
	reserveErr error
	settleErr  error
	budget     *billing.BudgetError

	minted      int
	requests    []billing.HoldRequest
	open        map[string]bool
	events      []string // "reserve h1", "settle h1 reported 3+4", "void h1", ...
	checkpoints []billing.Progress
	outcomes    []billing.Outcome
}

const goodSecret = "sk-good"

func newFakeBooks() *fakeBooks {
	return &fakeBooks{
		keys: map[string]billing.Key{goodSecret: {ID: "key_1"}, "sk-models": {ID: "key_2", Models: []string{"allowed"}}, "sk-rpm": {ID: "key_3", RPM: 7}, "sk-patterns": {ID: "key_5", Models: []string{"gpt-4o*", "*/llama-3"}}, "sk-all": {ID: "key_4", RPM: 7, TPM: 500, Concurrent: 2}},
		open: map[string]bool{},
	}
}

func (f *fakeBooks) Lookup(secret string) (billing.Key, error) {
	if f.lookupErr != nil {
		return billing.Key{}, f.lookupErr
	}
	k, ok := f.keys[secret]
	if !ok {
		return billing.Key{}, billing.ErrUnknownKey
	}
	return k, nil
}

func (f *fakeBooks) Reserve(_ context.Context, r billing.HoldRequest) (billing.Hold, error) {
	f.requests = append(f.requests, r)
	if f.reserveErr != nil {
		return billing.Hold{}, f.reserveErr
	}
	id := r.ID
	f.open[id] = true
	f.events = append(f.events, "reserve "+id)
	ceiling := r.Ceiling
	if ceiling == 0 {
		ceiling = r.DefaultCeiling
	}
	price := int64(0)
	if f.rates != nil {
		price = 7
	}
	return billing.Hold{ID: id, KeyID: r.KeyID, Price: price, Rates: f.rates, Tokens: r.PromptBound + ceiling*r.Choices, Ceiling: ceiling, Limit: 1000, Remaining: 900, ResetIn: time.Hour}, nil
}

func (f *fakeBooks) NewHoldID() string {
	f.minted++
	return fmt.Sprintf("h%d", f.minted)
}

func (f *fakeBooks) Standing(string) billing.Standing {
	return billing.Standing{Limit: 1000, Remaining: 950, ResetIn: time.Hour}
}

func (f *fakeBooks) Budget(string, int64) *billing.BudgetError { return f.budget }

func (f *fakeBooks) Checkpoint(id string, p billing.Progress) {
	f.events = append(f.events, "checkpoint "+id)
	f.checkpoints = append(f.checkpoints, p)
}

func (f *fakeBooks) Settle(_ context.Context, id string, o billing.Outcome) error {
	f.events = append(f.events, fmt.Sprintf("settle %s %s %d+%d", id, o.Provenance, o.Prompt, o.Completion))
	f.outcomes = append(f.outcomes, o)
	delete(f.open, id)
	return f.settleErr
}

func (f *fakeBooks) Correct(_ context.Context, id string, o billing.Outcome) error {
	f.events = append(f.events, fmt.Sprintf("correct %s %d+%d", id, o.Prompt, o.Completion))
	return f.settleErr
}

func (f *fakeBooks) Void(id string) {
	f.events = append(f.events, "void "+id)
	delete(f.open, id)
}

// resolutions counts how often holds were settled or voided.
func (f *fakeBooks) resolutions() int {
	n := 0
	for _, e := range f.events {
		if strings.HasPrefix(e, "settle") || strings.HasPrefix(e, "void") {
			n++
		}
	}
	return n
}

// fakeLimits is the rate limits reduced to what a test asserts: who took, who
// gave back, who ended with how many tokens.
type fakeLimits struct {
	denied   bool
	refused  string // the limit that denies; "" = requests
	retryIn  time.Duration
	away     bool
	granted  int64 // 0 = all that was asked
	asks     []ratelimit.Ask
	taken    []ratelimit.Limits
	returned int
	settled  []int64
}

func (f *fakeLimits) Take(_ context.Context, a ratelimit.Ask) (ratelimit.Decision, error) {
	f.asks = append(f.asks, a)
	if f.away {
		return ratelimit.Decision{}, ratelimit.ErrUnavailable
	}
	d := ratelimit.Decision{
		Requests:   ratelimit.State{Limit: a.Limits.Requests, ResetIn: 1500 * time.Millisecond},
		Tokens:     ratelimit.State{Limit: a.Limits.Tokens, ResetIn: 2500 * time.Millisecond},
		Concurrent: ratelimit.State{Limit: ratelimit.Limit{Max: a.Limits.Concurrent}},
	}
	if f.denied {
		d.Refused, d.RetryIn = f.refused, f.retryIn
		if d.Refused == "" {
			d.Refused = ratelimit.NameRequests
		}
		return d, nil
	}
	f.taken = append(f.taken, a.Limits)
	d.Allowed, d.Granted, d.Requests.Remaining, d.Tokens.Remaining = true, a.Tokens, 3, 70
	if f.granted > 0 {
		d.Granted = f.granted
	}
	return d, nil
}

func (f *fakeLimits) GiveBack(context.Context, ratelimit.Ask, ratelimit.Decision) { f.returned++ }

func (f *fakeLimits) Settle(_ ratelimit.Ask, _ ratelimit.Decision, tokens int64) {
	f.settled = append(f.settled, tokens)
}

// leaks is the number of places that were taken and neither given back nor
// settled; negative when one was ended twice.
func (f *fakeLimits) leaks() int { return len(f.taken) - f.returned - len(f.settled) }

// rig is a server over fakes.
type rig struct {
	t      *testing.T
	books  *fakeBooks
	limits *fakeLimits
	server *Server
}

func newRig(t *testing.T, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, books: newFakeBooks(), limits: &fakeLimits{}}
	o := Options{
		Books: r.books, Limits: r.limits, Log: zap.NewNop(),
		Settings:        Settings{Defaults: ratelimit.Limits{Requests: ratelimit.Limit{Max: 30, Window: time.Minute}}, DefaultOutputTokens: 100},
		MaxRequestBytes: 1 << 20,
	}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.server = s
	return r
}

// conversation is one exchange with Envoy, step by step.
type conversation struct {
	t *testing.T
	x *exchange
}

func (r *rig) begin() *conversation { return &conversation{t: r.t, x: r.server.newExchange()} }

func (c *conversation) say(m *extprocv3.ProcessingRequest) reply {
	c.t.Helper()
	answer, err := c.x.step(c.t.Context(), m)
	if err != nil {
		c.t.Fatalf("the stream ended: %v", err)
	}
	return answer
}

func (c *conversation) end() { c.x.close(c.t.Context()) }

func headerList(pairs ...string) *extprocv3.HttpHeaders {
	h := &corev3.HeaderMap{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Headers = append(h.Headers, &corev3.HeaderValue{Key: pairs[i], RawValue: []byte(pairs[i+1])})
	}
	return &extprocv3.HttpHeaders{Headers: h}
}

func requestHeadersMsg(end bool, pairs ...string) *extprocv3.ProcessingRequest {
	h := headerList(pairs...)
	h.EndOfStream = end
	return &extprocv3.ProcessingRequest{
		Request: &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: h},
		ProtocolConfig: &extprocv3.ProtocolConfiguration{
			RequestBodyMode: filterv3.ProcessingMode_BUFFERED, ResponseBodyMode: filterv3.ProcessingMode_STREAMED,
		},
	}
}

// post is the headers of a well-formed chat request.
func post(path string, more ...string) *extprocv3.ProcessingRequest {
	return requestHeadersMsg(false, append([]string{
		":method", "POST", ":path", path, "authorization", "Bearer " + goodSecret,
		"content-type", "application/json", "content-length", "10", "x-request-id", "req-1", "accept-encoding", "gzip",
	}, more...)...)
}

func requestBodyMsg(body string) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{Body: []byte(body), EndOfStream: true}}}
}

func responseHeadersMsg(details string, end bool, pairs ...string) *extprocv3.ProcessingRequest {
	h := headerList(pairs...)
	h.EndOfStream = end
	m := &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: h}}
	if details != "" {
		m.Attributes = map[string]*structpb.Struct{"envoy.filters.http.ext_proc": {Fields: map[string]*structpb.Value{
			"response.code_details": structpb.NewStringValue(details),
		}}}
	}
	return m
}

func responseBodyMsg(body string, end bool) *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: &extprocv3.HttpBody{Body: []byte(body), EndOfStream: end}}}
}

func responseTrailersMsg() *extprocv3.ProcessingRequest {
	return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: &extprocv3.HttpTrailers{}}}
}

func admitted(r reply) bool {
	return r.GetDynamicMetadata().GetFields()["llmgw"].GetStructValue().GetFields()["admit"].GetStringValue() == "1"
}

func setHeaders(options []*corev3.HeaderValueOption) map[string]string {
	out := map[string]string{}
	for _, o := range options {
		out[o.GetHeader().GetKey()] = string(o.GetHeader().GetRawValue())
	}
	return out
}
