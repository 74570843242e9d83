package extproc

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func measured(t *testing.T) (*rig, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	return newRig(t, func(o *Options) {
		o.Metrics, o.MetricModels, o.Provider = registry, []string{"m"}, "openai"
	}), registry
}

func series(t *testing.T, registry *prometheus.Registry) int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

// served walks one request of a model through.
func (r *rig) served(model string) {
	c := r.begin()
	c.say(post("/v1/chat/completions"))
	c.say(requestBodyMsg(fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}],"max_tokens":5}`, model)))
	c.say(responseHeadersMsg("via_upstream", false, ":status", "200", "content-type", "application/json"))
	c.say(responseBodyMsg(jsonAnswer, true))
	c.end()
}

func TestMetricsCountWhatHappened(t *testing.T) {
	r, registry := measured(t)
	r.served("m")
	r.served("m")
	r.served("another")
	c := r.begin()
	c.say(post("/v1/chat/completions", "authorization", "Bearer two"))
	c.end()
	for name, want := range map[string]float64{
		"llmgw_requests_total": 4, "llmgw_refusals_total": 1, "llmgw_tokens_total": 21, "llmgw_requests_running": 0, "llmgw_overshoot_tokens_total": 0,
	} {
		if got := sum(t, registry, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if n := sum(t, registry, "gen_ai_client_token_usage"); n != 6 { // input and output of three requests
		t.Errorf("%v observations of tokens, want 6", n)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", err, problems)
	}
}

// sum adds the values of a family's series; of histograms the observations.
func sum(t *testing.T, registry *prometheus.Registry, name string) (total float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}

// Whatever clients write, the number of series has an end.
func TestSeriesAreBounded(t *testing.T) {
	r, registry := measured(t)
	walk := func(i int) {
		r.served(fmt.Sprintf("model-%d", i))
		for _, headers := range [][]string{
			{":method", "GET", ":path", fmt.Sprintf("/v1/path-%d", i)},
			{":method", fmt.Sprintf("M%d", i), ":path", "/v1/models", "authorization", "Bearer " + goodSecret},
			{":method", "POST", ":path", "/v1/completions", "authorization", fmt.Sprintf("Bearer sk-%d", i)},
		} {
			c := r.begin()
			c.say(requestHeadersMsg(true, headers...))
			c.end()
		}
	}
	walk(0)
	before := series(t, registry)
	for i := range 2500 {
		walk(i + 1)
	}
	if after := series(t, registry); after != before {
		t.Errorf("%d series after 10,000 more requests, %d before", after, before)
	}
}
