package extproc

import (
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// TestReconfigure_forTheNextExchange: an exchange ends with the settings that it
// began with; the next one has the new ones.
func TestReconfigure_forTheNextExchange(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.UpstreamKey, o.DefaultOutputTokens = "sk-first", 100
		o.Defaults.Tokens = ratelimit.Limit{Max: 1_000_000, Window: time.Minute}
	})
	next := Settings{
		Defaults:            ratelimit.Limits{Requests: ratelimit.Limit{Max: 7, Window: time.Second}},
		DefaultOutputTokens: 9, InvalidKeyStatus: 401, BudgetExact: true, UpstreamKey: "sk-second",
	}
	const body = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
	// The new settings come between the headers and the body of a request.
	running := r.begin()
	first := running.say(post("/v1/chat/completions"))
	if err := r.server.Reconfigure(next); err != nil {
		t.Fatal(err)
	}
	if got := setHeaders(first.GetRequestHeaders().GetResponse().GetHeaderMutation().GetSetHeaders())["authorization"]; got != "Bearer sk-first" {
		t.Errorf("running: credential %q", got)
	}
	answer := running.say(requestBodyMsg(body))
	if !admitted(answer) || answer.GetRequestBody().GetResponse().GetBodyMutation() != nil {
		t.Errorf("running: %v, the new settings edit the body", answer)
	}
	if held, under := r.books.requests[0], r.limits.taken[0]; held.DefaultCeiling != 100 || under.Requests.Max != 30 {
		t.Errorf("running: held %+v under %+v", held, under)
	}
	running.end()

	after := r.begin()
	second := after.say(post("/v1/chat/completions"))
	if got := setHeaders(second.GetRequestHeaders().GetResponse().GetHeaderMutation().GetSetHeaders())["authorization"]; got != "Bearer sk-second" {
		t.Errorf("next: credential %q", got)
	}
	if answer := after.say(requestBodyMsg(body)); !admitted(answer) || answer.GetRequestBody().GetResponse().GetBodyMutation() == nil {
		t.Errorf("next: %v, want the ceiling in the body", answer)
	}
	if held, under := r.books.requests[1], r.limits.taken[1]; held.DefaultCeiling != 9 || under != next.Defaults {
		t.Errorf("next: held %+v under %+v", held, under)
	}
	after.end()
	if _, denied := r.server.Authenticate([]string{"Bearer sk-nobody"}); denied == nil || denied.Status != 401 {
		t.Errorf("info routes: %+v, want 401", denied)
	}
}

func TestReconfigure_badSettingsChangeNothing(t *testing.T) {
	r := newRig(t, nil)
	before := r.server.settings.Load()
	for _, bad := range []Settings{
		{},
		{Defaults: before.Defaults},
		{DefaultOutputTokens: 1},
		{DefaultOutputTokens: 1, Defaults: ratelimit.Limits{Requests: ratelimit.Limit{Max: 1}}},
	} {
		if err := r.server.Reconfigure(bad); err == nil || r.server.settings.Load() != before {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
