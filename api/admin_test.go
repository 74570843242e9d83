package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/MaksimVF/llm-gateway/billing"
)

const (
	testToken = "0123456789abcdef0123456789abcdef-token"
	unknownID = "key_00000000000000000000000000"
)

// operator is an admin API on fresh books, and what it logged.
type operator struct {
	t       *testing.T
	handler http.Handler
	books   *billing.Admin
	now     time.Time
	logged  *bytes.Buffer // every line, as it would stand in the log
	seen    *observer.ObservedLogs
	options billing.Options
	changes int // how often the gateway was asked to look

	defaults Defaults // in force
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := &operator{t: t, now: time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC), logged: &bytes.Buffer{}}
	o.options = billing.Options{
		DataDir: t.TempDir(), Log: zap.NewNop(), Now: func() time.Time { return o.now },
		Defaults: billing.Limits{Tariff: 500, Daily: 600, Monthly: 700},
	}
	o.defaults = Defaults{Requests: 30, Window: time.Minute, Tariff: 500, Daily: 600, Monthly: 700}
	books, err := billing.OpenAdmin(t.Context(), o.options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = books.Close() }) // a second Close of a test that closed it
	o.books = books
	watch, seen := observer.New(zapcore.DebugLevel)
	o.seen = seen
	lines := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(o.logged), zapcore.DebugLevel)
	o.handler = AdminHandler(AdminOptions{
		Token: testToken, Books: books, Version: "test",
		Defaults: func() Defaults { return o.defaults },
		Now:      func() time.Time { return o.now },
		Refresh:  func(context.Context) error { o.changes++; return nil },
		Log:      zap.New(zapcore.NewTee(watch, lines)),
	})
	return o
}

// send asks with the token; headers are name and value in turn.
func (o *operator) send(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	o.t.Helper()
	r := httptest.NewRequestWithContext(o.t.Context(), method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+testToken)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	o.handler.ServeHTTP(w, r)
	return w
}

// want sends, and reads the answer, which must have the status.
func (o *operator) want(status int, method, target, body string) map[string]any {
	o.t.Helper()
	w := o.send(method, target, body)
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != status {
		o.t.Fatalf("%s %s %s: %d %s, want %d (%v)", method, target, body, w.Code, w.Body, status, err)
	}
	return answer
}

func (o *operator) create(body string) (id, secret string) {
	o.t.Helper()
	k := o.want(http.StatusCreated, http.MethodPost, adminKeys, body)
	id, _ = k["id"].(string)
	secret, _ = k["key"].(string)
	if id == "" || !strings.HasPrefix(secret, "sk-lgw_") {
		o.t.Fatalf("no id or key in %v", k)
	}
	return id, secret
}

func TestAdmin_wantsTheTokenAndNothingElse(t *testing.T) {
	o := newOperator(t)
	_, secret := o.create(`{"limit":1000}`)
	for _, c := range []struct {
		name   string
		header []string
	}{
		{"none", nil},
		{"empty", []string{""}},
		{"bearer alone", []string{"Bearer "}},
		{"another token", []string{"Bearer " + strings.Replace(testToken, "0", "1", 1)}},
		{"a beginning of it", []string{"Bearer " + testToken[:len(testToken)-1]}},
		{"more than it", []string{"Bearer " + testToken + "x"}},
		{"a key of a client", []string{"Bearer " + secret}},
		{"another scheme", []string{"Basic " + testToken}},
		{"twice", []string{"Bearer " + testToken, "Bearer " + testToken}},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, adminKeys, nil)
		r.Header["Authorization"] = c.header
		r.Header.Set("X-Api-Key", testToken)
		r.AddCookie(&http.Cookie{Name: "token", Value: testToken})
		w := httptest.NewRecorder()
		o.handler.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized || !strings.HasPrefix(w.Header().Get("Www-Authenticate"), "Bearer") || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", c.name, w.Code, w.Header())
		}
	}
	if got := o.send(http.MethodGet, "/elsewhere", "", "Authorization", "").Code; got != http.StatusUnauthorized {
		t.Errorf("unknown path without a token: %d, it must say nothing of the paths", got)
	}
	if got := o.send(http.MethodGet, adminKeys, "", "Authorization", "bearer "+testToken).Code; got != http.StatusOK {
		t.Errorf("the scheme has no case (RFC 9110): %d", got)
	}
	if got := o.send(http.MethodGet, adminDocument, "", "Authorization", "").Code; got != http.StatusOK {
		t.Errorf("the document without a token: %d", got)
	}
}

func TestAdmin_limitsGuesses_butNeverTheOperator(t *testing.T) {
	o := newOperator(t)
	counts := map[int]int{}
	for range 40 {
		w := o.send(http.MethodGet, adminKeys, "", "Authorization", "Bearer guess")
		counts[w.Code]++
		if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
	}
	// A slow machine may earn some more answers on the way.
	if counts[401] < failuresAtOnce || counts[429] == 0 || counts[401]+counts[429] != 40 {
		t.Errorf("answers %v", counts)
	}
	if lines := o.seen.FilterMessage("admin request refused").Len(); lines != counts[401] {
		t.Errorf("%d log lines for %d answers 401", lines, counts[401])
	}
	o.want(http.StatusOK, http.MethodGet, adminKeys, "")
}

