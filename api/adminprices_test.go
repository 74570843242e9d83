package api

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Prices are added by HTTP as on the command line, in exact decimals.
func TestAdmin_addsPrices(t *testing.T) {
	o := newOperator(t)
	post := func(status int, body string) map[string]any {
		t.Helper()
		return o.want(status, http.MethodPost, adminPrices, body)
	}
	added := post(http.StatusCreated, `{"prices":[{"model":"gpt-4o*","input":"2.50","cached_read":"0.000000001","output":"10"}]}`)
	want := map[string]any{
		"id": 1.0, "model": "gpt-4o*", "valid_from": "2026-11-24T10:00:00Z", "state": "in_force",
		"input": "2.5", "cached_read": "0.000000001", "cache_write": nil, "output": "10", "reasoning": nil,
		"audio_input": nil, "audio_output": nil, "ends": false, "created_at": "2026-11-24T10:00:00Z",
	}
	if diff := cmp.Diff(map[string]any{"currency": "USD", "prices": []any{want}}, added); diff != "" {
		t.Error(diff)
	}
	if again := post(http.StatusCreated, `{"prices":[{"model":"gpt-4o*","input":"2.5","cached_read":"0.000000001","output":"10"}]}`); len(asList(again["prices"])) != 0 {
		t.Errorf("added twice: %v", again)
	}
	post(http.StatusCreated, `{"currency":"USD","prices":[{"model":"gpt-4o*","valid_from":"2027-01-01T00:00:00Z"}]}`)
	all := o.want(http.StatusOK, http.MethodGet, adminPrices+"?all=true", "")
	if len(asList(all["prices"])) != 2 {
		t.Errorf("%v", all)
	}
	for name, c := range map[string]struct {
		status int
		body   string
		code   string
	}{
		"currency": {409, `{"currency":"EUR","prices":[{"model":"m","input":"1"}]}`, "other_currency"},
		"past":     {409, `{"prices":[{"model":"m","input":"1","valid_from":"2026-11-24T09:59:59Z"}]}`, "price_in_the_past"},
		"number":   {400, `{"prices":[{"model":"m","input":1}]}`, "invalid_value"},
		"exponent": {400, `{"prices":[{"model":"m","input":"1e3"}]}`, "invalid_value"},
		"digits":   {400, `{"prices":[{"model":"m","input":"0.0000000001"}]}`, "invalid_value"},
		"too much": {400, `{"prices":[{"model":"m","input":"100000.1"}]}`, "invalid_value"},
		"basis":    {400, `{"prices":[{"model":"m","reasoning":"1"}]}`, "invalid_value"},
		"none":     {400, `{"prices":[]}`, "invalid_value"},
		"member":   {400, `{"prices":[{"model":"m","input":"1","colour":"2"}]}`, "invalid_value"},
		"twice":    {400, `{"prices":[{"model":"m","input":"1","input":"2"}]}`, "invalid_value"},
		"null":     {400, `{"prices":[{"model":"m","input":null}]}`, "invalid_value"},
	} {
		answer := o.want(c.status, http.MethodPost, adminPrices, c.body)
		if report, _ := answer["error"].(map[string]any); report["code"] != c.code {
			t.Errorf("%s: %v, want %s", name, answer, c.code)
		}
	}
	if l := o.want(http.StatusOK, http.MethodGet, adminPrices+"?all=true", ""); len(asList(l["prices"])) != 2 {
		t.Errorf("a refused request added prices: %v", l)
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}
