//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// odd is a request that must be refused before anything is taken from any
// limit.
type odd struct {
	name   string
	body   string
	status int
	param  string // the field that the answer must name, "" = any
	header http.Header
	path   string
}

func odds() []odd {
	chat := func(members string) string {
		return `{"model":"odd","messages":[{"role":"user","content":"hi"}]` + members + `}`
	}
	var out []odd
	for _, field := range []string{"max_tokens", "max_completion_tokens", "n"} {
		for _, v := range []string{"-1", "0", "1.5", `"5"`, "9223372036854775808", "1e400", "true", "[5]", "{}"} {
			out = append(out, odd{name: field + "=" + v, body: chat(`,"` + field + `":` + v), status: 400, param: field})
		}
	}
	gz := func() string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(chat("")))
		_ = z.Close()
		return b.String()
	}()
	return append(out,
		odd{name: "twice max_tokens", body: chat(`,"max_tokens":5,"max_tokens":500`), status: 400, param: "max_tokens"},
		odd{name: "twice model", body: chat(`,"model":"other"`), status: 400, param: "model"},
		odd{name: "twice stream", body: chat(`,"stream":false,"stream":true`), status: 400, param: "stream"},
		odd{name: "twice, one escaped", body: chat(`,"max_tokens":5,"max_token\u0073":500`), status: 400, param: "max_tokens"},
		odd{name: "MAX_TOKENS", body: chat(`,"MAX_TOKENS":5`), status: 400, param: "max_tokens"},
		odd{name: "Stream", body: chat(`,"Stream":true`), status: 400, param: "stream"},
		odd{name: "Model", body: chat(`,"Model":"other"`), status: 400, param: "model"},
		odd{name: "stream is a string", body: chat(`,"stream":"true"`), status: 400, param: "stream"},
		odd{name: "model is a number", body: `{"model":5,"messages":[]}`, status: 400, param: "model"},
		odd{name: "no model", body: `{"messages":[{"role":"user","content":"hi"}]}`, status: 400, param: "model"},
		odd{name: "long model", body: `{"model":"` + strings.Repeat("m", 257) + `","messages":[{"role":"user","content":"hi"}]}`, status: 400, param: "model"},
		odd{name: "bad UTF-8", body: chat(",\"user\":\"\xff\xfe\""), status: 400},
		odd{name: "BOM", body: "\xef\xbb\xbf" + chat(""), status: 400},
		odd{name: "UTF-16", body: "{\x00\"\x00m\x00", status: 400},
		odd{name: "trailing object", body: chat("") + `{"max_tokens":5}`, status: 400},
		odd{name: "trailing junk", body: chat("") + `x`, status: 400},
		odd{name: "deep nesting", body: chat(`,"x":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)), status: 400},
		odd{name: "empty body", body: "", status: 400},
		odd{name: "spaces", body: "  \n", status: 400},
		odd{name: "array", body: `[` + chat("") + `]`, status: 400},
		odd{name: "null", body: `null`, status: 400},
		odd{name: "string", body: `"x"`, status: 400},
		odd{name: "cut", body: chat("")[:20], status: 400},
		odd{name: "NaN", body: chat(`,"max_tokens":NaN`), status: 400},
		odd{name: "comment", body: chat(`/*x*/`), status: 400},
		odd{name: "gzip", body: gz, status: 415, header: http.Header{"Content-Encoding": {"gzip"}}},
		odd{name: "br", body: "xx", status: 415, header: http.Header{"Content-Encoding": {"br"}}},
		odd{name: "identity, gzip", body: gz, status: 415, header: http.Header{"Content-Encoding": {"identity, gzip"}}},
		odd{name: "legacy n", path: "/v1/completions", body: `{"model":"odd","prompt":"x","n":0}`, status: 400, param: "n"},
		odd{name: "legacy best_of", path: "/v1/completions", body: `{"model":"odd","prompt":"x","best_of":-1}`, status: 400, param: "best_of"},
		odd{name: "legacy max_tokens", path: "/v1/completions", body: `{"model":"odd","prompt":"x","max_tokens":-1}`, status: 400, param: "max_tokens"},
	)
}

// TestOddRequestsAreRefusedAndFree sends many malformed requests with a key
// that may ask three times only: the three good ones at the end must pass.
func TestOddRequestsAreRefusedAndFree(t *testing.T) {
	g := start(t, setup{})
	const good = 3
	k, err := g.cli.CreateKey(plenty, "--rpm", fmt.Sprint(good))
	if err != nil {
		t.Fatal(err)
	}
	g.accepted(k)
	for _, h2c := range []bool{false, true} {
		client := g.client(h2c)
		for _, o := range odds() {
			name := fmt.Sprintf("%s h2c=%v", o.name, h2c)
			r := client.Do(g.context(), rig.Request{Path: o.path, Key: k.Key, Body: []byte(o.body), Header: o.header.Clone()})
			p, ok := r.Problem()
			if r.Status != o.status || !ok {
				t.Errorf("%s: %d %q %v, want %d", name, r.Status, r.Body, r.Err, o.status)
				continue
			}
			if o.param != "" && (p.Error.Param == nil || *p.Error.Param != o.param) {
				t.Errorf("%s: param %v, want %q (%s)", name, show(p.Error.Param), o.param, p.Error.Message)
			}
			if p.Error.Type != "invalid_request_error" {
				t.Errorf("%s: type %q", name, p.Error.Type)
			}
		}
	}
	if n := g.up.Hits(); n != 0 {
		t.Errorf("%d odd requests reached the upstream, the first: %+v", n, g.up.Records()[0].Ask)
	}
	if report := g.balanced(); report.Charges != 0 {
		t.Errorf("%d charges for odd requests", report.Charges)
	}
	client := g.client(false)
	for i := range good + 1 {
		body := `{"model":"even","messages":[{"role":"user","content":"hi"}],"max_tokens":null,"max_completion_tokens":null,"n":null,"stream":null}`
		r := client.Do(g.context(), rig.Request{Key: k.Key, Body: []byte(body)})
		if want := map[bool]int{true: 200, false: 429}[i < good]; r.Status != want {
			t.Errorf("good request %d after the odd ones: %d %q, want %d", i+1, r.Status, r.Body, want)
		}
	}
}

func show(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// TestLargeBodies: 20 MiB pass unchanged, 33 MiB are too much, over every way
// a body can come.
func TestLargeBodies(t *testing.T) {
	g := start(t, setup{})
	key := g.key().Key
	sizes := map[int]int{20 << 20: 200, 33 << 20: 413}
	for _, h2c := range []bool{false, true} {
		client := g.client(h2c)
		for _, chunked := range []bool{false, true} {
			for size, status := range sizes {
				name := fmt.Sprintf("%d MiB h2c=%v chunked=%v", size>>20, h2c, chunked)
				body := rig.Chat{Model: "large", Text: strings.Repeat("a", size), MaxTokens: 10, Script: rig.Script{ID: name, Prompt: 5, Completion: 5}}.Body()
				r := client.Do(g.context(), rig.Request{Key: key, Body: body, Chunked: chunked})
				records := g.up.ByID(name)
				if status == 200 {
					if r.Status != 200 || len(records) != 1 || records[0].BodyLen != int64(len(body)) {
						t.Errorf("%s: %d %q %v, upstream %d", name, r.Status, r.Body, r.Err, len(records))
					}
					continue
				}
				// An HTTP/1.1 client that is still sending may see the connection's end instead of the answer.
				if len(records) != 0 || r.Status != 413 && (r.Status != 0 || h2c) {
					t.Errorf("%s: %d %q %v, upstream %d", name, r.Status, r.Body, r.Err, len(records))
				} else if p, ok := r.Problem(); r.Status == 413 && (!ok || p.Error.Code == "") {
					t.Errorf("%s: body %q", name, r.Body)
				}
			}
		}
	}
	g.balanced()
}