func TestAdmin_aKeyFromBirthToRevocation(t *testing.T) {
	o := newOperator(t)
	made := o.want(201, "POST", adminKeys, `{"limit":1000,"name":" Team A ","description":"d","daily":100,"monthly":200,"rpm":3,"tpm":400,"concurrent":5,"models":["a","b"],"expires":"30d"}`)
	id, _ := made["id"].(string)
	secret, _ := made["key"].(string)
	if made["name"] != "Team A" || made["expires_at"] != "2026-12-24T10:00:00Z" || made["daily"] != 100.0 || made["concurrent"] != 5.0 {
		t.Errorf("created %v", made)
	}
	if found, err := o.books.Find(t.Context(), secret); err != nil || found.ID != id {
		t.Errorf("the secret is not that of the key: %v %v", found.ID, err)
	}
	shown := o.want(200, "GET", adminKeys+"/"+id, "")
	if shown["state"] != "active" || shown["limit"] != 1000.0 || shown["origin"] != "created" || strings.Contains(asJSON(t, shown), secret) {
		t.Errorf("shown %v", shown)
	}
	change := o.want(200, "PATCH", adminKeys+"/"+id, `{"limit":2000,"tpm":7}`)
	if figuresOf(t, change["new"]) != `{"concurrent":5,"daily":100,"limit":2000,"monthly":200,"rpm":3,"tpm":7}` ||
		figuresOf(t, change["old"]) != `{"concurrent":5,"daily":100,"limit":1000,"monthly":200,"rpm":3,"tpm":400}` {
		t.Errorf("changed %v", change)
	}
	for range 2 {
		if gone := o.want(200, "POST", adminKeys+"/"+id+"/revoke", ""); gone["state"] != "revoked" || gone["revoked_at"] != "2026-11-24T10:00:00Z" {
			t.Errorf("revoked %v", gone)
		}
		o.now = o.now.Add(time.Hour) // the second revocation changes nothing
	}
	o.want(409, "PATCH", adminKeys+"/"+id, `{"limit":1}`)
	o.want(409, "POST", adminKeys+"/"+id+"/rotate", `{}`)
	if o.changes != 4 {
		t.Errorf("the gateway was asked to look %d times, want once for each change", o.changes)
	}
	lines := o.seen.FilterMessage("admin change").All()
	if len(lines) != 4 || lines[1].ContextMap()["action"] != "change key" || lines[1].ContextMap()["key_id"] != id || lines[1].ContextMap()["remote"] == "" {
		t.Errorf("log of changes: %v", lines)
	}
	if log := o.logged.String(); strings.Contains(log, secret) || strings.Contains(log, testToken) || !strings.Contains(log, `"limit":1000,"limit_source":"own"`) {
		t.Errorf("log: %s", log)
	}
}

func TestAdmin_nullTakesALimitAway(t *testing.T) {
	o := newOperator(t)
	id, _ := o.create(`{"limit":9,"daily":8,"monthly":7,"rpm":6,"tpm":5,"concurrent":4}`)
	const was = `{"concurrent":4,"daily":8,"limit":9,"monthly":7,"rpm":6,"tpm":5}`
	for _, c := range []struct{ change, now string }{
		{`{"daily":null}`, `{"concurrent":4,"daily":600,"limit":9,"monthly":7,"rpm":6,"tpm":5}`},
		{`{"daily":null}`, `{"concurrent":4,"daily":600,"limit":9,"monthly":7,"rpm":6,"tpm":5}`},
		{`{"limit":null,"rpm":6e1}`, `{"concurrent":4,"daily":600,"limit":500,"monthly":7,"rpm":60,"tpm":5}`},
		{`{"monthly":null,"rpm":null,"tpm":null,"concurrent":null}`, `{"concurrent":0,"daily":600,"limit":500,"monthly":700,"rpm":0,"tpm":0}`},
		{`{"limit":9,"daily":8,"monthly":7,"rpm":6,"tpm":5,"concurrent":4}`, was},
	} {
		change := o.want(200, "PATCH", adminKeys+"/"+id, c.change)
		if got := figuresOf(t, change["new"]); got != c.now {
			t.Errorf("%s: %s, want %s", c.change, got, c.now)
		}
	}
	if k := o.want(200, "GET", adminKeys+"/"+id, ""); k["daily"] != 8.0 || k["limit"] != 9.0 {
		t.Errorf("the key is %v", k)
	}
}

