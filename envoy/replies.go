package envoy

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// localReply gives one kind of Envoy's own answers our JSON error body.
type localReply struct {
	when       string // CEL; joined with "not the sidecar's own answer"
	status     uint32 // 0 leaves it
	retryAfter string // seconds; "" for none

	message, kind, code string
}

const (
	invalidRequest = "invalid_request_error"
	apiError       = "api_error"
)

// sidecarsOwn is true, in CEL, of what the sidecar answered itself.
const sidecarsOwn = "response.code_details.startsWith('llmgw_')"

const unavailableMessage = "The gateway cannot check this request now. Please retry."

// localReplyTable is read from the top; the first that matches decides. What
// the sidecar answers itself has details that begin with llmgw_ and matches
// none. The details' words are Envoy's (StreamInfo response code details).
// Upstream is the model server's cluster.
func localReplyTable(upstream string) []localReply {
	unavailable := func(when string) localReply {
		return localReply{when, 503, "1", unavailableMessage, apiError, "gateway_unavailable"}
	}
	return []localReply{
		// The sidecar is absent, slow, confused, or did not admit.
		unavailable("response.code_details.startsWith('ext_proc_') || response.code_details.startsWith('rbac_') || " +
			"response.code_details == 'spurious_message' || response.code_details.startsWith('mismatch_between_content_length')"),
		{
			when: "response.code == 404 || xds.cluster_name == '" + nobodyCluster + "'", status: 404, message: "Invalid URL.",
			kind: invalidRequest, code: "not_found",
		},
		{
			when: "response.code == 413", message: "The request body is too large.",
			kind: invalidRequest, code: "request_too_large",
		},
		// Silence before the sidecar admitted, or of its own pages: not the model
		// server's.
		unavailable("response.code == 504 && !(has(metadata.filter_metadata." + metadataNamespace + ") && has(metadata.filter_metadata." + metadataNamespace + ".admit))"),
		{
			when: "response.code == 504", message: "The model server did not answer in time.",
			kind: apiError, code: "upstream_timeout",
		},
		// Our own limit of connections, nothing the model server did.
		unavailable("response.code_details.startsWith('upstream_reset_before_response_started{overflow')"),
		{
			when: "response.code >= 500 && xds.cluster_name == '" + upstream + "' && " +
				"(response.code_details.startsWith('upstream_') || response.code_details.startsWith('no_healthy_upstream'))",
			status: 502, message: "The model server could not be reached or broke off.",
			kind: apiError, code: "upstream_error",
		},
		unavailable("response.code >= 500"),
		{
			when: "response.code >= 400", message: "Bad request.",
			kind: invalidRequest, code: "bad_request",
		},
	}
}

// ErrorCodes are all values of error.code in Envoy's own answers.
func ErrorCodes() []string {
	var codes []string
	for _, r := range localReplyTable(upstreamCluster) {
		if !slices.Contains(codes, r.code) {
			codes = append(codes, r.code)
		}
	}
	return codes
}

// localReplies turns the table into mappers. There must be no format outside
// of the mappers: it would write over the sidecar's answers too.
//
// What Envoy says when the sidecar fails at the answer, and to a request that it
// does not even take, passes no filter: what a browser needs to show it to a
// script is added here as well.
func localReplies(c CORS) *hcmv3.LocalReplyConfig {
	var mappers []*hcmv3.ResponseMapper
	condition, headers := c.ofLocalReplies()
	for _, r := range localReplyTable(upstreamCluster) {
		if len(headers) > 0 {
			toPage := r
			toPage.when = "(" + r.when + ") && " + condition
			m := toPage.mapper()
			m.HeadersToAdd = append(m.HeadersToAdd, headers...)
			mappers = append(mappers, m)
		}
		if condition != "true" {
			mappers = append(mappers, r.mapper())
		}
	}
	return &hcmv3.LocalReplyConfig{Mappers: mappers}
}

func (r localReply) mapper() *hcmv3.ResponseMapper {
	m := &hcmv3.ResponseMapper{
		Filter: when("!" + sidecarsOwn + " && (" + r.when + ")"),
		BodyFormatOverride: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: errorBody(r.message, r.kind, r.code)},
		},
	}
	if r.status != 0 {
		m.StatusCode = wrapperspb.UInt32(r.status)
	}
	// A request that is refused before it is read has no id yet; every other
	// answer gets the request's own in place of this one.
	m.HeadersToAdd = []*corev3.HeaderValueOption{{
		Header:       &corev3.HeaderValue{Key: "x-request-id", Value: "%UNIQUE_ID%"},
		AppendAction: corev3.HeaderValueOption_ADD_IF_ABSENT,
	}}
	if r.retryAfter != "" {
		m.HeadersToAdd = append(m.HeadersToAdd, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: "retry-after", Value: r.retryAfter},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	return m
}

// errorBody is the shape of every error of the gateway: OpenAI's clients read
// "error", older ones "detail".
func errorBody(message, kind, code string) *structpb.Struct {
	text := structpb.NewStringValue
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"error": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"message": text(message), "type": text(kind), "param": structpb.NewNullValue(), "code": text(code),
		}}),
		"detail": text(message),
	}}
}
