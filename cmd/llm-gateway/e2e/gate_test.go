//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// credential is a way to come without a valid key, and what the contract
// answers.
type credential struct {
	name   string
	values []string // Authorization header values
	status int
	code   string
}

// badCredentials needs a revoked and an expired key of the gateway.
func badCredentials(valid, revoked, expired string) []credential {
	last := byte('0')
	if valid[len(valid)-1] == last {
		last = '1'
	}
	return []credential{
		{"none", nil, 401, "missing_api_key"},
		{"empty", []string{""}, 401, "missing_api_key"},
		{"no value", []string{"Bearer "}, 401, "missing_api_key"},
		{"other scheme", []string{"Basic " + valid}, 401, "missing_api_key"},
		{"no scheme", []string{valid}, 401, "missing_api_key"},
		{"unknown", []string{"Bearer sk-unknown-0123456789abcdef"}, 403, "invalid_api_key"},
		{"wrong checksum", []string{"Bearer " + valid[:len(valid)-1] + string(last)}, 403, "invalid_api_key"},
		{"cut", []string{"Bearer " + valid[:len(valid)-1]}, 403, "invalid_api_key"},
		{"longer", []string{"Bearer " + valid + "a"}, 403, "invalid_api_key"},
		{"other case", []string{"Bearer " + strings.ToUpper(valid)}, 403, "invalid_api_key"},
		{"revoked", []string{"Bearer " + revoked}, 403, "invalid_api_key"},
		{"expired", []string{"Bearer " + expired}, 403, "invalid_api_key"},
		{"huge", []string{"Bearer " + strings.Repeat("k", 5000)}, 403, "invalid_api_key"},
		{"junk behind", []string{"Bearer " + valid + " x"}, 400, ""},
		{"comma joined", []string{"Bearer " + valid + ", Bearer " + valid}, 400, ""},
		{"comma", []string{"Bearer " + valid + ",x"}, 400, ""},
		{"two headers", []string{"Bearer " + valid, "Bearer " + valid}, 400, ""},
		{"two different", []string{"Basic eDp5", "Bearer " + valid}, 400, ""},
	}
}

// spellings of paths that a careless gateway and its upstream read
// differently. What is known is only reached through normalization.
func spellings() []string {
	return []string{
		"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/gpt-4o", "/v1/models?x=1",
		"//v1/chat/completions", "/v1//chat/completions", "/v1/chat//completions", "///v1/models", "/v1/chat/completions/",
		"/v1/models/", "/v1/./models", "/v1/../v1/models", "/x/../v1/models", "/health/../v1/models", "/v1/models/..",
		"/v1/chat%2fcompletions", "/v1/chat%2Fcompletions", "/v1%2fmodels", "/%2e%2e/v1/models", "/v1/%2e/models",
		"/v1/%6dodels", "/%76%31/models", "/v1/models;x", "/v1;x/models", "/;/v1/models", "/V1/models", "/v1/Models",
		"/v1/CHAT/COMPLETIONS", "/v1\\models", "/v1/models%00", "/v1/models%20", "/v1/models%252f", "/v1/models#x",
		"/v1/images/generations", "/v1/files", "/v1/audio/speech", "/v1/responses", "/v1/unknown", "/v1/", "/v1", "/v2/models",
		"/", "/admin", "/health/x", "/health;x",
	}
}

// deadKeys makes one revoked and one expired key.
func (g *gateway) deadKeys() (revoked, expired string) {
	g.t.Helper()
	r := g.key("--name", "revoked")
	if err := g.cli.RevokeKey(r.ID); err != nil {
		g.t.Fatal(err)
	}
	e, err := g.cli.CreateKey(plenty, "--expires", "1s")
	if err != nil {
		g.t.Fatal(err)
	}
	c := g.client(false)
	for _, k := range []string{r.Key, e.Key} {
		g.eventually("a dead key to be refused", func() bool {
			return c.Do(g.context(), rig.Request{Key: k, Body: []byte("{")}).Status == 403
		})
	}
	return r.Key, e.Key
}

