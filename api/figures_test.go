package api

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// tell asks a route as the owner of a key, and fails where anything of another
// key is in the answer.
func (d *desk) tell(t *testing.T, key int, path string) map[string]any {
	t.Helper()
	w := get(t, d.handler, path, "Authorization", "Bearer "+d.secrets[key])
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	other := 1 - key
	for _, foreign := range []string{d.keys[other].ID, d.keys[other].Display, d.keys[other].Name, d.secrets[0], d.secrets[1]} {
		if strings.Contains(w.Body.String(), foreign) {
			t.Fatalf("%s tells key %d about another: %s", path, key, w.Body)
		}
	}
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// same compares an answer with what it should be, written as JSON.
func same(t *testing.T, got any, want string) {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(want), &v); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

const nothing = `{"tokens_used":0,"requests_count":0,"avg_tokens_per_request":0}`

const noParts = `"estimated":{"tokens_used":0,"requests_count":0},"aborted":{"tokens_used":0,"requests_count":0},"recovered":{"tokens_used":0,"requests_count":0},"expired":{"tokens_used":0,"requests_count":0}`

// The whole of what two keys are told after known traffic, to the last member.
func TestFigures_ofTwoKeys(t *testing.T) {
	d := newDesk(t)
	for _, n := range []int64{10, 20, 21} {
		d.spend(t, 0, "m", n, 0, billing.Reported)
	}
	d.spend(t, 1, "other", 400, 77, billing.Estimated)
	first, second := d.keys[0], d.keys[1]

	same(t, d.tell(t, 0, "/limits"), `{"api_key":"`+first.Display+`","key_id":"`+first.ID+`",
		"daily":{"limit":1000,"used":51,"remaining":949,"percentage_used":5.1,"held":0,"resets_at":"2026-11-25T00:00:00.000000+00:00"},
		"monthly":{"limit":1000000,"used":51,"remaining":999949,"percentage_used":0.01,"held":0,"resets_at":"2026-12-01T00:00:00.000000+00:00"},"money":null}`)
	same(t, d.tell(t, 0, "/tariff"), `{"tariff":{"max_tokens":10000,"name":"Test Basic","description":"the first","api_key":"`+first.Display+`"},
		"usage":{"used_tokens":51,"remaining_tokens":9949,"usage_percentage":0.51,"held_tokens":0,"resets_at":"2026-12-01T00:00:00.000000+00:00"},"key_id":"`+first.ID+`"}`)
	rate := `{"api_key":"` + first.Display + `","limit":30,"window_seconds":60,"current_count":3,"remaining":27,"storage":"memory",
		"key_id":"` + first.ID + `","reset_seconds":60,"tokens":null,"concurrent":null}`
	same(t, d.tell(t, 0, "/rate-limit"), rate)
	sum := `{"tokens_used":51,"requests_count":3,"avg_tokens_per_request":17}`
	limits, err := json.Marshal(d.tell(t, 0, "/limits"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, d.tell(t, 0, "/usage"), `{"billing":{"usage":{"api_key":"`+first.Display+`","key_id":"`+first.ID+`",
			"period":{"start_date":"2026-10-26","end_date":"2026-11-24","days":30},
			"total":`+sum+`,"today":`+sum+`,"current_month":`+sum+`,
			"daily_breakdown":[{"date":"2026-11-24","tokens_used":51,"requests_count":3,"avg_tokens_per_request":17}],
			"provenance":{"reported":{"tokens_used":51,"requests_count":3},`+noParts+`}},
			"limits":`+string(limits)+`},
		"tracker":{"api_key":"`+first.Display+`","used_tokens":51,"last_updated":"2026-11-24T12:00:00.000000+00:00","storage_type":"memory"},
		"tariff":{"max_tokens":10000,"name":"Test Basic","description":"the first","api_key":"`+first.Display+`"},
		"rate_limit":`+rate+`,"rows":[]}`)
	same(t, d.tell(t, 0, "/api/v1/key"), `{"data":{"label":"`+first.Display+`","key_id":"`+first.ID+`","name":"Test Basic",
		"usage":51,"usage_daily":51,"usage_monthly":51,"limit":10000,"limit_remaining":9949,"limit_reset":"monthly","is_free_tier":false,"expires_at":null,
		"rate_limit":{"requests":30,"interval":"60s"}}}`)
	for _, path := range []string{"/usage", "/limits", "/tariff"} {
		if diff := cmp.Diff(d.tell(t, 0, path), d.tell(t, 0, "/v1"+path)); diff != "" {
			t.Errorf("/v1%s is another answer: %s", path, diff)
		}
	}

	same(t, d.tell(t, 1, "/tariff"), `{"tariff":{"max_tokens":50000,"name":"Default","description":"The gateway's default tariff","api_key":"`+second.Display+`"},
		"usage":{"used_tokens":477,"remaining_tokens":49523,"usage_percentage":0.95,"held_tokens":0,"resets_at":"2026-12-01T00:00:00.000000+00:00"},"key_id":"`+second.ID+`"}`)
	same(t, d.tell(t, 1, "/usage?group_by=day,model")["rows"], `[{"day":"2026-11-24","model":"other","prompt_tokens":400,"completion_tokens":77,"total_tokens":477,"requests":1,"cost":"0",
		"provenance":{"reported":{"tokens_used":0,"requests_count":0},"estimated":{"tokens_used":477,"requests_count":1},"aborted":{"tokens_used":0,"requests_count":0},"recovered":{"tokens_used":0,"requests_count":0},"expired":{"tokens_used":0,"requests_count":0}}}]`)
}

// A key with a budget of money is told of it to the nano-unit.
func TestFigures_ofMoney(t *testing.T) {
	d := newDesk(t)
	rate, budget := billing.Money(3_000_001), billing.Money(2_500_000_000)
	admin, err := billing.OpenAdmin(t.Context(), d.options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	if _, _, err := admin.AddPrices(t.Context(), "USD", []billing.Price{{Model: "m", Rates: billing.Rates{Input: &rate}}}); err != nil {
		t.Fatal(err)
	}
	k, secret, err := admin.CreateKey(t.Context(), billing.NewKey{Name: "Paid", Limits: billing.Limits{Money: int64(budget)}})
	if err != nil {
		t.Fatal(err)
	}
	d.keys[0], d.secrets[0] = k, secret
	if err := d.book.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.spend(t, 0, "m", 10, 5, billing.Reported) // 30.00001 nano-units
	same(t, d.tell(t, 0, "/limits")["money"], `{"limit":"2.5","used":"0.000000031","remaining":"2.499999969","held":"0","resets_at":"2026-12-01T00:00:00.000000+00:00"}`)
	rows, _ := d.tell(t, 0, "/usage?group_by=model")["rows"].([]any)
	if len(rows) != 1 || asMap(rows[0])["cost"] != "0.000000031" {
		t.Errorf("%v", rows)
	}
}

// What a model server produced beyond a limit is told as used, and leaves nothing
// below zero.
func TestFigures_neverBelowZero(t *testing.T) {
	d := newDesk(t)
	id := d.book.NewHoldID()
	_, err := d.book.Reserve(t.Context(), billing.HoldRequest{ID: id, KeyID: d.keys[0].ID, Model: "m", PromptBound: 10, Ceiling: 10, Choices: 1})
	if err == nil { // the day's limit is 1,000, the tariff's 10,000
		err = d.book.Settle(t.Context(), id, billing.Outcome{Prompt: 10, Completion: 11_990, Provenance: billing.Reported})
	}
	if err != nil {
		t.Fatal(err)
	}
	same(t, d.tell(t, 0, "/limits")["daily"], `{"limit":1000,"used":12000,"remaining":0,"percentage_used":1200,"held":0,"resets_at":"2026-11-25T00:00:00.000000+00:00"}`)
	same(t, d.tell(t, 0, "/tariff")["usage"], `{"used_tokens":12000,"remaining_tokens":0,"usage_percentage":120,"held_tokens":0,"resets_at":"2026-12-01T00:00:00.000000+00:00"}`)
	data := asMap(d.tell(t, 0, "/api/v1/key")["data"])
	same(t, []any{data["usage"], data["limit"], data["limit_remaining"]}, `[12000,10000,0]`)

	beyond := func(most int64) ratelimit.State {
		return ratelimit.State{Limit: ratelimit.Limit{Max: most, Window: time.Minute}, Remaining: -5}
	}
	r := reportOf(d.keys[0], ratelimit.Decision{Requests: beyond(30), Tokens: beyond(900), Concurrent: beyond(2)})
	if r.Remaining != 0 || r.CurrentCount != 30 || r.Tokens.Remaining != 0 || r.Concurrent.Remaining != 0 {
		t.Errorf("%+v %+v %+v", r, r.Tokens, r.Concurrent)
	}
}

// Days, months and the window of 30 days end at midnight UTC, to the instant.
func TestFigures_atTheEndsOfDaysAndMonths(t *testing.T) {
	d := newDesk(t)
	usage := func(name string) string {
		t.Helper()
		v, err := json.Marshal(asMap(member(d.tell(t, 0, "/usage"), "billing", "usage"))[name])
		if err != nil {
			t.Fatal(err)
		}
		return string(v)
	}
	expect := func(period, total, today, month string) {
		t.Helper()
		for name, want := range map[string]string{"period": period, "total": total, "today": today, "current_month": month} {
			var a, b any
			if err := json.Unmarshal([]byte(usage(name)), &a); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(want), &b); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(b, a); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", name, diff)
			}
		}
	}
	d.clock.set(t, "2027-12-31T23:59:59.9Z")
	d.spend(t, 0, "m", 100, 0, billing.Reported)
	expect(`{"start_date":"2027-12-02","end_date":"2027-12-31","days":30}`, `{"tokens_used":100,"requests_count":1,"avg_tokens_per_request":100}`,
		`{"tokens_used":100,"requests_count":1,"avg_tokens_per_request":100}`, `{"tokens_used":100,"requests_count":1,"avg_tokens_per_request":100}`)
	d.clock.set(t, "2028-01-01T00:00:00Z")
	expect(`{"start_date":"2027-12-03","end_date":"2028-01-01","days":30}`, `{"tokens_used":100,"requests_count":1,"avg_tokens_per_request":100}`, nothing, nothing)
	same(t, d.tell(t, 0, "/limits")["daily"], `{"limit":1000,"used":0,"remaining":1000,"percentage_used":0,"held":0,"resets_at":"2028-01-02T00:00:00.000000+00:00"}`)
	d.clock.set(t, "2028-01-31T12:00:00Z") // the window begins on the 2nd: the 31st of December has left it
	d.spend(t, 0, "m", 1, 1, billing.Reported)
	expect(`{"start_date":"2028-01-02","end_date":"2028-01-31","days":30}`, `{"tokens_used":2,"requests_count":1,"avg_tokens_per_request":2}`,
		`{"tokens_used":2,"requests_count":1,"avg_tokens_per_request":2}`, `{"tokens_used":2,"requests_count":1,"avg_tokens_per_request":2}`)
	d.clock.set(t, "2028-02-29T23:00:00Z") // a leap year
	d.spend(t, 0, "m", 3, 0, billing.Reported)
	expect(`{"start_date":"2028-01-31","end_date":"2028-02-29","days":30}`, `{"tokens_used":5,"requests_count":2,"avg_tokens_per_request":2.5}`,
		`{"tokens_used":3,"requests_count":1,"avg_tokens_per_request":3}`, `{"tokens_used":3,"requests_count":1,"avg_tokens_per_request":3}`)
	d.clock.set(t, "2028-03-01T10:00:00Z") // the month begins before the window
	d.spend(t, 0, "m", 11, 0, billing.Reported)
	d.clock.set(t, "2028-03-31T00:00:00Z")
	d.spend(t, 0, "m", 7, 0, billing.Reported)
	d.clock.set(t, "2028-03-31T23:59:59Z")
	expect(`{"start_date":"2028-03-02","end_date":"2028-03-31","days":30}`, `{"tokens_used":7,"requests_count":1,"avg_tokens_per_request":7}`,
		`{"tokens_used":7,"requests_count":1,"avg_tokens_per_request":7}`, `{"tokens_used":18,"requests_count":2,"avg_tokens_per_request":9}`)
	if from := d.tell(t, 0, "/usage?from=2027-12-01&to=2028-03-31"); member(from, "billing", "usage", "total", "tokens_used") != 123.0 {
		t.Errorf("%v", from)
	}
}

// The CSV form is RFC 4180, and no cell of a client's is a formula.
func TestUsage_csv(t *testing.T) {
	d := newDesk(t)
	d.spend(t, 0, `=HYPERLINK("http://x")`, 3, 4, billing.Reported)
	d.spend(t, 0, "a,b\n\"c\"", 1, 0, billing.Aborted)
	w := get(t, d.handler, "/usage?format=csv&group_by=model&from=2026-11-24&to=2026-11-24", "Authorization", "Bearer "+d.secrets[0])
	records, err := csv.NewReader(w.Body).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"model", "prompt_tokens", "completion_tokens", "total_tokens", "requests", "reported", "estimated", "aborted", "recovered", "expired", "cost", "unpriced_requests"},
		{`'=HYPERLINK("http://x")`, "3", "4", "7", "1", "1", "0", "0", "0", "0", "0", "1"},
		{"a,b\n\"c\"", "1", "0", "1", "1", "0", "0", "1", "0", "0", "0", "1"},
	}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Error(diff)
	}
	if got := w.Header().Get("Content-Disposition"); got != `attachment; filename="usage-2026-11-24-2026-11-24.csv"` {
		t.Error(got)
	}
}

// One key's questions have a guard, which leaves the other key alone.
func TestGuard(t *testing.T) {
	d := newDesk(t)
	ask := func(key int) int {
		return get(t, d.handler, "/rate-limit", "Authorization", "Bearer "+d.secrets[key]).Code
	}
	refused := 0
	for range 10 * guardBurst {
		if ask(0) == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if code := ask(1); code != http.StatusOK {
		t.Errorf("the other key: %d", code)
	}
}
