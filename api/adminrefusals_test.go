package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// TestAdmin_refusesWhatItDoesNotUnderstand: each request is wrong in one way,
// and the answer names the place.
func TestAdmin_refusesWhatItDoesNotUnderstand(t *testing.T) {
	o := newOperator(t)
	id, _ := o.create(`{"limit":10}`)
	key := adminKeys + "/" + id
	for _, c := range []struct {
		method, target, body string
		status               int
		param                string
	}{
		{"POST", adminKeys, `{}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":0}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":-1}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":1.5}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":"10"}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":9007199254740992}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":99999999999999999999}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":null}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":1,"limit":2}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":1,"daily":null}`, 400, "daily"},
		{"POST", adminKeys, `{"limit":1,"Daily":2}`, 400, "Daily"},
		{"POST", adminKeys, `{"limit":1,"tokens":2}`, 400, "tokens"},
		{"POST", adminKeys, `{"limit":1,"name":"a\u0000b"}`, 400, "name"},
		{"POST", adminKeys, `{"limit":1,"name":"a\nb"}`, 400, "name"},
		{"POST", adminKeys, `{"limit":1,"name":"` + strings.Repeat("ü", 501) + `"}`, 400, "name"},
		{"POST", adminKeys, `{"limit":1,"name":7}`, 400, "name"},
		{"POST", adminKeys, `{"limit":1,"models":"a"}`, 400, "models"},
		{"POST", adminKeys, `{"limit":1,"models":[""]}`, 400, "models[0]"},
		{"POST", adminKeys, `{"limit":1,"expires":"30"}`, 400, "expires"},
		{"POST", adminKeys, `{"limit":1,"expires":"0s"}`, 400, "expires"},
		{"POST", adminKeys, `{"limit":1,"expires":"1d","expires_at":"2030-01-01T00:00:00Z"}`, 400, "expires_at"},
		{"POST", adminKeys, `{"limit":1,"expires_at":"tomorrow"}`, 400, "expires_at"},
		{"POST", adminKeys, `{"limit":1,"expires_at":"2026-11-24T10:00:00Z"}`, 409, "expires_at"},
		{"POST", adminKeys, `{"limit":1}{}`, 400, "body"},
		{"POST", adminKeys, `{"limit":1`, 400, "body"},
		{"POST", adminKeys, `[1]`, 400, "body"},
		{"POST", adminKeys, `null`, 400, "body"},
		{"POST", adminKeys, `{"limit":1.5e0}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":1e16}`, 400, "limit"},
		{"POST", adminKeys, `{"limit":1,"expires_at":"2030-01-01t00:00:00z"}`, 400, "expires_at"},
		{"POST", adminKeys, "{\"limit\":1,\"name\":\"\xff\"}", 400, ""},
		{"POST", adminKeys, `{"limit":1,"name":"` + strings.Repeat("x", maxAdminBody) + `"}`, 413, ""},
		{"POST", adminKeys + "?x=1", `{"limit":1}`, 400, "x"},
		{"PATCH", key, `{}`, 400, ""},
		{"PATCH", key, `{"limit":0}`, 400, "limit"},
		{"PATCH", key, `{"limit":"null"}`, 400, "limit"},
		{"PATCH", key, `{"name":"a\nb"}`, 400, "name"},
		{"PATCH", key, `{"name":7}`, 400, "name"},
		{"PATCH", key, `{"key":"n"}`, 400, "key"},
		{"PATCH", key, `{"description":"` + strings.Repeat("x", 501) + `"}`, 400, "description"},
		{"PATCH", key, `{"tariff":"gold"}`, 409, "tariff"},
		{"PATCH", key, `{"tariff":""}`, 400, "tariff"},
		{"PATCH", key, `{"budget":"0"}`, 400, "budget"},
		{"PATCH", key, `{"budget":"-1"}`, 400, "budget"},
		{"PATCH", key, `{"budget":1.5}`, 400, "budget"},
		{"PATCH", key, `{"budget":"9999999999"}`, 400, "budget"},
		{"PATCH", key, `{"models":"a"}`, 400, "models"},
		{"PATCH", key, `{"models":[""]}`, 400, "models[0]"},
		{"PATCH", key, `{"models":["` + strings.Repeat("ü", 65) + `"]}`, 400, "models[0]"},
		{"PATCH", key, `{"models":["a\u0000"]}`, 400, "models[0]"},
		{"PATCH", key, `{"expires_at":"soon"}`, 400, "expires_at"},
		{"PATCH", key, `{"expires_at":"2026-11-24T10:00:00Z"}`, 409, "expires_at"},
		{"POST", adminKeys, `{"tariff":"gold"}`, 409, "tariff"},
		{"POST", adminKeys, `{"limit":1,"budget":"1e3"}`, 400, "budget"},
		{"POST", adminKeys, `{"limit":1,"models":["` + strings.Repeat("x", 257) + `"]}`, 400, "models[0]"},
		{"PUT", adminTariffs + "/team", `{}`, 400, "body"},
		{"PUT", adminTariffs + "/team", `{"limit":0}`, 400, "limit"},
		{"PUT", adminTariffs + "/team", `{"limit":1,"daily":null}`, 400, "daily"},
		{"PUT", adminTariffs + "/team", `{"limit":1,"budget":"0.0"}`, 400, "budget"},
		{"PUT", adminTariffs + "/team", `{"limit":1,"tariff":"basic"}`, 400, "tariff"},
		{"PUT", adminTariffs + "/Team", `{"limit":1}`, 400, "name"},
		{"PUT", adminTariffs + "/none", `{"limit":1}`, 409, "name"},
		{"PUT", adminTariffs, `{"limit":1}`, 405, ""},
		{"DELETE", adminTariffs + "/team", "", 404, "name"},
		{"GET", adminTariffs + "/basic", "", 405, ""},
		{"PATCH", adminKeys + "/" + unknownID, `{"limit":1}`, 404, "id"},
		{"PATCH", adminKeys + "/sk-lgw_secret", `{"limit":1}`, 400, "id"},
		{"GET", adminKeys + "/" + unknownID, "", 404, "id"},
		{"GET", adminKeys + "/key_UPPER", "", 400, "id"},
		{"GET", adminKeys + "/%2e%2e", "", 404, ""},
		{"GET", adminKeys + "/", "", 404, ""},
		{"GET", "/admin//keys", "", 404, ""},
		{"GET", "/admin/nothing", "", 404, ""},
		{"GET", "/health", "", 404, ""},
		{"POST", adminKeys + "/" + unknownID + "/revoke", "", 404, "id"},
		{"POST", adminKeys + "/" + unknownID + "/rotate", `{}`, 404, "id"},
		{"POST", key + "/rotate", `{"overlap":"1w"}`, 400, "overlap"},
		{"POST", key + "/rotate", `{"overlap":"-1h"}`, 400, "overlap"},
		{"DELETE", key, "", 405, ""},
		{"PUT", adminKeys, "", 405, ""},
		{"OPTIONS", adminKeys, "", 405, ""},
		{"GET", key + "/revoke", "", 405, ""},
		{"GET", adminKeys + "?limit=0", "", 400, "limit"},
		{"GET", adminKeys + "?limit=1001", "", 400, "limit"},
		{"GET", adminKeys + "?limit=x", "", 400, "limit"},
		{"GET", adminKeys + "?limit=", "", 400, "limit"},
		{"GET", adminKeys + "?limit=1&limit=2", "", 400, "limit"},
		{"GET", adminKeys + "?limit=1;state=x", "", 400, ""},
		{"GET", adminKeys + "?after=x", "", 400, "after"},
		{"GET", adminKeys + "?state=dead", "", 400, "state"},
		{"GET", adminKeys + "?stat=active", "", 400, "stat"},
		{"GET", "/admin/usage?from=2026-13-01", "", 400, "from"},
		{"GET", "/admin/usage?from=2026-11-02&to=2026-11-01", "", 400, "from"},
		{"GET", "/admin/usage?by=day,day", "", 400, "by"},
		{"GET", "/admin/usage?by=price", "", 400, "by"},
		{"GET", "/admin/usage?format=xml", "", 400, "format"},
		{"GET", "/admin/usage?key=" + unknownID, "", 404, "key"},
		{"GET", "/admin/stats?x=1", "", 400, "x"},
		{"GET", adminChanges + "?limit=1001", "", 400, "limit"},
		{"GET", adminChanges + "?after=x", "", 400, "after"},
		{"GET", adminChanges + "?subject=a%0Ab", "", 400, "subject"},
		{"GET", adminChanges + "?from=2026-11-02&to=2026-11-01", "", 400, "from"},
		{"POST", adminChanges, "", 405, ""},
	} {
		w := o.send(c.method, c.target, c.body)
		report := wantReport(t, w)
		if w.Code != c.status || report.param != c.param {
			t.Errorf("%s %s %.80s: %d, param %q: %s; want %d, %q", c.method, c.target, c.body, w.Code, report.param, w.Body, c.status, c.param)
		}
		for _, internal := range []string{"json:", "Go ", "struct", "api.", "sql", "huma", "billing"} {
			if strings.Contains(w.Body.String(), internal) {
				t.Errorf("%s %s %.80s: the answer shows %q: %s", c.method, c.target, c.body, internal, w.Body)
			}
		}
		if (w.Code == 405) != (w.Header().Get("Allow") != "") {
			t.Errorf("%s %s: %d with Allow %q", c.method, c.target, w.Code, w.Header().Get("Allow"))
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" || len(w.Result().Cookies()) > 0 {
			t.Errorf("%s %s: CORS or cookies: %v", c.method, c.target, w.Header())
		}
	}
	if keys, err := o.books.Keys(t.Context()); err != nil || len(keys) != 1 || o.changes != 1 {
		t.Errorf("%d keys, %d changes, %v: a refused request changed something", len(keys), o.changes, err)
	}
}