func TestAdmin_rotation(t *testing.T) {
	for _, c := range []struct{ body, made, oldEnds string }{
		{`{}`, `{"limit":9,"rpm":2,"models":["m"]}`, "2026-11-25T10:00:00Z"},
		{`{"overlap":"90m"}`, `{"limit":9,"rpm":2,"models":["m"]}`, "2026-11-24T11:30:00Z"},
		{`{"overlap":"0s"}`, `{"limit":9,"rpm":2,"models":["m"]}`, "2026-11-24T10:00:00Z"},
		{`{"overlap":"2d"}`, `{"limit":9,"rpm":2,"models":["m"],"expires_at":"2026-11-24T12:00:00+01:00"}`, "2026-11-24T11:00:00Z"},
	} {
		o := newOperator(t)
		id, secret := o.create(c.made)
		fresh := o.want(201, "POST", adminKeys+"/"+id+"/rotate", c.body)
		if fresh["replaces"] != id || fresh["old_expires_at"] != c.oldEnds || fresh["id"] == id || fresh["key"] == secret ||
			fresh["limit"] != 9.0 || fresh["rpm"] != 2.0 || asJSON(t, fresh["models"]) != `["m"]` {
			t.Errorf("%s: %v", c.body, fresh)
		}
		if old := o.want(200, "GET", adminKeys+"/"+id, ""); old["expires_at"] != c.oldEnds || (old["state"] == "expired") != (c.body == `{"overlap":"0s"}`) {
			t.Errorf("%s: the old key is %v", c.body, old)
		}
		if log := o.logged.String(); strings.Contains(log, asJSON(t, fresh["key"])) || strings.Contains(log, secret) {
			t.Errorf("a secret in the log: %s", log)
		}
	}
}

func TestAdmin_pagesOfKeys(t *testing.T) {
	o := newOperator(t)
	var ids []string
	for range 5 {
		id, _ := o.create(`{"limit":1}`)
		ids = append(ids, id)
		o.now = o.now.Add(time.Second) // ids sort by time
	}
	o.want(200, "POST", adminKeys+"/"+ids[1]+"/revoke", "")
	var got []string
	after := ""
	for pages := 1; ; pages++ {
		page := o.want(200, "GET", adminKeys+"?limit=2"+after, "")
		list, _ := page["keys"].([]any)
		for _, k := range list {
			got = append(got, k.(map[string]any)["id"].(string))
		}
		next, more := page["next"].(string)
		if !more {
			if pages != 3 {
				t.Errorf("%d pages of 2 for 5 keys", pages)
			}
			break
		}
		after = "&after=" + next
	}
	if strings.Join(got, " ") != strings.Join(ids, " ") {
		t.Errorf("pages hold %v, want %v", got, ids)
	}
	if page := o.want(200, "GET", adminKeys+"?state=revoked", ""); len(page["keys"].([]any)) != 1 || page["next"] != nil {
		t.Errorf("revoked: %v", page)
	}
	if page := o.want(200, "GET", adminKeys+"?limit=4&state=active", ""); len(page["keys"].([]any)) != 4 || page["next"] != nil {
		t.Errorf("a full last page says that there is more: %v", page)
	}
}

func TestAdmin_tariffsAndStats(t *testing.T) {
	o := newOperator(t)
	for _, limit := range []string{"9", "500", "9", "7"} {
		o.create(`{"limit":` + limit + `}`)
	}
	id, _ := o.create(`{"limit":9}`)
	o.want(200, "POST", adminKeys+"/"+id+"/revoke", "")
	want := `[{"default":false,"keys":1,"limit":7},{"default":false,"keys":2,"limit":9},{"default":true,"keys":1,"limit":500}]`
	if got := asJSON(t, o.want(200, "GET", adminTariffs, "")["tariffs"]); got != want {
		t.Errorf("tariffs %s, want %s", got, want)
	}
	if s := o.want(200, "GET", "/admin/stats", ""); s["total_keys"] != 5.0 || s["active_keys"] != 4.0 || s["total_tokens"] != 525.0 || s["avg_tokens"] != 131.0 {
		t.Errorf("stats %v", s)
	}
	want = `{"concurrent":0,"daily":600,"limit":500,"monthly":700,"requests":30,"tpm":0,"window_seconds":60}`
	if got := asJSON(t, o.want(200, "GET", "/admin/limits", "")); got != want {
		t.Errorf("defaults %s, want %s", got, want)
	}
	if r := o.want(200, "GET", "/admin/audit", ""); r["balanced"] != true || r["keys"] != 5.0 || asJSON(t, r["problems"]) != "[]" {
		t.Errorf("audit %v", r)
	}
}

// figuresOf are the limits that are numbers.
func figuresOf(t *testing.T, v any) string {
	t.Helper()
	figures := map[string]any{}
	for _, name := range []string{"limit", "daily", "monthly", "rpm", "tpm", "concurrent"} {
		figures[name] = asMap(v)[name]
	}
	return asJSON(t, figures)
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type refusal struct{ code, param string }

// wantReport reads a body in the shape of our errors.
func wantReport(t *testing.T, w *httptest.ResponseRecorder) refusal {
	t.Helper()
	var body struct {
		Error struct {
			Message, Type, Code *string
			Param               *string
		}
		Detail *string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error.Message == nil || body.Error.Code == nil || body.Detail == nil {
		t.Fatalf("%d is not in the shape of errors: %s", w.Code, w.Body)
	}
	r := refusal{code: *body.Error.Code}
	if body.Error.Param != nil {
		r.param = *body.Error.Param
	}
	return r
}
