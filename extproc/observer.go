package extproc

import (
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// observer tells what happened: one log line, one set of metrics, one span for
// each record. It is called when an exchange begins and when it has ended, and
// never holds an answer up.
type observer struct {
	log      *zap.Logger
	metrics  *metrics // nil = none
	spans    *spans   // nil = none
	upstream *upstreamHealth
}

func newObserver(o Options) (*observer, error) {
	v := &observer{log: o.Log, upstream: &upstreamHealth{}}
	var err error
	if o.Metrics != nil {
		if v.metrics, err = newMetrics(o.Metrics, o.Provider); err != nil {
			return nil, err
		}
	}
	if o.Tracer != nil {
		v.spans = &spans{tracer: o.Tracer, provider: o.Provider}
	}
	return v, nil
}

// began is told when it is known who asks.
func (v *observer) began(x *exchange) {
	if v.metrics != nil {
		v.metrics.running.Inc()
		x.notes.counted = true
	}
	if e := v.log.Check(zap.DebugLevel, "request received"); e != nil {
		e.Write(zap.String("request_id", short(x.requestID)), zap.String("key_id", x.key.ID), zap.String("key", masked(x.key)),
			zap.String("method", short(x.headers.method)), zap.String("path", short(x.headers.path)))
	}
}

// ended is told once, when everything about the exchange is settled.
func (v *observer) ended(x *exchange) {
	if x.notes.counted {
		v.metrics.running.Dec()
	}
	if !x.notes.asked {
		return // an answer of Envoy's own to a request that it never showed
	}
	r := x.record(time.Now())
	v.upstream.learn(&r)
	v.write(&r)
	if v.metrics != nil {
		v.metrics.observe(&r, x.set.MetricModels)
	}
	if v.spans != nil {
		v.spans.observe(&r)
	}
}

// level says how loud a record is: what an operator may have to do something
// about is a warning, what the gateway itself did wrong is an error.
func (r *Record) level() zapcore.Level {
	switch r.Ending {
	case EndingServed, EndingAborted:
		return zap.InfoLevel
	case EndingRefused:
		switch {
		case r.Status >= http.StatusInternalServerError:
			return zap.ErrorLevel
		case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden, r.Status == http.StatusTooManyRequests,
			r.Code == codeMalformedCredential:
			return zap.WarnLevel
		}
		return zap.InfoLevel
	case EndingUpstream:
		if r.Status >= http.StatusInternalServerError || r.Status == http.StatusTooManyRequests || r.Status == http.StatusUnauthorized {
			return zap.WarnLevel
		}
		return zap.InfoLevel
	case EndingUnreachable, EndingTimeout:
		return zap.WarnLevel
	case EndingFailed, endingNotYetKnown:
	}
	return zap.ErrorLevel
}

// write is the access line. Every member is always there, so that a table can
// be made of the lines, but for those that only errors have.
func (v *observer) write(r *Record) {
	e := v.log.Check(r.level(), "request")
	if e == nil {
		return
	}
	fields := make([]zap.Field, 0, 32)
	fields = append(fields,
		zap.String("request_id", r.RequestID), zap.String("key_id", r.KeyID), zap.String("key", r.Key),
		zap.String("method", r.Method), zap.String("path", r.Path), zap.String("endpoint", r.Endpoint),
		zap.String("model", r.Model), zap.Bool("stream", r.Stream),
		zap.Int("status", r.Status), zap.String("ending", string(r.Ending)),
		zap.Int64("prompt_tokens", r.Tokens.Prompt), zap.Int64("completion_tokens", r.Tokens.Completion), zap.Int64("total_tokens", r.Tokens.Total),
		zap.Int64("cached_tokens", r.Tokens.CachedPrompt), zap.Int64("reasoning_tokens", r.Tokens.Reasoning),
		zap.Int64("price", r.Price), zap.Stringer("cost", r.Cost),
		zap.String("provenance", string(r.Provenance)), zap.Int64("held_tokens", r.Held),
		zap.String("rate_limit_storage", r.Storage),
		zap.Duration("duration_ms", r.Duration), zap.Duration("admission_ms", r.Admission),
		zap.Duration("first_byte_ms", r.FirstByte), zap.Duration("settle_ms", r.Settle),
	)
	for _, f := range []struct{ name, text string }{{"code", r.Code}, {"limit", r.Limit}, {"answer_model", r.AnswerModel}, {"note", r.Note}} {
		if f.text != "" {
			fields = append(fields, zap.String(f.name, f.text))
		}
	}
	e.Write(fields...)
}
