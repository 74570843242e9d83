package extproc

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// spans makes one span of each exchange, after the fact: the times are in the
// record, so nothing is kept open meanwhile. The parent is what the client's
// traceparent header says (W3C Trace Context), which goes on to the upstream
// unchanged.
type spans struct {
	tracer   trace.Tracer
	provider string
}

func (s *spans) observe(r *Record) {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{
		headerTraceParent: r.traceParent, headerTraceState: r.traceState,
	})
	operation := operationOf(r.Endpoint)
	name := operation
	if r.Model != "" {
		name += " " + r.Model
	}
	_, span := s.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(r.Start), trace.WithAttributes(s.attributes(r, operation)...))
	if what := r.errorType(); what != "" {
		span.SetStatus(codes.Error, what)
	}
	span.End(trace.WithTimestamp(r.Start.Add(r.Duration)))
}

// attributes never hold a prompt, an answer or a credential.
func (s *spans) attributes(r *Record, operation string) []attribute.KeyValue {
	list := []attribute.KeyValue{
		attrOperation.String(operation), attrProvider.String(s.provider),
		attrRequestID.String(r.RequestID), attrEnding.String(string(r.Ending)), attrStatus.Int(r.Status),
	}
	for _, a := range []attribute.KeyValue{
		attrKeyID.String(r.KeyID), attrRequestModel.String(r.Model), attrResponseModel.String(r.AnswerModel),
		attrProvenance.String(string(r.Provenance)), attrErrorType.String(r.errorType()),
	} {
		if a.Value.AsString() != "" {
			list = append(list, a)
		}
	}
	if r.Stream {
		list = append(list, attrRequestStream.Bool(true))
	}
	if r.Ceiling > 0 {
		list = append(list, attrMaxTokens.Int64(r.Ceiling))
	}
	if r.Provenance != "" {
		list = append(list, attrInputTokens.Int64(r.Tokens.Prompt), attrOutputTokens.Int64(r.Tokens.Completion))
	}
	if r.Tokens.CachedPrompt > 0 {
		list = append(list, attrCachedTokens.Int64(r.Tokens.CachedPrompt))
	}
	if r.Tokens.Reasoning > 0 {
		list = append(list, attrReasoningTokens.Int64(r.Tokens.Reasoning))
	}
	return list
}
