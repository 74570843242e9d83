package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/MaksimVF/llm-gateway/billing"
)

// contract is a document and what was seen of it: answers that it does not
// describe are errors, and what it describes and nobody saw is one too.
type contract struct {
	t        *testing.T
	h        http.Handler
	document map[string]any
	compiler *jsonschema.Compiler
	seen     map[string]bool // "GET /usage 200"
}

func newTestContract(t *testing.T, h http.Handler, path string) *contract {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		t.Fatalf("the document: %v", err)
	}
	c := &contract{t: t, h: h, compiler: jsonschema.NewCompiler(), seen: map[string]bool{}}
	c.document, _ = text.(map[string]any)
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource("doc.json", text); err != nil {
		t.Fatal(err)
	}
	return c
}

// escape spells a member of a JSON pointer (RFC 6901) in a URL fragment.
func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B").Replace(name)
}

func member(v any, names ...string) any {
	for _, name := range names {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return v
}

// template is the document's path that an address is of, "" for none.
func (c *contract) template(address string) string {
	paths, _ := c.document["paths"].(map[string]any)
	if _, ok := paths[address]; ok {
		return address
	}
	for path := range paths {
		if strings.Contains(path, "{") && fits(path, address) {
			return path
		}
	}
	return ""
}

// do asks and holds the answer against the document.
func (c *contract) do(method, address, body string, headers ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequestWithContext(c.t.Context(), method, address, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	path, _, _ := strings.Cut(address, "?")
	if err := c.judge(method, path, w); err != nil {
		c.t.Errorf("%s %s answered %d: %v\n%s", method, address, w.Code, err, w.Body)
	}
	return w
}

func (c *contract) judge(method, address string, w *httptest.ResponseRecorder) error {
	template := c.template(address)
	operation := member(c.document, "paths", template, strings.ToLower(method))
	if operation == nil {
		if w.Code == http.StatusNotFound || w.Code == http.StatusMethodNotAllowed && w.Header().Get("Allow") != "" {
			return nil // as the document says of all paths and methods that it does not have
		}
		return errors.New("the document has no such operation")
	}
	status := strconv.Itoa(w.Code)
	response := member(operation, "responses", status)
	if response == nil {
		return errors.New("the document has no such status")
	}
	c.seen[strings.Join([]string{method, template, status}, " ")] = true
	for name := range asMap(member(response, "headers")) {
		if w.Header().Get(name) == "" {
			return fmt.Errorf("the documented header %s is not there", name)
		}
	}
	kind, _, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("content type %q: %w", w.Header().Get("Content-Type"), err)
	}
	if member(response, "content", kind) == nil {
		return fmt.Errorf("the document has no content type %s", kind)
	}
	if kind != "application/json" {
		return nil
	}
	schema, err := c.compiler.Compile("doc.json#/paths/" + escape(template) + "/" + strings.ToLower(method) + "/responses/" + status + "/content/" + escape(kind) + "/schema")
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(w.Body.Bytes()))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// complete fails for everything that is documented and was not seen.
func (c *contract) complete(except func(method, path string) bool) {
	c.t.Helper()
	for path, item := range asMap(c.document["paths"]) {
		for method, operation := range asMap(item) {
			if method = strings.ToUpper(method); except(method, path) {
				continue
			}
			for status := range asMap(member(operation, "responses")) {
				if !c.seen[strings.Join([]string{method, path, status}, " ")] {
					c.t.Errorf("documented and never seen: %s %s %s", method, path, status)
				}
			}
		}
	}
}

// Everything that the public routes answer is in their document, and everything
// in the document is answered.
func TestContract_public(t *testing.T) {
	d := newDesk(t)
	// Lists with nothing in them would agree with any document.
	d.spend(t, 0, "m", 7, 3, billing.Reported)
	d.spend(t, 0, "n", 7, 3, billing.Aborted)
	c := newTestContract(t, d.handler, documentPath)
	models := func(_, path string) bool {
		return slices.ContainsFunc(ModelEndpoints(), func(e Endpoint) bool { return e.Path == path })
	}
	good := []string{"Authorization", "Bearer " + d.secrets[0]}
	var owned []string
	for path, item := range asMap(c.document["paths"]) {
		if models("", path) {
			continue
		}
		if member(item, "get", "security") == nil {
			c.do("GET", path, "")
			c.do("GET", path+"?probe=1", "")
		} else {
			owned = append(owned, path)
		}
		for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"} {
			if w := c.do(method, path, "", good...); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
		if w := c.do("GET", path+"/", ""); w.Code != http.StatusNotFound && path != "/" {
			t.Errorf("%s/: %d", path, w.Code)
		}
	}
	for _, path := range owned {
		c.do("GET", path, "", good...)
		c.do("GET", path, "")
		c.do("GET", path, "", "Authorization", "Basic eDp5")
		c.do("GET", path, "", "Authorization", "Bearer sk-unknown")
		c.do("GET", path, "", "Authorization", "Bearer a", "Authorization", "Bearer b")
		if w := c.do("GET", path+"?surprise=1", "", good...); w.Code != http.StatusBadRequest {
			t.Errorf("%s with a parameter that it does not know: %d", path, w.Code)
		}
	}
	for _, query := range []string{
		"from=2026-11-01&to=2026-11-30", "group_by=day", "group_by=model", "group_by=day,model", "format=csv", "format=csv&group_by=model",
	} {
		if w := c.do("GET", "/usage?"+query, "", good...); w.Code != http.StatusOK {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
	for _, query := range []string{"from=yesterday", "to=2026-02-30", "from=2026-12-01&to=2026-11-01", "from=2020-01-01", "group_by=key", "group_by=day,day", "format=xml"} {
		w := c.do("GET", "/usage?"+query, "", good...)
		var e errorReport
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != http.StatusBadRequest || e.Object.Param == nil || e.Detail != e.Object.Message {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	for _, path := range owned {
		for left := 20 * guardBurst; c.do("GET", path, "", good...).Code == http.StatusOK; left-- { // until the guard says no
			if left == 0 {
				t.Fatalf("%s has no guard", path)
			}
		}
	}
	d.breakBooks(t)
	for _, path := range owned {
		c.do("GET", path, "", "Authorization", "Bearer "+d.secrets[1])
	}
	for _, path := range []string{"/health", "/healthz/ready"} {
		for end := time.Now().Add(20 * time.Second); c.do("GET", path, "").Code != http.StatusServiceUnavailable; { // it looks now and then
			if time.Now().After(end) {
				t.Fatalf("%s never said that the books are gone", path)
			}
		}
	}
	c.complete(models)
}

// GET / is of one version with the document, and sends nobody to a path that is
// not in it.
func TestContract_root(t *testing.T) {
	d := newDesk(t)
	c := newTestContract(t, d.handler, documentPath)
	var root rootReport
	if err := json.Unmarshal(c.do("GET", "/", "").Body.Bytes(), &root); err != nil {
		t.Fatal(err)
	}
	if root.Service != "LLM Gateway" || root.Version != "v1.2.3" || member(c.document, "info", "version") != root.Version {
		t.Errorf("%+v; the document is of %v", root, member(c.document, "info", "version"))
	}
	if len(root.Features) != 6 || !strings.Contains(root.Features[1], "30 requests per 60 s") {
		t.Errorf("features: %q", root.Features)
	}
	for _, name := range []string{"completions", "usage", "limits", "tariff", "rate_limit", "health"} {
		if root.Endpoints[name] == "" {
			t.Errorf("the original's %s is not there", name)
		}
	}
	for name, path := range root.Endpoints {
		if c.template(path) == "" {
			t.Errorf("%s: the document has no %s", name, path)
		}
	}
}

// What the contract test is for: it sees a member that is not documented, a
// status that is not, a header that is missing.
func TestContract_canFail(t *testing.T) {
	d := newDesk(t)
	c := newTestContract(t, d.handler, documentPath)
	answer := func(status int, body string, headers ...string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.WriteString(body)
		return w
	}
	const e = `{"error":{"message":"m","type":"t","param":null,"code":"c"},"detail":"d"}`
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another status":   answer(418, e),
		"a member more":    answer(400, strings.Replace(e, `"detail"`, `"more":1,"detail"`, 1)),
		"a member less":    answer(400, `{"detail":"d"}`),
		"another type":     answer(400, strings.Replace(e, `"d"`, `7`, 1)),
		"a missing header": answer(401, e),
		"no JSON":          answer(400, e, "Content-Type", "text/plain"),
	} {
		if err := c.judge("GET", "/limits", w); err == nil {
			t.Errorf("%s was not seen", name)
		}
	}
	if err := c.judge("GET", "/limits", answer(400, e)); err != nil {
		t.Error(err)
	}
}
