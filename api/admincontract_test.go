package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/time/rate"

	"github.com/MaksimVF/llm-gateway/billing"
)

// Everything that the operator's routes answer is in their document, and
// everything in the document is answered.
func TestContract_admin(t *testing.T) {
	o := newOperator(t)
	c := newTestContract(t, o.handler, adminDocument)
	good := []string{"Authorization", "Bearer " + testToken}
	id, _ := o.create(`{"limit":10}`)
	other, _ := o.create(`{"limit":10,"models":["m"],"expires":"9999d"}`)
	shut, _ := o.create(`{"limit":10}`)
	gone, _ := o.create(`{"limit":10}`)
	if _, err := o.books.Revoke(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	c.spend(o, other)
	a, _ := o.handler.(*admin)
	a.failures.SetLimit(rate.Inf) // each operation says 401 first, and 429 later

	// What each operation takes; {id} is put in.
	bodies := map[string]string{
		"POST " + adminKeys:             `{"limit":5,"name":"n","expires_at":"2030-01-01T00:00:00Z"}`,
		"PATCH " + adminKey:             `{"limit":5}`,
		"POST " + adminKey + "/rotate":  `{"overlap":"1h"}`,
		"POST " + adminKey + "/revoke":  ``,
		"POST " + adminKey + "/block":   ``,
		"POST " + adminKey + "/unblock": ``,
		"GET /admin/usage":              ``,
		"GET " + adminKeys:              ``,
		"GET " + adminKey:               ``,
		"GET /admin/stats":              ``,
		"GET /admin/audit":              ``,
		"GET /admin/limits":             ``,
		"GET " + adminTariffs:           ``,
		"GET " + adminChanges:           ``,
		"PUT " + adminTariff:            `{"limit":7,"budget":"1.5"}`,
		"DELETE " + adminTariff:         ``,
		"GET " + adminPrices:            ``,
		"POST " + adminPrices:           `{"currency":"USD","prices":[{"model":"gpt-4o*","valid_from":"2040-01-01T00:00:00Z","input":"2.5","output":"10"}]}`,
	}
	every := func(ask func(method, path, body string)) {
		for path, item := range asMap(c.document["paths"]) {
			for method := range asMap(item) {
				method = strings.ToUpper(method)
				body, known := bodies[method+" "+path]
				if !known {
					t.Errorf("%s %s: a new operation; say what it takes", method, path)
				}
				ask(method, path, body)
			}
		}
	}
	with := func(path, id string) string { return strings.NewReplacer("{id}", id, "{name}", "team").Replace(path) }
	every(func(method, path, body string) {
		key := id
		switch {
		case strings.HasSuffix(path, "/revoke"):
			key = other // revoked last, whatever the order: the others use id
		case strings.HasSuffix(path, "block"):
			key = shut
		}
		c.do(method, with(path, key), body, good...)
		c.do(method, with(path, key), body)
		c.do(method, with(path, key)+"?surprise=1", body, good...)
		if strings.Contains(path, "{id}") {
			c.do(method, with(path, unknownID), body, good...)
			c.do(method, with(path, gone), body, good...)
		}
		if body != "" {
			c.do(method, with(path, key), strings.Repeat(" ", maxAdminBody)+body, good...)
			c.do(method, with(path, key), body, append([]string{"Content-Type", "text/plain"}, good...)...)
		}
		for _, wrong := range []string{"PUT", "DELETE", "OPTIONS", "HEAD"} {
			if member(c.document, "paths", path, strings.ToLower(wrong)) != nil {
				continue
			}
			if w := c.do(wrong, with(path, key), "", good...); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", wrong, path, w.Code)
			}
		}
	})
	// A tariff that is new, that is not, that has a key, and that is gone.
	for range 2 {
		c.do("PUT", adminTariffs+"/firm", `{"limit":7}`, good...)
	}
	c.do("PATCH", adminKeys+"/"+id, `{"tariff":"firm","models":null,"expires_at":null,"budget":"2","name":"n"}`, good...)
	c.do("GET", adminKeys+"/"+id, "", good...)
	c.do("DELETE", adminTariffs+"/firm", "", good...)
	c.do("PATCH", adminKeys+"/"+id, `{"tariff":null}`, good...)
	c.do("PUT", adminTariffs+"/none", `{"limit":7}`, good...)
	c.do("POST", adminKeys, `{"tariff":"gold"}`, good...)
	for range 2 {
		c.do("DELETE", adminTariffs+"/firm", "", good...)
	}
	c.do("POST", adminKeys, `{"limit":5,"expires_at":"2020-01-01T00:00:00Z"}`, good...)
	c.do("POST", adminPrices, `{"prices":[{"model":"m","valid_from":"2020-01-01T00:00:00Z","input":"1"}]}`, good...)
	c.do("POST", adminPrices, `{"prices":[{"model":"m","input":"1","cached_read":"0.5"},{"model":"n*","output":"0"}]}`, good...)
	c.do("GET", adminPrices+"?all=true", "", good...)
	for _, query := range []string{"", "by=day", "by=key,model", "format=csv", "from=2026-11-01&to=2026-11-30&key=" + other, "from=2026-01-02&to=2026-01-01", "key=" + unknownID} {
		c.do("GET", "/admin/usage?"+query, "", good...)
	}
	for _, query := range []string{"limit=1", "state=revoked", "state=expired", "state=blocked", "after=" + url.QueryEscape(id)} {
		c.do("GET", adminKeys+"?"+query, "", good...)
	}
	for _, query := range []string{"limit=1", "subject=" + id, "subject=firm", "from=2026-11-01&to=2026-11-30", "from=2026-11-25", "after=x"} {
		c.do("GET", adminChanges+"?"+query, "", good...)
	}
	a.failures.SetLimit(0)
	a.failures.SetBurst(0)
	every(func(method, path, body string) { c.do(method, with(path, id), body) })
	if err := o.books.Close(); err != nil {
		t.Fatal(err)
	}
	every(func(method, path, body string) { c.do(method, with(path, id), body, good...) })
	c.complete(func(string, string) bool { return false })
}

// spend lets a key use tokens, so that rows of usage are seen too.
func (c *contract) spend(o *operator, keyID string) {
	c.t.Helper()
	book, err := billing.Open(c.t.Context(), o.options)
	if err != nil {
		c.t.Fatal(err)
	}
	h, err := book.Reserve(c.t.Context(), billing.HoldRequest{KeyID: keyID, Model: "m", PromptBound: 2, Ceiling: 3, Choices: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := book.Settle(c.t.Context(), h.ID, billing.Outcome{Prompt: 2, Completion: 1, Provenance: billing.Reported}); err != nil {
		c.t.Fatal(err)
	}
	if err := book.Close(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}