func TestAdmin_wholeNumbersInEverySpelling(t *testing.T) {
	o := newOperator(t)
	for text, limit := range map[string]float64{"7": 7, "7.0": 7, "7e2": 700, "7.5e1": 75, "9007199254740991": 9007199254740991} {
		if k := o.want(201, "POST", adminKeys, `{"limit":`+text+`}`); k["limit"] != limit {
			t.Errorf("%s: %v", text, k["limit"])
		}
	}
}

func TestAdmin_takesJSONOnly(t *testing.T) {
	o := newOperator(t)
	for contentType, status := range map[string]int{
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "application/json; charset=latin1": 415,
		"application/cbor": 415, "application/json; charset=utf-8": 201, "application/json": 201,
	} {
		if w := o.send("POST", adminKeys, `{"limit":1}`, "Content-Type", contentType); w.Code != status {
			t.Errorf("%q: %d, want %d", contentType, w.Code, status)
		}
	}
}

func TestAdmin_booksAway(t *testing.T) {
	o := newOperator(t)
	id, _ := o.create(`{"limit":10}`)
	if err := o.books.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][3]string{
		{"GET", adminKeys, ""},
		{"GET", adminKeys + "/" + id, ""},
		{"POST", adminKeys, `{"limit":1}`},
		{"PATCH", adminKeys + "/" + id, `{"limit":1}`},
		{"POST", adminKeys + "/" + id + "/revoke", ""},
		{"POST", adminKeys + "/" + id + "/rotate", `{}`},
		{"GET", "/admin/usage", ""},
		{"GET", "/admin/usage?key=" + id, ""},
		{"GET", "/admin/stats", ""},
		{"GET", "/admin/audit", ""},
		{"GET", adminTariffs, ""},
		{"GET", adminChanges, ""},
		{"PUT", adminTariffs + "/team", `{"limit":1}`},
		{"DELETE", adminTariffs + "/basic", ""},
	} {
		w := o.send(c[0], c[1], c[2])
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || wantReport(t, w).code != codeUnavailable || strings.Contains(w.Body.String(), "sql") {
			t.Errorf("%v: %d %s", c, w.Code, w.Body)
		}
	}
	if o.changes != 1 {
		t.Errorf("%d changes", o.changes)
	}
	o.want(200, "GET", "/admin/limits", "") // needs no books
}

// TestAdmin_aPanicIsAnAnswer: no request ends without one.
func TestAdmin_aPanicIsAnAnswer(t *testing.T) {
	o := newOperator(t)
	h := AdminHandler(AdminOptions{
		Token: testToken, Books: o.books, Now: func() time.Time { panic("the clock") }, Log: zap.NewNop(),
		Refresh: func(context.Context) error { return nil },
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, adminKeys, nil)
	r.Header.Set("Authorization", "Bearer "+testToken)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusInternalServerError || wantReport(t, w).code != codeInternal || strings.Contains(w.Body.String(), "the clock") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestAdmin_emptyTokenOpensNothing: a gateway never builds this handler without
// a token; if it did, nobody would come in.
func TestAdmin_emptyTokenOpensNothing(t *testing.T) {
	o := newOperator(t)
	h := AdminHandler(AdminOptions{Books: o.books, Now: time.Now, Log: zap.NewNop()})
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer  "} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/admin/limits", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("%q: %d", header, w.Code)
		}
	}
}
