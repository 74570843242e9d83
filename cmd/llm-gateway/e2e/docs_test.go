//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// operations counts what the gateway's document describes.
func operations(t *testing.T, g *gateway) int {
	t.Helper()
	r := g.client(false).Do(g.context(), rig.Request{Method: "GET", Path: "/openapi.json"})
	var document struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(r.Body, &document); r.Status != 200 || err != nil || !strings.HasPrefix(document.OpenAPI, "3.1") {
		t.Fatalf("/openapi.json: %d %v %q", r.Status, err, document.OpenAPI)
	}
	n := 0
	for _, methods := range document.Paths {
		for method := range methods {
			switch strings.ToUpper(method) {
			case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
				n++
			}
		}
	}
	return n
}

// TestDocs_swagger reads /docs in a browser and tries a route out with a key.
func TestDocs_swagger(t *testing.T) {
	g := start(t, setup{demo: true})
	key, b := g.key().Key, openBrowser(t)
	b.do("/docs", chromedp.Navigate(g.url+"/docs"))
	b.until("all operations", fmt.Sprintf(`document.querySelectorAll(".opblock").length === %d`, operations(t, g)))
	b.picture("docs")

	b.do("the key is pasted",
		chromedp.Click(chromedp.CSS(".scheme-container .btn.authorize")),
		chromedp.WaitVisible(chromedp.CSS(".auth-container input")),
		chromedp.SendKeys(chromedp.CSS(".auth-container input"), key),
		chromedp.Click(chromedp.CSS(".auth-btn-wrapper .authorize")),
		chromedp.WaitVisible(chromedp.CSS(".auth-btn-wrapper .btn-done")),
		chromedp.Click(chromedp.CSS(".auth-btn-wrapper .btn-done")),
	)
	evaluate[bool](b, `(document.querySelector('[data-path="/limits"]').closest(".opblock").querySelector(".opblock-summary-control").click(), true)`)
	b.do("GET /limits is asked",
		chromedp.WaitVisible(chromedp.CSS(".opblock.is-open .btn.execute")),
		chromedp.Click(chromedp.CSS(".opblock.is-open .btn.execute")),
		chromedp.WaitVisible(chromedp.CSS(".live-responses-table .response-col_status")),
	)
	b.until("200", `document.querySelector(".live-responses-table tbody .response-col_status").innerText.trim().startsWith("200")`)
	if text := evaluate[string](b, `document.querySelector(".live-responses-table tbody").innerText`); !strings.Contains(text, `"daily"`) {
		t.Errorf("the page shows %q", text)
	}
	b.picture("docs-tried")

	if kept := evaluate[string](b, `JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])`); strings.Contains(kept, key) {
		t.Errorf("the key stays in the browser: %s", kept)
	}
	b.do("the page again", chromedp.Reload())
	b.until("the key is gone", `!!document.querySelector(".scheme-container .btn.authorize.unlocked")`)
	b.onlyFrom(g.url)
}

// TestDocs_redoc reads /redoc in a browser and searches in it.
func TestDocs_redoc(t *testing.T) {
	g := start(t, setup{demo: true})
	b := openBrowser(t)
	b.do("/redoc", chromedp.Navigate(g.url+"/redoc"))
	b.until("all operations", fmt.Sprintf(`new Set(Array.from(document.querySelectorAll('[data-section-id*="operation/"]'), (e) => e.dataset.sectionId.split("operation/")[1])).size === %d`, operations(t, g)))
	evaluate[bool](b, `(Array.from(document.querySelectorAll('[data-section-id^="operation/"]')).find((e) => e.innerText.includes("/v1/chat/completions")).scrollIntoView(), true)`)
	b.until("the menu follows", `document.querySelector('[role="menuitem"].active') !== null || document.querySelector("li .active") !== null`)
	b.picture("redoc")
	b.do("a search", chromedp.SendKeys(chromedp.CSS("input.search-input"), "limit"))
	b.until("something is found", `document.querySelectorAll('[data-role="search:results"] li').length > 0`)
	if evaluate[int](b, `document.querySelectorAll('img[src^="http"]').length`) != 0 {
		t.Error("there is an image from elsewhere")
	}
	b.onlyFrom(g.url)
}

// TestDocs_off: nobody can read about routes that the operator keeps quiet.
func TestDocs_off(t *testing.T) {
	g := start(t, setup{demo: true, env: []string{"LLMGW_DOCS__ENABLED=false"}})
	for _, path := range []string{"/docs", "/redoc", "/openapi.json", "/docs/init.js"} {
		r := g.client(false).Do(g.context(), rig.Request{Method: "GET", Path: path})
		wantProblem(t, path, r, 404, "not_found")
	}
}