func TestNobodyComesInWithoutAKey(t *testing.T) {
	g := start(t, setup{})
	valid := g.key().Key
	revoked, expired := g.deadKeys()
	chat := rig.Chat{Model: "intruder"}.Body()
	var refusal string // the one body for all keys that do not open
	for _, h2c := range []bool{false, true} {
		client := g.client(h2c)
		for _, c := range badCredentials(valid, revoked, expired) {
			header := http.Header{"Authorization": c.values, "X-Llmgw-Admit": {"1"}, "X-Llmgw-Key-Id": {"key_x"}, "Llmgw.admit": {"1"}}
			if c.values == nil {
				delete(header, "Authorization")
			}
			name := fmt.Sprintf("%s h2c=%v", c.name, h2c)
			r := client.Do(g.context(), rig.Request{Header: header, Body: chat})
			if c.code != "" {
				wantProblem(t, name, r, c.status, c.code)
			} else if p, ok := r.Problem(); r.Status != c.status || !ok {
				t.Errorf("%s: %d %+v", name, r.Status, p)
			}
			if challenge := r.Header.Get("WWW-Authenticate"); c.status == 401 && !strings.HasPrefix(challenge, "Bearer") {
				t.Errorf("%s: WWW-Authenticate %q", name, challenge)
			}
			if c.status == 403 {
				if refusal == "" {
					refusal = string(r.Body)
				}
				if string(r.Body) != refusal {
					t.Errorf("%s: another body than for other bad keys:\n%s\n%s", name, r.Body, refusal)
				}
			}
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"} {
				for _, path := range []string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/files"} {
					in := rig.Request{Method: method, Path: path, Header: header}
					if method == "POST" || method == "PUT" || method == "PATCH" {
						in.Body = chat
					}
					r := client.Do(g.context(), in)
					preflight := method == "OPTIONS" && r.Status/100 == 2
					if r.Status < 400 && !preflight && r.Status != 0 {
						t.Errorf("%s %s %s: status %d", name, method, path, r.Status)
					}
				}
			}
		}
	}
	if n := g.up.Hits(); n != 0 {
		t.Errorf("%d requests without a valid key reached the upstream: %+v", n, g.up.Records()[0])
	}
	if report := g.balanced(); report.Charges != 0 {
		t.Errorf("%d charges for refused requests", report.Charges)
	}
}

func TestNoSpellingOfAPathOpens(t *testing.T) {
	g := start(t, setup{})
	valid := g.key().Key
	body := rig.Chat{Model: "intruder", MaxTokens: 10}.Body()
	send := func(proto, method, path, auth string) rig.Wire {
		t.Helper()
		var w rig.Wire
		var err error
		if proto == "h1" {
			head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: gw\r\nx-llmgw-admit: 1\r\nContent-Type: application/json\r\nConnection: close\r\n", method, path)
			if auth != "" {
				head += "Authorization: " + auth + "\r\n"
			}
			if method == "POST" {
				head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
			} else {
				head += "\r\n"
			}
			w, err = rig.SendH1(g.addr, []byte(head), 10*time.Second)
		} else {
			fields := []hpack.HeaderField{
				{Name: ":method", Value: method},
				{Name: ":scheme", Value: "http"},
				{Name: ":authority", Value: "gw"},
				{Name: ":path", Value: path},
				{Name: "x-llmgw-admit", Value: "1"},
			}
			if auth != "" {
				fields = append(fields, hpack.HeaderField{Name: "authorization", Value: auth})
			}
			b := body
			if method != "POST" {
				b = nil
			}
			w, err = rig.SendH2(g.addr, fields, b, 10*time.Second)
		}
		if err != nil {
			t.Errorf("%s %s %s: %v", proto, method, path, err)
		}
		return w
	}
	public := map[string]bool{"/": true}
	for _, proto := range []string{"h1", "h2"} {
		paths := spellings()
		if proto == "h1" {
			paths = append(paths, "http://gw/v1/models", "http://127.0.0.1:1/v1/chat/completions", "v1/models", "*")
		}
		for _, method := range []string{"GET", "POST"} {
			for _, path := range paths {
				for _, auth := range []string{"", "Bearer sk-unknown-0123456789abcdef"} {
					if w := send(proto, method, path, auth); w.Status != 0 && w.Status < 400 && !public[path] {
						t.Errorf("%s %s %s with %q: status %d %q", proto, method, path, auth, w.Status, w.Body)
					}
				}
				if n := g.up.Hits(); n != 0 {
					t.Fatalf("%s %s %s reached the upstream: %+v", proto, method, path, g.up.Records()[0])
				}
			}
		}
	}
	w, err := rig.SendH1(g.addr, []byte("CONNECT "+g.up.Addr()+" HTTP/1.1\r\nHost: "+g.up.Addr()+"\r\nAuthorization: Bearer "+valid+"\r\n\r\n"), 3*time.Second)
	if w.Status/100 == 2 || g.up.Hits() != 0 {
		t.Errorf("CONNECT: %d %v", w.Status, err)
	}
	// With a valid key a spelling is either one of the known paths by the time
	// it is judged, or it ends here.
	known := map[string]bool{"/v1/chat/completions": true, "/v1/completions": true, "/v1/embeddings": true, "/v1/models": true}
	for _, path := range spellings() {
		for _, method := range []string{"GET", "POST"} {
			before := g.up.Hits()
			w := send("h1", method, path, "Bearer "+valid)
			records := g.up.Records()[before:]
			if len(records) == 0 && w.Status/100 == 2 && !public[path] {
				t.Errorf("%s %s: status %d without the upstream", method, path, w.Status)
			}
			for _, r := range records {
				if p, _, _ := strings.Cut(r.Path, "?"); !known[p] || w.Status != 200 {
					t.Errorf("%s %s reached the upstream as %s %s (status %d)", method, path, r.Method, r.Path, w.Status)
				}
			}
		}
	}
}

