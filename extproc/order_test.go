package extproc

import (
	"strings"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/MaksimVF/llm-gateway/billing"
)

// script maps a letter to a message that Envoy could send.
func script(letter byte) *extprocv3.ProcessingRequest {
	switch letter {
	case 'h':
		return post("/v1/chat/completions")
	case 'g':
		return requestHeadersMsg(true, ":method", "GET", ":path", "/v1/models", "authorization", "Bearer "+goodSecret)
	case 'k':
		return requestHeadersMsg(false, ":method", "POST", ":path", "/v1/chat/completions", "authorization", "Bearer wrong")
	case 'b':
		return requestBodyMsg(chatBody)
	case 's':
		return requestBodyMsg(streamBody)
	case 'x':
		return requestBodyMsg(`{"model":"m","messages":[],"n":-1}`)
	case 'p':
		return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestBody{RequestBody: &extprocv3.HttpBody{Body: []byte(chatBody)}}}
	case 't':
		return &extprocv3.ProcessingRequest{Request: &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{}}}
	case 'J':
		return responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json")
	case 'S':
		return responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "text/event-stream")
	case 'E':
		return responseHeadersMsg("via_upstream", false, ":status", "500")
	case 'L':
		return responseHeadersMsg("request_payload_too_large", false, ":status", "413")
	case '1':
		return responseBodyMsg(jsonAnswer, true)
	case '2':
		return responseBodyMsg(delta, false)
	case '3':
		return responseBodyMsg(usageChunk, false)
	case '4':
		return responseBodyMsg(done, true)
	case 'T':
		return responseTrailersMsg()
	}
	return &extprocv3.ProcessingRequest{}
}

// kind is the phase a reply belongs to; an immediate response fits any.
func fits(m *extprocv3.ProcessingRequest, r reply) bool {
	if r.GetImmediateResponse() != nil {
		return true
	}
	switch m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		return r.GetRequestHeaders() != nil
	case *extprocv3.ProcessingRequest_RequestBody:
		return r.GetRequestBody() != nil
	case *extprocv3.ProcessingRequest_RequestTrailers:
		return r.GetRequestTrailers() != nil
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return r.GetResponseHeaders() != nil
	case *extprocv3.ProcessingRequest_ResponseBody:
		return r.GetResponseBody() != nil
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		return r.GetResponseTrailers() != nil
	}
	return false
}

// FuzzExchange holds the promises for any order of messages, and for books
// that fail at any time.
func FuzzExchange(f *testing.F) {
	for _, seed := range []string{"hbJ1", "hsS234", "g", "gJ", "hL2", "k", "hx", "hbE", "hbL", "L", "hsS2", "hsS23T", "hbb", "ht", "hp", "Jh", "hbJJ", "T", "hT", "hb1", "!hb", "hb!J1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, order string) {
		r := newRig(t, nil)
		x := r.server.newExchange()
		admissions, refused := 0, false
		for i := range min(len(order), 64) {
			if order[i] == '!' { // from here on the books fail
				r.books.reserveErr, r.books.settleErr = billing.ErrUnavailable, billing.ErrUnavailable
				continue
			}
			m := script(order[i])
			answer, err := x.step(t.Context(), m)
			if err != nil {
				break // the shell ends the stream with a non-OK status
			}
			if !fits(m, answer) {
				t.Fatalf("%q: reply %v to message %d does not fit", order, answer, i)
			}
			if admitted(answer) {
				admissions++
				metered := answer.GetRequestBody() != nil
				if refused || metered && len(r.books.open) != 1 {
					t.Fatalf("%q: admitted without a hold at message %d", order, i)
				}
			}
			refused = refused || answer.GetImmediateResponse() != nil
		}
		x.close(t.Context())
		x.close(t.Context())
		holds := strings.Count(strings.Join(r.books.events, " "), "reserve")
		if admissions > 1 || holds > 1 || r.books.resolutions() != holds || len(r.books.open) != 0 {
			t.Fatalf("%q: %d admissions, %v", order, admissions, r.books.events)
		}
		if r.limits.leaks() != 0 {
			t.Fatalf("%q: %d places taken, %d given back, settled %v", order, len(r.limits.taken), r.limits.returned, r.limits.settled)
		}
	})
}
