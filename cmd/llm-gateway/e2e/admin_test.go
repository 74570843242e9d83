//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const adminToken = "e2e-0123456789abcdef0123456789abcdef"

// operator is the admin API of a running gateway.
type operator struct {
	*gateway
	base string
}

// startAdmin runs `up` with an admin API.
func startAdmin(t *testing.T, s setup) *operator {
	t.Helper()
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "LLMGW_ADMIN__TOKEN="+adminToken, "LLMGW_ADMIN__LISTEN="+addr)
	return &operator{gateway: start(t, s), base: "http://" + addr}
}

func (o *operator) send(method, path, body, token string) (int, string) {
	o.t.Helper()
	r, err := http.NewRequestWithContext(o.context(), method, o.base+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// want sends with the token and reads the document of the answer.
func (o *operator) want(status int, method, path, body string) map[string]any {
	o.t.Helper()
	code, text := o.send(method, path, body, adminToken)
	var document map[string]any
	if err := json.Unmarshal([]byte(text), &document); err != nil || code != status {
		o.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, code, text, status)
	}
	return document
}

// command runs a command with --json on the same books.
func (g *gateway) command(args ...string) map[string]any {
	g.t.Helper()
	r, err := g.cli.Run(append(args, "--json")...)
	var document map[string]any
	if err != nil || r.Code != 0 || json.Unmarshal([]byte(r.Stdout), &document) != nil {
		g.t.Fatalf("%v: %v %d %s%s", args, err, r.Code, r.Stdout, r.Stderr)
	}
	return document
}

// TestAdminAPI makes, changes, replaces and revokes keys by HTTP. Each change
// is in force when it is answered: nothing here waits.
func TestAdminAPI(t *testing.T) {
	o := startAdmin(t, setup{})
	client := o.client(false)
	ask := func(what, key string, status int) {
		t.Helper()
		r := client.Do(o.context(), rig.Request{Key: key, Body: rig.Chat{Model: "m", MaxTokens: 10, Script: rig.Script{Prompt: 5, Completion: 10}}.Body()})
		if r.Status != status {
			t.Errorf("%s: %d %s, want %d", what, r.Status, r.Body, status)
		}
	}
	made := o.want(201, "POST", "/admin/keys", `{"limit":1000000,"name":"Team A"}`)
	id, key := fmt.Sprint(made["id"]), fmt.Sprint(made["key"])
	ask("a new key", key, 200)
	o.want(200, "PATCH", "/admin/keys/"+id, `{"daily":1}`)
	ask("a smaller limit", key, 429)
	o.want(200, "PATCH", "/admin/keys/"+id, `{"daily":1000000}`)
	ask("a larger limit", key, 200)
	rotated := o.want(201, "POST", "/admin/keys/"+id+"/rotate", `{"overlap":"1h"}`)
	fresh := fmt.Sprint(rotated["key"])
	ask("the replacement", fresh, 200)
	ask("the old key meanwhile", key, 200)
	o.want(200, "POST", "/admin/keys/"+id+"/revoke", "")
	ask("a revoked key", key, 403)
	ask("the replacement afterwards", fresh, 200)
	o.balanced()

	for path, args := range map[string][]string{
		"/admin/keys/" + id:            {"show-key", "--key", id},
		"/admin/stats":                 {"stats"},
		"/admin/audit":                 {"audit"},
		"/admin/usage":                 {"usage"},
		"/admin/usage?by=key":          {"usage", "--by", "key"},
		"/admin/usage?key=" + id:       {"usage", "--key", id},
		"/admin/usage?from=2000-01-01": {"usage", "--from", "2000-01-01"},
	} {
		if byHTTP, byCommand := o.want(200, "GET", path, ""), o.command(args...); !reflect.DeepEqual(byHTTP, byCommand) {
			t.Errorf("%s: %v\n%v: %v", path, byHTTP, args, byCommand)
		}
	}
	csv, err := o.cli.Run("usage", "--csv")
	if _, text := o.send("GET", "/admin/usage?format=csv", "", adminToken); err != nil || text != csv.Stdout || !strings.Contains(text, id) {
		t.Errorf("CSV by HTTP:\n%s\nby command:\n%s", text, csv.Stdout)
	}
	if page := o.want(200, "GET", "/admin/keys", ""); len(page["keys"].([]any)) != len(o.command("list-keys")["keys"].([]any)) {
		t.Errorf("keys: %v", page)
	}

	for name, token := range map[string]string{"no token": "", "a wrong one": adminToken + "x", "a client's key": fresh} {
		if code, text := o.send("GET", "/admin/keys", "", token); code != 401 {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	for _, path := range []string{"/admin/keys", "/admin/openapi.json", "/admin", "/admin/keys?x=1"} {
		for name, credential := range map[string]string{"the token": adminToken, "a key": fresh} {
			if r := client.Do(o.context(), rig.Request{Method: "GET", Path: path, Key: credential}); r.Status != 404 && r.Status != 401 && r.Status != 403 {
				t.Errorf("%s on the public listener with %s: %d %s", path, name, r.Status, r.Body)
			}
		}
	}
	if r := client.Do(o.context(), rig.Request{Method: "GET", Path: "/admin/keys", Key: fresh}); r.Status != 404 {
		t.Errorf("the public listener knows /admin/keys: %d %s", r.Status, r.Body)
	}
	log := o.proc.Stderr() + o.proc.Stdout()
	for _, secret := range []string{adminToken, key, fresh} {
		if strings.Contains(log, secret) {
			t.Error("a secret is in the log")
		}
	}
	if n := strings.Count(log, `"msg":"admin change"`); n != 5 {
		t.Errorf("%d changes in the log, want 5", n)
	}
}

// TestAdminAPIIsOffWithoutAToken: also with an empty one.
func TestAdminAPIIsOffWithoutAToken(t *testing.T) {
	for _, env := range []string{"", "LLMGW_ADMIN__TOKEN=", "LLMGW_ADMIN__TOKEN=  "} {
		addr, err := ports.Next()
		if err != nil {
			t.Fatal(err)
		}
		g := prepare(t, setup{env: []string{"LLMGW_ADMIN__LISTEN=" + addr, env}})
		g.runServe()
		g.eventually("the gate", func() bool { _, err := os.Stat(g.socket("api.sock")); return err == nil })
		g.eventually("the start", func() bool { return strings.Contains(g.proc.Stderr(), "gateway serves") })
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			t.Errorf("%q: something listens on %s", env, addr)
		}
		g.proc.Kill()
	}
}

// TestAdminAPIRefusesAClientsKeyAsToken: one credential must not be both.
func TestAdminAPIRefusesAClientsKeyAsToken(t *testing.T) {
	const both = "0123456789abcdef0123456789abcdef0123"
	for name, env := range map[string][]string{
		"listed now":      {"ALLOWED_API_KEYS=" + both},
		"in the books":    nil, // by the run before
		"the upstream's":  {"LLM_API_KEY=" + both},
		"too short":       {"LLMGW_ADMIN__TOKEN=short"},
		"a file, no text": {"LLMGW_ADMIN__TOKEN=", "LLMGW_ADMIN__TOKEN_FILE=/dev/null"},
	} {
		g := prepare(t, setup{env: append([]string{"LLMGW_ADMIN__TOKEN=" + both, "LLMGW_ADMIN__LISTEN=127.0.0.1:1"}, env...)})
		if name == "in the books" {
			imports := g.cli
			imports.Env = rig.MinimalEnv("ALLOWED_API_KEYS=" + both)
			p, err := rig.Start(rig.Spec{Name: "import", Path: g.cli.Binary, Args: []string{"serve", "--data", g.data}, Env: imports.Env, Dir: g.dir, Logs: g.dir})
			if err != nil {
				t.Fatal(err)
			}
			g.eventually("the import", func() bool { return strings.Contains(p.Stderr(), "keys imported") })
			p.Kill()
		}
		r, err := g.cli.Run("serve")
		if err != nil || r.Code == 0 || !strings.Contains(r.Stderr, "LLMGW_ADMIN__TOKEN") || strings.Contains(r.Stderr, both) {
			t.Errorf("%s: %v, exit %d, %s", name, err, r.Code, r.Stderr)
		}
	}
}

// TestAdminAPISchemathesis holds the admin API against its document. What a
// document cannot say is said in the configuration.
func TestAdminAPISchemathesis(t *testing.T) {
	t.Parallel() // beside the other contract tests, which are slow on our side of the wire
	o := startAdmin(t, setup{})
	o.want(201, "POST", "/admin/keys", `{"limit":1000}`)
	config := filepath.Join(t.TempDir(), "schemathesis.toml")
	const text = `
[[operations]]
include-path = "/admin/usage"
# JSON Schema cannot say that "from" is not after "to".
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "404", "5xx"]

[[operations]]
include-path = "/admin/changes"
# As above.
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "5xx"]
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.Schemathesis(t, o.base+"/admin/openapi.json", "--config-file", config, "--header", "Authorization: Bearer "+adminToken,
		// Some 20 s are usual; a machine with much else to do ends here.
		"--max-examples", "20", "--max-time", "60", "--seed", "5", "--continue-on-failure",
		// These two are asked in the test below:
		"--exclude-checks", "ignored_auth,missing_required_header")
	o.balanced()
}

// TestAdminAPISchemathesis_authorization: who asks without the token too fast
// gets 429, so it is asked slowly, and at a gateway of its own.
func TestAdminAPISchemathesis_authorization(t *testing.T) {
	t.Parallel()
	o := startAdmin(t, setup{})
	rig.Schemathesis(t, o.base+"/admin/openapi.json", "--header", "Authorization: Bearer "+adminToken,
		"--checks", "ignored_auth", "--mode", "positive", "--phases", "fuzzing", "--max-examples", "1", "--rate-limit", "3/s")
	o.balanced()
}