func TestWrongMethodsAndPathsWithAKey(t *testing.T) {
	g := start(t, setup{})
	key := g.key().Key
	client := g.client(false)
	allow := map[string]string{"/v1/chat/completions": "POST", "/v1/completions": "POST", "/v1/embeddings": "POST", "/v1/models": "GET"}
	for path, right := range allow {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
			if method == right {
				continue
			}
			in := rig.Request{Method: method, Path: path, Key: key}
			if method != "GET" && method != "DELETE" {
				in.Body = []byte("{}")
			}
			r := client.Do(g.context(), in)
			if _, ok := r.Problem(); r.Status != 405 || !ok || !strings.Contains(r.Header.Get("Allow"), right) {
				t.Errorf("%s %s: %d, Allow %q, %q", method, path, r.Status, r.Header.Get("Allow"), r.Body)
			}
		}
	}
	for _, path := range []string{"/v1/files", "/v1/unknown", "/nowhere"} {
		if r := client.Do(g.context(), rig.Request{Method: "GET", Path: path, Key: key}); r.Status != 404 {
			t.Errorf("%s: %d", path, r.Status)
		} else if _, ok := r.Problem(); !ok {
			t.Errorf("%s: body %q", path, r.Body)
		}
	}
	if n := g.up.Hits(); n != 0 {
		t.Errorf("%d upstream hits", n)
	}
}

// TestKeyChangesArriveWithinASecond changes keys beside the running gateway.
func TestKeyChangesArriveWithinASecond(t *testing.T) {
	g := start(t, setup{})
	client := g.client(false)
	ask := func(key string) int {
		r := client.Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 10, Script: rig.Script{Prompt: 5, Completion: 10}}.Body()})
		return r.Status
	}
	within := func(what string, status int, key string) {
		t.Helper()
		g.within(time.Second, what, func() bool { return ask(key) == status })
	}
	k := g.key()
	if s := ask(k.Key); s != 200 {
		t.Fatalf("a good key: %d", s)
	}
	change := func(flags ...string) {
		t.Helper()
		if err := g.cli.SetLimit(k.Key, flags...); err != nil {
			t.Fatal(err)
		}
	}
	change("--daily", "1")
	within("the smaller limit", 429, k.Key)
	change("--daily", "1000000")
	within("the larger limit", 200, k.Key)
	if err := g.cli.RevokeKey(k.ID); err != nil {
		t.Fatal(err)
	}
	within("the revocation", 403, k.Key)

	begin := time.Now()
	e, err := g.cli.CreateKey(plenty, "--expires", "3s")
	if err != nil {
		t.Fatal(err)
	}
	within("the new key", 200, e.Key)
	time.Sleep(time.Until(begin.Add(3 * time.Second)))
	within("the expiry", 403, e.Key)
	g.balanced()
}
