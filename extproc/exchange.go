package extproc

import (
	"context"
	"errors"
	"fmt"
	"time"

	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/billing/usage"
)

// phase is where an exchange stands; see the table in doc.go.
type phase uint8

const (
	phaseNew       phase = iota // nothing is known
	phaseKnown                  // the key is good, the body has not come
	phaseAdmitted               // the request may have left; a hold is open where tokens can be used
	phaseAnswering              // the upstream's answer is being metered
	phaseDone                   // nothing is left to decide
)

// errOrder ends a stream on which Envoy and the gateway no longer agree.
var errOrder = errors.New("message out of order")

// exchange is the state of one HTTP request and its answer. It belongs to one
// goroutine. Its steps depend on nothing but the messages and the two ports
// Books and Limits.
type exchange struct {
	s     *Server
	set   *Settings // of the moment when it began
	phase phase

	requestID string
	endpoint  Endpoint
	headers   requestHeaders
	key       billing.Key

	request  request
	body     []byte   // kept while its text may have to be counted,
	sample   []string // or, of a large one, only the texts
	place    place
	hold     billing.Hold
	resolved bool // the hold is settled or voided
	meter    usage.Meter
	marks    progressMarks

	charged    usage.Tokens // what the settlement was based on
	provenance billing.Provenance

	notes notes
}

func (s *Server) newExchange() *exchange {
	return &exchange{s: s, set: s.settings.Load(), notes: notes{start: time.Now()}}
}

// step answers one message. An error ends the stream with a non-OK status,
// which to Envoy is: closed.
func (x *exchange) step(ctx context.Context, m *extprocv3.ProcessingRequest) (reply, error) {
	switch r := m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		return x.onRequestHeaders(ctx, m, r.RequestHeaders)
	case *extprocv3.ProcessingRequest_RequestBody:
		return x.onRequestBody(ctx, r.RequestBody)
	case *extprocv3.ProcessingRequest_RequestTrailers:
		if x.phase == phaseKnown {
			// Trailers end a body that was never shown as ended.
			return nil, fmt.Errorf("%w: request trailers before the body", errOrder)
		}
		return x.s.shared.passRequestTrailers, nil
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return x.onResponseHeaders(ctx, m, r.ResponseHeaders)
	case *extprocv3.ProcessingRequest_ResponseBody:
		return x.onResponseBody(ctx, r.ResponseBody)
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		return x.onResponseTrailers(ctx)
	}
	return nil, fmt.Errorf("%w: unknown message", errOrder)
}

// onRequestHeaders decides who asks and for what.
func (x *exchange) onRequestHeaders(ctx context.Context, m *extprocv3.ProcessingRequest, h *extprocv3.HttpHeaders) (reply, error) {
	if x.phase != phaseNew {
		return nil, fmt.Errorf("%w: request headers twice", errOrder)
	}
	x.headers = readRequestHeaders(h.GetHeaders().GetHeaders())
	x.requestID = x.headers.requestID
	x.notes.asked = true
	if r := x.identify(h.GetEndOfStream()); r != nil {
		return x.refuse(r), nil
	}
	x.headers.authorization = nil
	if !h.GetEndOfStream() {
		if !metersBodies(m.GetProtocolConfig()) {
			return nil, errors.New("Envoy's processing modes cannot be metered: request BUFFERED and response STREAMED are needed on this route") //nolint:staticcheck // Envoy is a name
		}
		x.phase = phaseKnown
		x.s.observer.began(x)
		return requestHeadersReply(x.forwardHeaders(), nil), nil
	}
	x.s.observer.began(x)
	began := time.Now()
	r := x.admitWithoutBody(ctx)
	x.notes.admission = time.Since(began)
	if r != nil {
		return x.refuse(r), nil
	}
	x.phase = phaseAdmitted
	return requestHeadersReply(x.forwardHeaders(), x.admitMetadata()), nil
}

// metersBodies checks the modes that Envoy announces with the first message.
func metersBodies(c *extprocv3.ProtocolConfiguration) bool {
	return c == nil ||
		c.GetRequestBodyMode() == filterv3.ProcessingMode_BUFFERED && c.GetResponseBodyMode() == filterv3.ProcessingMode_STREAMED
}

// onRequestBody decides how much and how often, and lets the request go.
func (x *exchange) onRequestBody(ctx context.Context, b *extprocv3.HttpBody) (reply, error) {
	if x.phase != phaseKnown {
		return nil, fmt.Errorf("%w: request body in phase %d", errOrder, x.phase)
	}
	if !b.GetEndOfStream() {
		return nil, fmt.Errorf("%w: request body in pieces", errOrder)
	}
	began := time.Now()
	body, r := x.admit(ctx, b.GetBody())
	x.notes.admission = time.Since(began)
	if r != nil {
		return x.refuse(r), nil
	}
	x.phase = phaseAdmitted
	return requestBodyReply(body, x.headers.contentLength != "", x.admitMetadata()), nil
}

