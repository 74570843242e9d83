//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// browser is a tab of a headless Chromium that remembers what the page asked
// for and what was wrong with it.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu         sync.Mutex
	requests   []string // addresses
	complaints []string // errors and warnings in the console, violations of a policy among them
}

// openBrowser starts a Chromium. Without one the test fails: what a browser
// does with our answers is what is tested.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); path == "" && err == nil {
			path = found
		}
	}
	if path == "" {
		t.Fatal("there is no Chromium: run make test-tools, or install it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // the tests may run as root
		chromedp.WindowSize(1280, 900),
		// A name that is looked up all the same goes nowhere.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
	)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, string(e.Entry.Level)+": "+e.Entry.Text+" "+e.Entry.URL)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			text, _ := json.Marshal(e.Args)
			b.complaints = append(b.complaints, string(e.Type)+": "+string(text))
		}
	case *runtime.EventExceptionThrown:
		text, _ := json.Marshal(e.ExceptionDetails)
		b.complaints = append(b.complaints, "exception: "+string(text))
	}
}

// do runs steps; what fails shows the page.
func (b *browser) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.giveUp(what, err)
	}
}

// until waits for an expression to be true in the page.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression)); err != nil {
		b.giveUp(what, err)
	}
}

func (b *browser) giveUp(what string, err error) {
	b.t.Helper()
	text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText.slice(0, 2000)`))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("%s: %v\nThe console: %q\nThe page:\n%s", what, err, b.complaints, text)
}

// evaluate runs a script in the page and waits for its promise.
func evaluate[T any](b *browser, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.giveUp(script, err)
	}
	return v
}

// onlyFrom fails for every request to another place, and for every complaint.
func (b *browser) onlyFrom(url string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	own := 0
	for _, r := range b.requests {
		switch {
		case strings.HasPrefix(r, url+"/"):
			own++
		case strings.HasPrefix(r, "data:"), strings.HasPrefix(r, "blob:"+url+"/"):
		default:
			b.t.Errorf("the page asked for %s", r)
		}
	}
	if own < 5 {
		b.t.Errorf("only %d requests were seen: %q", own, b.requests)
	}
	slices.Sort(b.complaints)
	for _, c := range slices.Compact(b.complaints) {
		b.t.Errorf("the console says: %s", c)
	}
}

// picture writes the tab as it is to a folder that the tester names, for the
// documentation and to look at.
func (b *browser) picture(name string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.giveUp("a picture", err)
	}
	if len(png) < 5000 {
		b.t.Errorf("the picture of %s has %d bytes: nothing is on it", name, len(png))
	}
	folder := os.Getenv("LLMGW_TEST_PICTURES")
	if folder == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// fetched is what a script got to see of an answer.
type fetched struct {
	Status    int    `json:"status"` // 0 = nothing: the browser let it have none
	Remaining string `json:"remaining"`
	ID        string `json:"id"`
	Challenge string `json:"challenge"`
	Body      string `json:"body"`
}

// fetch lets the script of the open page ask as OpenAI's client does.
func (b *browser) fetch(method, url, key, body string) fetched {
	b.t.Helper()
	arguments, _ := json.Marshal([]string{method, url, key, body})
	return evaluate[fetched](b, `(async ([method, url, key, body]) => {
		const headers = {"content-type": "application/json", "x-stainless-lang": "js", "x-stainless-retry-count": "0"};
		if (key) headers["authorization"] = "Bearer " + key;
		try {
			const r = await fetch(url, {method, headers, body: body || undefined});
			const h = (name) => r.headers.get(name) ?? "";
			return {status: r.status, remaining: h("x-ratelimit-remaining-requests"), id: h("x-request-id"),
				challenge: h("www-authenticate"), body: await r.text()};
		} catch (e) {
			return {status: 0, remaining: "", id: "", challenge: "", body: String(e)};
		}
	})(`+string(arguments)+`)`)
}

// site is somebody's web page, of an origin of its own.
func site(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<!DOCTYPE html><title>a page</title><link rel="icon" href="data:,"><p>a page`))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestCORS_inABrowser asks from pages of other origins in a real browser.
func TestCORS_inABrowser(t *testing.T) {
	ours, theirs := site(t), site(t)
	b := openBrowser(t)
	for origins, pages := range map[string]map[string]bool{
		"*":             {ours: true, theirs: true},
		ours:            {ours: true, theirs: false},
		"http://a.test": {ours: false},
	} {
		g := start(t, setup{env: []string{"LLMGW_CORS__ORIGINS=" + origins}})
		for page, mayRead := range pages {
			k, err := g.cli.CreateKey(plenty, "--rpm", "5")
			if err != nil {
				t.Fatal(err)
			}
			g.accepted(k)
			name := page + " with " + origins
			b.do(name, chromedp.Navigate(page))
			script := rig.Script{ID: page, Prompt: 3, Completion: 2}
			chat := string(rig.Chat{Model: "web", MaxTokens: 5, Script: script}.Body())
			stream := string(rig.Chat{Model: "web", MaxTokens: 5, Stream: true, Script: script}.Body())
			for _, c := range []struct {
				name, method, path, key, body string
				status                        int
				holds                         string
			}{
				{"an answer", "POST", "/v1/chat/completions", k.Key, chat, 200, `"object":"chat.completion"`},
				{"a stream", "POST", "/v1/chat/completions", k.Key, stream, 200, "data: [DONE]"},
				{"an info route", "GET", "/rate-limit", k.Key, "", 200, `"current_count":2`},
				{"no key", "POST", "/v1/chat/completions", "", chat, 401, "missing_api_key"},
				{"a bad key", "POST", "/v1/chat/completions", "sk-none", chat, 403, "invalid_api_key"},
				{"an unknown path", "GET", "/nothing", k.Key, "", 404, "not_found"},
				{"a foreign method", "DELETE", "/v1/chat/completions", k.Key, "", 0, ""}, // the preflight says no
			} {
				got := b.fetch(c.method, g.url+c.path, c.key, c.body)
				if !mayRead {
					if got.Status != 0 || !strings.Contains(got.Body, "Failed to fetch") {
						t.Errorf("%s: %s: the page could read %+v", name, c.name, got)
					}
					continue
				}
				if got.Status != c.status || !strings.Contains(got.Body, c.holds) || c.status != 0 && got.ID == "" {
					t.Errorf("%s: %s: %+v, want %d with %q", name, c.name, got, c.status, c.holds)
				}
				if want := map[string]string{"an answer": "4", "a stream": "3"}[c.name]; got.Remaining != want {
					t.Errorf("%s: %s: %q requests remain, want %q", name, c.name, got.Remaining, want)
				}
				if (got.Challenge != "") != (c.status == 401 || c.status == 403) {
					t.Errorf("%s: %s: www-authenticate %q", name, c.name, got.Challenge)
				}
			}
			if hits := len(g.up.ByID(page)); hits != map[bool]int{true: 2}[mayRead] {
				t.Errorf("%s: %d requests at the model server", name, hits)
			}
		}
		g.balanced()
	}
}
