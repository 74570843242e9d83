//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// owner is a key with the traffic of its own.
type owner struct {
	rig.NewKey
	masked  string
	figures []float64 // its sums, none of which the other may see
}

// told asks an info route as the owner of k, and fails where the answer has
// anything of the other's in it: an id, a name, a key, a model, a figure.
func (g *gateway) told(k, other owner, path string) map[string]any {
	g.t.Helper()
	r := g.client(false).Do(g.context(), rig.Request{Method: http.MethodGet, Path: path, Key: k.Key})
	if r.Status != http.StatusOK {
		g.t.Fatalf("%s: %d %q %v", path, r.Status, r.Body, r.Err)
	}
	for _, foreign := range []string{other.ID, other.Name, other.Key, other.masked, other.model(), k.Key} {
		if foreign != "" && strings.Contains(string(r.Body), foreign) {
			g.t.Errorf("%s tells %s about %s: %s", path, k.Name, foreign, r.Body)
		}
	}
	var v map[string]any
	if err := json.Unmarshal(r.Body, &v); err != nil {
		g.t.Fatalf("%s: %v", path, err)
	}
	for _, n := range numbers(v) {
		if slices.Contains(other.figures, n) {
			g.t.Errorf("%s tells %s the other's %v: %s", path, k.Name, n, r.Body)
		}
	}
	return v
}

func (k owner) model() string { return "model-of-" + k.Name }

// numbers are all numbers of a document.
func numbers(v any) (list []float64) {
	switch v := v.(type) {
	case float64:
		return []float64{v}
	case []any:
		for _, x := range v {
			list = append(list, numbers(x)...)
		}
	case map[string]any:
		for _, x := range v {
			list = append(list, numbers(x)...)
		}
	}
	return list
}

