package extproc

import (
	"go.opentelemetry.io/otel/attribute"
)

// Names of OpenTelemetry's semantic conventions for generative AI, as of
// semconv v1.41.0; later versions of the Go package no longer have them. All of
// them are "in development" there.
const (
	attrOperation       = attribute.Key("gen_ai.operation.name")
	attrProvider        = attribute.Key("gen_ai.provider.name")
	attrRequestModel    = attribute.Key("gen_ai.request.model")
	attrResponseModel   = attribute.Key("gen_ai.response.model")
	attrRequestStream   = attribute.Key("gen_ai.request.stream")
	attrMaxTokens       = attribute.Key("gen_ai.request.max_tokens")
	attrInputTokens     = attribute.Key("gen_ai.usage.input_tokens")  // cached ones included
	attrOutputTokens    = attribute.Key("gen_ai.usage.output_tokens") // reasoning included
	attrCachedTokens    = attribute.Key("gen_ai.usage.cache_read.input_tokens")
	attrReasoningTokens = attribute.Key("gen_ai.usage.reasoning.output_tokens")
	attrErrorType       = attribute.Key("error.type")
	attrStatus          = attribute.Key("http.response.status_code")

	attrKeyID      = attribute.Key("llmgw.key_id")
	attrRequestID  = attribute.Key("llmgw.request_id")
	attrProvenance = attribute.Key("llmgw.provenance")
	attrEnding     = attribute.Key("llmgw.ending")
)

// operationOf is the name that the conventions give to an endpoint.
func operationOf(endpoint string) string {
	switch endpoint {
	case "chat.completions":
		return "chat"
	case "completions":
		return "text_completion"
	case "embeddings":
		return "embeddings"
	}
	return endpoint
}

// errorType is what went wrong, in words from a closed set; "" is nothing.
func (r *Record) errorType() string {
	switch {
	case r.Ending == EndingServed:
		return ""
	case r.Code != "":
		return r.Code
	}
	return string(r.Ending)
}
