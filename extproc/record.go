package extproc

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/billing/usage"
)

// Ending says how an exchange went. It is a closed vocabulary: log lines,
// metrics and spans use these words.
type Ending string

// The endings.
const (
	EndingServed      Ending = "served"               // a 2xx answer reached its proper end
	EndingRefused     Ending = "refused"              // answered by the gateway; Code says why
	EndingUpstream    Ending = "upstream_error"       // the upstream answered with another status than 2xx, which passed
	EndingUnreachable Ending = "upstream_unreachable" // no connection, or it broke before the answer began
	EndingTimeout     Ending = "upstream_timeout"     // silence before the answer began
	EndingAborted     Ending = "aborted"              // client or upstream left before the end of the answer
	EndingFailed      Ending = "failed"               // the gateway itself ended it

	endingNotYetKnown Ending = ""
)

const (
	maxRecordedText    = 256 // bytes of a client's text in a record
	otherEndpoint      = "other"
	detailsViaUpstream = "via_upstream"
)

// Record is what happened in one exchange, complete when the exchange has
// ended. There is exactly one for each request that the gate was asked about;
// an answer of Envoy's own to a request that it never showed has none.
type Record struct {
	RequestID string // Envoy's x-request-id
	Endpoint  string // name in OpenAI's API reference; "other" for paths that are not served
	Method    string
	Path      string // without the query
	KeyID     string // "" where the credential was refused
	Key       string // masked, "" with KeyID

	Model       string // of the request
	AnswerModel string // of the answer, where it is another one
	Stream      bool
	Ceiling     int64 // output tokens per choice that the request allows, 0 = not given

	Ending Ending
	Status int    // that the client got, 0 = it was gone before
	Code   string // error.code of a refusal
	Limit  string // the rate limit or budget that refused

	Tokens     usage.Tokens // charged
	Provenance billing.Provenance
	Price      int64         // id of the price that applied, 0 = the model had none
	Cost       billing.Money // charged; 0 without a price
	Note       string        // a word on anything odd in the answer
	Held       int64         // tokens
	Storage    string        // that decided about the rate limits: "redis" or "memory"; "" = not asked

	Start     time.Time
	Duration  time.Duration
	Admission time.Duration // the limits and the hold; 0 = did not come to that
	FirstByte time.Duration // from the start to the first piece of the answer; 0 = none came
	Settle    time.Duration // until the charge was durable; 0 = nothing was charged

	traceParent, traceState string
}

// notes are what an exchange remembers for its record alone.
type notes struct {
	start     time.Time
	asked     bool // a request was shown
	counted   bool // among the running ones
	ending    Ending
	status    int
	refused   *refusal
	admission time.Duration
	firstByte time.Duration
	settle    time.Duration
	cost      billing.Money
	note      string
	answer    string
}

// record is the exchange as it stands.
func (x *exchange) record(now time.Time) Record {
	n := &x.notes
	r := Record{
		RequestID: short(x.requestID), Endpoint: x.endpoint.Name, Method: short(x.headers.method), Path: short(x.headers.path),
		KeyID: x.key.ID, Key: masked(x.key),
		Model: x.request.model, AnswerModel: n.answer, Stream: x.request.stream, Ceiling: x.request.ceiling,
		Ending: n.ending, Status: n.status,
		Tokens: x.charged, Provenance: x.provenance, Price: x.hold.Price, Cost: n.cost, Note: n.note, Held: x.hold.Tokens, Storage: x.place.decision.Storage,
		Start: n.start, Duration: now.Sub(n.start), Admission: n.admission, FirstByte: n.firstByte, Settle: n.settle,
		traceParent: x.headers.traceParent, traceState: x.headers.traceState,
	}
	if r.Endpoint == "" {
		r.Endpoint = otherEndpoint
	}
	if n.refused != nil {
		r.Code, r.Limit, r.Status = n.refused.code, n.refused.limit, n.refused.status
	}
	if r.Ending == endingNotYetKnown {
		r.Ending = EndingAborted
	}
	return r
}

// masked is how a key is shown: enough to find it, too little to use it.
func masked(k billing.Key) string {
	switch {
	case k.ID == "":
		return ""
	case k.Display == "":
		return "***"
	}
	return k.Display
}

// short keeps what a client sent from filling a line.
func short(text string) string {
	if len(text) > maxRecordedText {
		text = text[:maxRecordedText] + "…"
	}
	return strings.ToValidUTF8(text, "?")
}

// answered notes the status that the upstream, or Envoy in its place, gave.
func (n *notes) answered(status, details string) {
	n.status, _ = strconv.Atoi(status) // Envoy checked it
	switch {
	case details == "" || details == detailsViaUpstream:
		if n.status < 200 || n.status > 299 {
			n.ending = EndingUpstream
		}
	case n.status == http.StatusGatewayTimeout || strings.Contains(details, "timeout"):
		n.ending = EndingTimeout
	case strings.HasPrefix(details, "upstream_") || strings.HasPrefix(details, "no_healthy_upstream") || strings.HasPrefix(details, "cluster_not_found"):
		n.ending = EndingUnreachable
	default:
		n.ending = EndingFailed
	}
}