// onResponseHeaders tells the upstream's answer from Envoy's own, and picks
// the meter.
func (x *exchange) onResponseHeaders(ctx context.Context, m *extprocv3.ProcessingRequest, h *extprocv3.HttpHeaders) (reply, error) {
	switch x.phase {
	case phaseNew, phaseKnown, phaseDone:
		// Envoy's own answers cross the filter too, even as the first message
		// of a stream. Nothing was admitted, so nothing is paid.
		x.phase = phaseDone
		return x.s.shared.passResponseHeaders, nil
	case phaseAdmitted:
	case phaseAnswering:
		return nil, fmt.Errorf("%w: response headers twice", errOrder)
	}
	answer := readResponseHeaders(h.GetHeaders().GetHeaders())
	details := codeDetails(m)
	x.notes.answered(answer.status, details)
	if details != "" && details != detailsViaUpstream { // Envoy's own answer
		x.void()
		x.phase = phaseDone
		return responseHeadersReply(x.limitHeaders(), nil, false, nil), nil
	}
	remove := answer.upstreamLimits
	if !answer.success() {
		x.void()
		x.phase = phaseDone
		return responseHeadersReply(x.limitHeaders(), withoutRetryAfter(remove), true, nil), nil
	}
	if x.hold.ID == "" {
		x.phase = phaseDone
		x.notes.ending = EndingServed // the rest of it is not seen
		return responseHeadersReply(x.limitHeaders(), remove, true, nil), nil
	}
	x.meter = usage.NewMeter(usage.Options{
		ContentType:     answer.contentType,
		ContentEncoding: answer.contentEncoding,
		Embeddings:      x.endpoint.Shape == ShapeEmbedding,
		Choices:         x.request.choices,
		DropUsageChunk:  x.request.usageEdit != nil,
	})
	x.phase = phaseAnswering
	if !h.GetEndOfStream() {
		if x.request.stream {
			x.checkpoint(usage.Report{})
		}
		return responseHeadersReply(x.limitHeaders(), remove, false, nil), nil
	}
	// An answer of headers alone is complete and states nothing.
	if err := x.settle(ctx, x.meter.Report(), true); err != nil {
		return nil, err
	}
	x.phase = phaseDone
	return responseHeadersReply(x.limitHeaders(), remove, false, x.usageMetadata()), nil
}

// codeDetails say whether an answer is the upstream's ("via_upstream") or
// Envoy's own (refused connection, timeout, 413); they come with this message.
func codeDetails(m *extprocv3.ProcessingRequest) string {
	details := m.GetAttributes()["envoy.filters.http.ext_proc"].GetFields()["response.code_details"]
	text, _ := details.GetKind().(*structpb.Value_StringValue)
	if text == nil {
		return ""
	}
	return text.StringValue
}

// withoutRetryAfter keeps an error answer's own retry advice: it is the
// upstream's answer to this very request.
func withoutRetryAfter(names []string) []string {
	kept := names[:0]
	for _, name := range names {
		if name != headerRetryAfter && name != "retry-after-ms" {
			kept = append(kept, name)
		}
	}
	return kept
}

// onResponseBody meters one piece, and releases the piece that shows the end
// only after the charge is durable.
func (x *exchange) onResponseBody(ctx context.Context, b *extprocv3.HttpBody) (reply, error) {
	if x.phase != phaseAnswering {
		if x.phase == phaseAdmitted {
			return nil, fmt.Errorf("%w: response body before its headers", errOrder)
		}
		return x.s.shared.passResponseBody, nil
	}
	if x.notes.firstByte == 0 && len(b.GetBody()) > 0 {
		x.notes.firstByte = time.Since(x.notes.start)
	}
	step := x.meter.Write(b.GetBody(), b.GetEndOfStream())
	if !step.Ending {
		x.progress()
		if !step.Changed {
			return x.s.shared.passResponseBody, nil
		}
		return responseBodyReply(true, step.Body, nil), nil
	}
	report := x.meter.Report()
	if err := x.settle(ctx, report, report.Complete || !b.GetEndOfStream()); err != nil {
		return nil, err
	}
	if b.GetEndOfStream() {
		x.phase = phaseDone
	}
	return responseBodyReply(step.Changed, step.Body, x.usageMetadata()), nil
}

// onResponseTrailers ends an answer whose body was never shown as ended.
func (x *exchange) onResponseTrailers(ctx context.Context) (reply, error) {
	if x.phase == phaseAdmitted {
		return nil, fmt.Errorf("%w: response trailers before the headers", errOrder)
	}
	if x.phase != phaseAnswering {
		return x.s.shared.passResponseTrailers, nil
	}
	if last := x.meter.Write(nil, true); last.Changed && len(last.Body) > 0 {
		// Held back as a possible usage chunk of ours, but the stream ended in
		// the middle of it; trailers cannot carry it.
		return nil, errors.New("answer ended inside an event")
	}
	report := x.meter.Report()
	if err := x.settle(ctx, report, report.Complete); err != nil {
		return nil, err
	}
	x.phase = phaseDone
	return responseTrailersReply(x.usageMetadata()), nil
}

// refuse ends the exchange with an answer of our own.
func (x *exchange) refuse(r *refusal) reply {
	x.phase = phaseDone
	x.notes.ending, x.notes.refused = EndingRefused, r
	return refusalReply(r, facts{}.text("key_id", x.key.ID).text("model", x.request.model).text("code", r.code).metadata())
}

func (x *exchange) admitMetadata() *structpb.Struct {
	return facts{}.text("admit", "1").text("key_id", x.key.ID).text("model", x.request.model).metadata()
}

func (x *exchange) usageMetadata() *structpb.Struct {
	if x.hold.ID == "" || !x.resolved {
		return nil
	}
	return facts{}.count("prompt_tokens", x.charged.Prompt).count("completion_tokens", x.charged.Completion).
		count("total_tokens", x.charged.Total).text("provenance", string(x.provenance)).metadata()
}

// unsent is told when a reply could not be delivered: a request whose
// admission never reached Envoy never left.
func (x *exchange) unsent() {
	if x.phase == phaseAdmitted {
		x.void()
	}
}

// void resolves a hold with nothing: the upstream did no work. The request
// keeps its place in the request window; its tokens come back.
func (x *exchange) void() {
	if x.hold.ID != "" && !x.resolved {
		x.resolved = true
		x.s.o.Books.Void(x.hold.ID)
	}
	x.leave(0)
}
