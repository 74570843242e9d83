package extproc

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/billing"
)

func TestExchange_refusals(t *testing.T) {
	headers := func(more ...string) *extprocv3.ProcessingRequest { return requestHeadersMsg(false, more...) }
	auth := []string{"authorization", "Bearer " + goodSecret}
	at := func(method, path string, more ...string) *extprocv3.ProcessingRequest {
		return headers(append([]string{":method", method, ":path", path}, more...)...)
	}
	const chat = "/v1/chat/completions"
	for _, c := range []struct {
		name    string
		message *extprocv3.ProcessingRequest
		body    string
		status  int32
		code    string
		header  [2]string
	}{
		{"no key", at("POST", chat), "", 401, "missing_api_key", [2]string{"www-authenticate", `Bearer realm="llm-gateway"`}},
		{"empty key", at("POST", chat, "authorization", "Bearer "), "", 401, "missing_api_key", [2]string{}},
		{"basic", at("POST", chat, "authorization", "Basic abc"), "", 401, "missing_api_key", [2]string{}},
		{"wrong key", at("POST", chat, "authorization", "Bearer sk-no"), "", 403, "invalid_api_key", [2]string{}},
		{"two keys", at("POST", chat, "authorization", "Bearer "+goodSecret, "authorization", "Bearer x"), "", 400, "malformed_authorization", [2]string{}},
		{"two keys joined", at("POST", chat, "authorization", "Bearer "+goodSecret+",Bearer x"), "", 400, "malformed_authorization", [2]string{}},
		{"two schemes joined", at("POST", chat, "authorization", "Basic eDp5,Bearer "+goodSecret), "", 400, "malformed_authorization", [2]string{}},
		{"digest", at("POST", chat, "authorization", `Digest username="a", realm="b"`), "", 401, "missing_api_key", [2]string{}},
		{"junk behind the key", at("POST", chat, "authorization", "Bearer "+goodSecret+" x"), "", 400, "malformed_authorization", [2]string{}},
		{"unknown path", at("POST", "/v1/responses", auth...), "", 404, "not_found", [2]string{}},
		{"trailing slash", at("POST", chat+"/", auth...), "", 404, "not_found", [2]string{}},
		{"other case", at("POST", "/v1/Chat/completions", auth...), "", 404, "not_found", [2]string{}},
		{"method", at("GET", chat, auth...), "", 405, "method_not_allowed", [2]string{"allow", "POST"}},
		{"options", at("OPTIONS", chat), "", 405, "method_not_allowed", [2]string{"allow", "POST"}},
		{"compressed body", at("POST", chat, append(auth, "content-encoding", "gzip")...), "", 415, "unsupported_content_encoding", [2]string{}},
		{"announced too large", at("POST", chat, append(auth, "content-length", "1048577")...), "", 413, "request_too_large", [2]string{}},
		{"too large", at("POST", chat, auth...), strings.Repeat(" ", 1<<20+1), 413, "request_too_large", [2]string{}},
		{"no body", requestHeadersMsg(true, ":method", "POST", ":path", chat, "authorization", "Bearer "+goodSecret), "", 400, "invalid_json", [2]string{}},
		{"bad body", at("POST", chat, auth...), `{"model":1}`, 400, "invalid_value", [2]string{}},
		{"model not of this key", at("POST", chat, "authorization", "bearer sk-models"), chatBody, 403, "model_not_allowed", [2]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			talk := r.begin()
			a := talk.say(c.message)
			if c.body != "" {
				a = talk.say(requestBodyMsg(c.body))
			}
			talk.end()
			checkRefusal(t, a, c.status, c.code)
			got := setHeaders(a.GetImmediateResponse().GetHeaders().GetSetHeaders())
			if c.header[0] != "" && got[c.header[0]] != c.header[1] {
				t.Errorf("%s: %q, want %q", c.header[0], got[c.header[0]], c.header[1])
			}
			if len(r.limits.taken) != r.limits.returned || len(r.books.requests) > 0 {
				t.Errorf("a refused request took something: %v %v", r.limits.taken, r.books.requests)
			}
		})
	}
}

func checkRefusal(t *testing.T, a reply, status int32, code string) {
	t.Helper()
	i := a.GetImmediateResponse()
	if i == nil || admitted(a) {
		t.Fatalf("not refused: %v", a)
	}
	var body struct {
		Error struct {
			Message, Type, Code *string
			Param               any
		}
		Detail string
	}
	if err := json.Unmarshal(i.GetBody(), &body); err != nil {
		t.Fatalf("body: %v", err)
	}
	if int32(i.GetStatus().GetCode()) != status || body.Error.Code == nil || *body.Error.Code != code {
		t.Errorf("got %d %s, want %d %s", i.GetStatus().GetCode(), i.GetBody(), status, code)
	}
	if body.Error.Message == nil || *body.Error.Message != body.Detail || body.Detail == "" || body.Error.Type == nil {
		t.Errorf("body %s", i.GetBody())
	}
	if i.GetDetails() != "llmgw_"+code {
		t.Errorf("details %q", i.GetDetails())
	}
}

func TestExchange_strictestLimitAnswers(t *testing.T) {
	budget := &billing.BudgetError{Budget: "daily", Limit: 100, Used: 90, Needed: 50, ResetIn: 90*time.Minute + time.Millisecond}
	for _, c := range []struct {
		name   string
		set    func(*rig)
		code   string
		expect map[string]string
	}{
		{"window", func(r *rig) { r.limits.denied, r.limits.retryIn = true, 1500*time.Millisecond }, "rate_limit_exceeded", map[string]string{"retry-after": "2", "retry-after-ms": "1500", "x-should-retry": "", "x-ratelimit-remaining": "0"}},
		{"budget", func(r *rig) { r.books.reserveErr = budget }, "insufficient_quota", map[string]string{"retry-after": "5401", "x-should-retry": "false", "x-ratelimit-limit": "30"}},
		{"both, budget waits longer", func(r *rig) { r.limits.denied, r.limits.retryIn, r.books.budget = true, time.Second, budget }, "insufficient_quota", map[string]string{"retry-after": "5401", "x-should-retry": "false"}},
		{"both, window waits longer", func(r *rig) { r.limits.denied, r.limits.retryIn, r.books.budget = true, 2*time.Hour, budget }, "rate_limit_exceeded", map[string]string{"retry-after": "7200"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			c.set(r)
			talk := r.begin()
			talk.say(post("/v1/chat/completions"))
			a := talk.say(requestBodyMsg(chatBody))
			checkRefusal(t, a, 429, c.code)
			got := setHeaders(a.GetImmediateResponse().GetHeaders().GetSetHeaders())
			for name, want := range c.expect {
				if got[name] != want {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
			if len(r.limits.taken) != r.limits.returned {
				t.Error("the window keeps a place that a budget refused")
			}
		})
	}
}

// The list of codes is what the sources write.
func TestErrorCodes_areAll(t *testing.T) {
	written := map[string]bool{codeMalformedCredential: true}
	code := regexp.MustCompile(`(?:badRequest\(|code: )"([a-z_]+)"`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range code.FindAllStringSubmatch(string(text), -1) {
			written[found[1]] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(written)), slices.Sorted(slices.Values(ErrorCodes()))); diff != "" {
		t.Errorf("written (-), listed (+):\n%s", diff)
	}
}
