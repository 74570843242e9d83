package extproc

import (
	"errors"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the gate's. Every label is from a closed set: endpoints, statuses,
// endings, codes and provenances are ours, models are those that were listed.
// Keys are no labels: their usage is in the books.
type metrics struct {
	provider string

	running                                prometheus.Gauge
	requests, refusals, tokens             *prometheus.CounterVec
	overshoot                              prometheus.Counter
	duration, firstByte, admission, settle *prometheus.HistogramVec
	genTokens, genDuration, genFirstToken  *prometheus.HistogramVec
}

// Buckets of the GenAI conventions, for token counts and seconds.
func tokenBuckets() []float64 { return prometheus.ExponentialBuckets(1, 4, 14) }
func aiSeconds() []float64    { return prometheus.ExponentialBuckets(0.01, 2, 14) }

// ownSeconds are for what the gateway does itself: 100 us to 1.6 s.
func ownSeconds() []float64 { return prometheus.ExponentialBuckets(0.0001, 2, 15) }

func newMetrics(to prometheus.Registerer, provider string) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	ai := []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"}
	m := &metrics{
		provider:  provider,
		running:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "llmgw_requests_running", Help: "Requests of known keys that have not ended."}),
		requests:  counter("llmgw_requests_total", "Requests, by endpoint, status that the client got (0: it had left) and how they ended.", "endpoint", "status", "ending"),
		refusals:  counter("llmgw_refusals_total", "Requests that the gateway refused, by error code and, where a limit refused, its name.", "code", "limit"),
		tokens:    counter("llmgw_tokens_total", "Tokens charged, by type and provenance. cached_input is a part of input, reasoning a part of output: do not sum over all types.", "type", "provenance"),
		overshoot: prometheus.NewCounter(prometheus.CounterOpts{Name: "llmgw_overshoot_tokens_total", Help: "Tokens charged beyond what was held."}),
		duration:  histogram("llmgw_request_duration_seconds", "From the request's headers to the end of the exchange.", aiSeconds(), "endpoint"),
		firstByte: histogram("llmgw_time_to_first_token_seconds", "From the request's headers to the first piece of the answer, of streams.", aiSeconds(), "endpoint"),
		admission: histogram("llmgw_admission_duration_seconds", "Reading the request, the rate limits and the durable hold.", ownSeconds(), "endpoint"),
		settle:    histogram("llmgw_settle_duration_seconds", "Until the charge was durable.", ownSeconds(), "endpoint"),

		genTokens:     histogram("gen_ai_client_token_usage", "Tokens of a request, by type: input, output, and their parts cached_input and reasoning.", tokenBuckets(), append(slices.Clone(ai), "gen_ai_token_type")...),
		genDuration:   histogram("gen_ai_client_operation_duration_seconds", "Duration of an operation.", aiSeconds(), append(slices.Clone(ai), "error_type")...),
		genFirstToken: histogram("gen_ai_client_operation_time_to_first_chunk_seconds", "Time to the first chunk of a stream.", aiSeconds(), ai...),
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.running, m.requests, m.refusals, m.tokens, m.overshoot, m.duration, m.firstByte, m.admission, m.settle,
		m.genTokens, m.genDuration, m.genFirstToken,
	} {
		errs = append(errs, to.Register(c))
	}
	return m, errors.Join(errs...)
}

// modelLabel keeps what clients write from becoming series.
func modelLabel(name string, models []string) string {
	if slices.Contains(models, name) {
		return name
	}
	return otherEndpoint
}

func (m *metrics) observe(r *Record, models []string) {
	model := modelLabel(r.Model, models)
	m.requests.WithLabelValues(r.Endpoint, statusLabel(r.Status), string(r.Ending)).Inc()
	if r.Ending == EndingRefused {
		m.refusals.WithLabelValues(r.Code, r.Limit).Inc()
	}
	m.duration.WithLabelValues(r.Endpoint).Observe(r.Duration.Seconds())
	if r.Admission > 0 {
		m.admission.WithLabelValues(r.Endpoint).Observe(r.Admission.Seconds())
	}
	if r.Settle > 0 {
		m.settle.WithLabelValues(r.Endpoint).Observe(r.Settle.Seconds())
	}
	if r.Stream && r.FirstByte > 0 {
		m.firstByte.WithLabelValues(r.Endpoint).Observe(r.FirstByte.Seconds())
	}
	if r.Provenance != "" {
		m.charge(r, model)
	}
	if r.Endpoint == otherEndpoint || r.Ending == EndingRefused {
		return // no operation of a model
	}
	operation := operationOf(r.Endpoint)
	m.genDuration.WithLabelValues(operation, m.provider, model, r.errorType()).Observe(r.Duration.Seconds())
	if r.Stream && r.FirstByte > 0 {
		m.genFirstToken.WithLabelValues(operation, m.provider, model).Observe(r.FirstByte.Seconds())
	}
}

// charge counts the tokens. The standard's types are input and output; the
// parts are named as Envoy AI Gateway names them.
func (m *metrics) charge(r *Record, model string) {
	operation := operationOf(r.Endpoint)
	for _, t := range []struct {
		kind string
		n    int64
		part bool
	}{
		{"input", r.Tokens.Prompt, false},
		{"output", r.Tokens.Completion, false},
		{"cached_input", r.Tokens.CachedPrompt, true},
		{"reasoning", r.Tokens.Reasoning, true},
	} {
		if t.part && t.n == 0 {
			continue
		}
		m.tokens.WithLabelValues(t.kind, string(r.Provenance)).Add(float64(t.n))
		m.genTokens.WithLabelValues(operation, m.provider, model, t.kind).Observe(float64(t.n))
	}
	m.overshoot.Add(float64(max(0, r.Tokens.Total-r.Held)))
}

// statusLabel has a value for each status of HTTP and no more: an upstream may
// answer any number.
func statusLabel(status int) string {
	if status != 0 && (status < 100 || status > 599) {
		return otherEndpoint
	}
	return strconv.Itoa(status)
}
