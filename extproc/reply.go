package extproc

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// reply is what Envoy is told. Every message the gateway ever sends is built
// in this file.
type reply = *extprocv3.ProcessingResponse

// metadataNamespace is where Envoy keeps what the sidecar says of an exchange.
// Clients cannot write there; Envoy's lock and its access log read it.
const metadataNamespace = "llmgw"

// Shared replies are immutable: marshalling only reads them.
type sharedReplies struct {
	passResponseHeaders  reply
	passResponseBody     reply
	passResponseTrailers reply
	passRequestTrailers  reply
}

func newSharedReplies() sharedReplies {
	return sharedReplies{
		passResponseHeaders:  &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}}},
		passResponseBody:     &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{}}},
		passResponseTrailers: &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}},
		passRequestTrailers:  &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestTrailers{RequestTrailers: &extprocv3.TrailersResponse{}}},
	}
}

func requestHeadersReply(m *extprocv3.HeaderMutation, metadata *structpb.Struct) reply {
	return &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
			Response: &extprocv3.CommonResponse{HeaderMutation: m},
		}},
		DynamicMetadata: metadata,
	}
}

// requestBodyReply lets a request on its way; body nil = unchanged.
func requestBodyReply(body []byte, hadLength bool, metadata *structpb.Struct) reply {
	common := &extprocv3.CommonResponse{}
	if body != nil {
		common.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: body}}
		if hadLength {
			// A stale length is answered with 500 by Envoy; a chunked upload
			// has none and needs none.
			common.HeaderMutation = &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{
				setHeader(headerContentLength, strconv.Itoa(len(body))),
			}}
		}
	}
	return &extprocv3.ProcessingResponse{
		Response:        &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{Response: common}},
		DynamicMetadata: metadata,
	}
}

// responseHeadersReply adds and removes headers. unread = the body needs no
// look: Envoy then sends none of it.
func responseHeadersReply(set [][2]string, remove []string, unread bool, metadata *structpb.Struct) reply {
	m := &extprocv3.HeaderMutation{RemoveHeaders: remove}
	for _, h := range set {
		m.SetHeaders = append(m.SetHeaders, setHeader(h[0], h[1]))
	}
	r := &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{
			Response: &extprocv3.CommonResponse{HeaderMutation: m},
		}},
		DynamicMetadata: metadata,
	}
	if unread {
		// Envoy compares this with its list of allowed overrides field by
		// field, so every mode is spelled out.
		r.ModeOverride = &filterv3.ProcessingMode{
			RequestHeaderMode:   filterv3.ProcessingMode_SEND,
			RequestBodyMode:     filterv3.ProcessingMode_BUFFERED,
			ResponseHeaderMode:  filterv3.ProcessingMode_SEND,
			ResponseBodyMode:    filterv3.ProcessingMode_NONE,
			RequestTrailerMode:  filterv3.ProcessingMode_SKIP,
			ResponseTrailerMode: filterv3.ProcessingMode_SEND,
		}
	}
	return r
}

// responseBodyReply releases a piece of an answer; body replaces it when
// changed.
func responseBodyReply(changed bool, body []byte, metadata *structpb.Struct) reply {
	common := &extprocv3.CommonResponse{}
	if changed && len(body) == 0 {
		common.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_ClearBody{ClearBody: true}}
	} else if changed {
		common.BodyMutation = &extprocv3.BodyMutation{Mutation: &extprocv3.BodyMutation_Body{Body: body}}
	}
	return &extprocv3.ProcessingResponse{
		Response:        &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{Response: common}},
		DynamicMetadata: metadata,
	}
}

func responseTrailersReply(metadata *structpb.Struct) reply {
	return &extprocv3.ProcessingResponse{
		Response:        &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}},
		DynamicMetadata: metadata,
	}
}

// refusalReply answers in the upstream's place. The details begin with llmgw_
// so that Envoy's reply mappers leave the body alone.
func refusalReply(r *refusal, metadata *structpb.Struct) reply {
	headers := &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{setHeader(headerContentType, "application/json")}}
	for _, h := range r.headers {
		headers.SetHeaders = append(headers.SetHeaders, setHeader(h[0], h[1]))
	}
	return &extprocv3.ProcessingResponse{
		Response: &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: &extprocv3.ImmediateResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(r.status)}, //nolint:gosec // our own three-digit statuses
			Headers: headers,
			Body:    r.body(),
			Details: "llmgw_" + r.code,
		}},
		DynamicMetadata: metadata,
	}
}

// setHeader overwrites: a client's or an upstream's copy never survives.
func setHeader(name, text string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, RawValue: []byte(text)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// facts are what Envoy keeps of an exchange in the llmgw namespace; empty ones
// are left out.
type facts map[string]*structpb.Value

func (f facts) text(name, v string) facts {
	if v != "" {
		f[name] = structpb.NewStringValue(v)
	}
	return f
}

func (f facts) count(name string, v int64) facts {
	f[name] = structpb.NewNumberValue(float64(v))
	return f
}

func (f facts) metadata() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		metadataNamespace: structpb.NewStructValue(&structpb.Struct{Fields: f}),
	}}
}