// asJSON is a Go value the way a client reads it.
func asJSON(t *testing.T, v any) (out any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

type object = map[string]any

// TestInfoRoutesTellTheExactFigures sends known traffic with two keys, then
// compares every answer about it with what it must be, to the last member.
func TestInfoRoutesTellTheExactFigures(t *testing.T) {
	const daily, monthly, tariff, perWindow = 40_000, 50_000, 60_000, 25
	g := start(t, setup{env: []string{
		fmt.Sprintf("RATE_LIMIT_REQUESTS=%d", perWindow), "RATE_LIMIT_WINDOW=3600",
		fmt.Sprintf("API_DAILY_LIMIT=%d", daily), fmt.Sprintf("API_MONTHLY_LIMIT=%d", monthly),
	}})
	keys := make([]owner, 2)
	for i, name := range []string{"anna", "bert"} {
		k, err := g.cli.CreateKey(tariff, "--name", name, "--description", "a test's")
		if err != nil {
			t.Fatal(err)
		}
		g.accepted(k)
		keys[i] = owner{NewKey: k}
	}
	// All of it has to be of one day: a test that begins just before midnight waits.
	if left := time.Until(time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)); left < time.Minute {
		time.Sleep(left + time.Second)
	}
	begun := time.Now().UTC().Format(time.DateOnly)

	type spent struct {
		prompt, completion int64
		stream, legacy     bool
	}
	traffic := [][]spent{
		{{11, 23, false, false}, {1000, 2077, true, false}, {5, 7, false, true}, {300, 9, true, true}},
		{{2001, 17, true, false}, {13, 6001, false, false}},
	}
	sums := make([]struct{ prompt, completion, requests int64 }, 2)
	for i, k := range keys {
		for _, s := range traffic[i] {
			chat := rig.Chat{Model: k.model(), MaxTokens: s.completion, Stream: s.stream, Script: rig.Script{Prompt: s.prompt, Completion: s.completion}}
			ask := rig.Request{Key: k.Key, Body: chat.Body()}
			if s.legacy {
				ask.Path, ask.Body = "/v1/completions", chat.CompletionBody()
			}
			if r := g.client(false).Do(g.context(), ask); r.Status != http.StatusOK || r.Err != nil {
				t.Fatalf("%d %q %v", r.Status, r.Body, r.Err)
			}
			sums[i].prompt += s.prompt
			sums[i].completion += s.completion
			sums[i].requests++
		}
		keys[i].figures = []float64{float64(sums[i].prompt), float64(sums[i].completion), float64(sums[i].prompt + sums[i].completion)}
	}
	// What costs nothing: a failing upstream, which takes a place of the window,
	// and a request that is refused, which does not.
	failing := rig.Chat{Model: keys[0].model(), Script: rig.Script{Status: 500}}
	if r := g.client(false).Do(g.context(), rig.Request{Key: keys[0].Key, Body: failing.Body()}); r.Status != 500 {
		t.Fatalf("%d %q", r.Status, r.Body)
	}
	if r := g.client(false).Do(g.context(), rig.Request{Key: keys[0].Key, Body: []byte(`{"model":7}`)}); r.Status != 400 {
		t.Fatalf("%d %q", r.Status, r.Body)
	}
	places := []int64{sums[0].requests + 1, sums[1].requests}
	g.balanced()

	for i := range keys {
		masked, _ := g.told(keys[i], owner{}, "/limits")["api_key"].(string)
		if masked == "" || strings.Contains(masked, keys[i].Key) {
			t.Fatalf("masked key %q", masked)
		}
		keys[i].masked = masked
	}
	for i := range keys {
		k, other, sum := keys[i], keys[1-i], sums[i]
		used := sum.prompt + sum.completion
		now := time.Now().UTC()
		day := now.Truncate(24 * time.Hour)
		tomorrow, nextMonth := stampOf(day.AddDate(0, 0, 1)), stampOf(time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC))
		budget := func(limit int64, reset string) object {
			return object{
				"limit": limit, "used": used, "remaining": limit - used, "held": 0, "resets_at": reset,
				"percentage_used": hundredth(100 * float64(used) / float64(limit)),
			}
		}
		limits := object{
			"api_key": k.masked, "key_id": k.ID,
			"daily": budget(daily, tomorrow), "monthly": budget(monthly, nextMonth), "money": nil,
		}
		terms := object{"max_tokens": tariff, "name": k.Name, "description": "a test's", "api_key": k.masked}
		rate := object{
			"api_key": k.masked, "key_id": k.ID, "limit": perWindow, "window_seconds": 3600, "current_count": places[i],
			"remaining": perWindow - places[i], "storage": "memory", "tokens": nil, "concurrent": nil,
		}
		total := object{"tokens_used": used, "requests_count": sum.requests, "avg_tokens_per_request": hundredth(float64(used) / float64(sum.requests))}
		today := object{"date": begun}
		for name, v := range total {
			today[name] = v
		}
		none := object{"tokens_used": 0, "requests_count": 0}
		split := object{
			"reported":  object{"tokens_used": used, "requests_count": sum.requests},
			"estimated": none, "aborted": none, "recovered": none, "expired": none,
		}
		wants := map[string]object{
			"/limits":     limits,
			"/rate-limit": rate,
			"/tariff": {"tariff": terms, "key_id": k.ID, "usage": object{
				"used_tokens": used, "remaining_tokens": tariff - used, "held_tokens": 0, "resets_at": nextMonth,
				"usage_percentage": hundredth(100 * float64(used) / tariff),
			}},
			"/usage": {
				"billing": object{"limits": limits, "usage": object{
					"api_key": k.masked, "key_id": k.ID, "total": total, "today": total, "current_month": total, "provenance": split,
					"period":          object{"start_date": day.AddDate(0, 0, -29).Format(time.DateOnly), "end_date": begun, "days": 30},
					"daily_breakdown": []any{today},
				}},
				"tracker": object{"api_key": k.masked, "used_tokens": used, "storage_type": "memory"},
				"tariff":  terms, "rate_limit": rate, "rows": []any{},
			},
			"/api/v1/key": {"data": object{
				"label": k.masked, "key_id": k.ID, "name": k.Name, "usage": used, "usage_daily": used, "usage_monthly": used,
				"limit": tariff, "limit_remaining": tariff - used, "limit_reset": "monthly", "is_free_tier": false, "expires_at": nil,
				"rate_limit": object{"requests": perWindow, "interval": "3600s"},
			}},
		}
		for _, path := range []string{"/usage", "/limits", "/tariff"} {
			wants["/v1"+path] = wants[path]
		}
		for path, want := range wants {
			got := g.told(k, other, path)
			settleTimes(t, path, got, now)
			if diff := cmp.Diff(asJSON(t, want), any(got)); diff != "" {
				t.Errorf("%s of %s (-want +got)\n%s", path, k.Name, diff)
			}
		}
		rows := g.told(k, other, "/usage?group_by=day,model")["rows"]
		if diff := cmp.Diff(asJSON(t, []object{{
			"day": begun, "model": k.model(), "prompt_tokens": sum.prompt, "completion_tokens": sum.completion,
			"total_tokens": used, "requests": sum.requests, "cost": "0", "provenance": split,
		}}), rows); diff != "" {
			t.Errorf("rows of %s (-want +got)\n%s", k.Name, diff)
		}
	}
}

// settleTimes takes out of an answer what depends on the instant, once it is
// known to be plausible.
func settleTimes(t *testing.T, path string, answer object, now time.Time) {
	t.Helper()
	rate := answer
	if nested, ok := answer["rate_limit"].(object); ok {
		rate = nested
	}
	if reset, ok := rate["reset_seconds"].(float64); ok {
		if reset < 1 || reset > 3600 {
			t.Errorf("%s: reset_seconds %v", path, reset)
		}
		delete(rate, "reset_seconds")
	}
	if tracker, ok := answer["tracker"].(object); ok {
		last, err := time.Parse(stampLayout, fmt.Sprint(tracker["last_updated"]))
		if err != nil || last.After(now) || now.Sub(last) > 10*time.Minute {
			t.Errorf("%s: last_updated %v", path, tracker["last_updated"])
		}
		delete(tracker, "last_updated")
	}
}

// stampLayout is how the info routes write instants.
const stampLayout = "2006-01-02T15:04:05.000000+00:00"

func stampOf(t time.Time) string { return t.UTC().Format(stampLayout) }

// hundredth rounds as the info routes do.
func hundredth(x float64) float64 { return float64(int64(x*100+0.5)) / 100 }
