package extproc

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/billing"
)

func TestReadRequest_refusesWhatTwoReadersWouldReadDifferently(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	chat := func(members string) string { return `{"model":"m",` + messages + members + `}` }
	for _, c := range []struct {
		name, body, param, code string
		shape                   Shape
	}{
		{"negative ceiling", chat(`,"max_tokens":-1`), "max_tokens", "invalid_value", ShapeChat},
		{"zero ceiling", chat(`,"max_tokens":0`), "max_tokens", "invalid_value", ShapeChat},
		{"fraction", chat(`,"max_tokens":1.5`), "max_tokens", "invalid_value", ShapeChat},
		{"whole fraction", chat(`,"max_tokens":5.0`), "max_tokens", "invalid_value", ShapeChat},
		{"exponent", chat(`,"max_tokens":1e3`), "max_tokens", "invalid_value", ShapeChat},
		{"string", chat(`,"max_tokens":"5"`), "max_tokens", "invalid_value", ShapeChat},
		{"bool", chat(`,"max_tokens":true`), "max_tokens", "invalid_value", ShapeChat},
		{"2^63", chat(`,"max_tokens":9223372036854775808`), "max_tokens", "invalid_value", ShapeChat},
		{"beyond any model", chat(`,"max_tokens":10000001`), "max_tokens", "invalid_value", ShapeChat},
		{"newer name", chat(`,"max_completion_tokens":-5`), "max_completion_tokens", "invalid_value", ShapeChat},
		{"n zero", chat(`,"n":0`), "n", "invalid_value", ShapeChat},
		{"n negative", chat(`,"n":-1`), "n", "invalid_value", ShapeChat},
		{"n huge", chat(`,"n":9223372036854775807`), "n", "invalid_value", ShapeChat},
		{"n string", chat(`,"n":"2"`), "n", "invalid_value", ShapeChat},
		{"best_of zero", `{"prompt":"x","best_of":0}`, "best_of", "invalid_value", ShapeCompletion},
		{"duplicate model", `{"model":"cheap","model":"dear",` + messages + `}`, "model", "invalid_json", ShapeChat},
		{"duplicate ceiling", chat(`,"max_tokens":1,"max_tokens":9`), "max_tokens", "invalid_json", ShapeChat},
		{"duplicate by escape", chat(`,"max_tokens":1,"max_t\u006fkens":9`), "max_tokens", "invalid_json", ShapeChat},
		{"duplicate unread member", chat(`,"x":1,"x":2`), "", "invalid_json", ShapeChat},
		{"duplicate deep inside", `{"model":"m","messages":[{"role":"a","role":"b"}]}`, "messages", "invalid_json", ShapeChat},
		{"case variant", chat(`,"MAX_TOKENS":9`), "max_tokens", "invalid_json", ShapeChat},
		{"case variant alone", `{"Model":"m",` + messages + `}`, "model", "invalid_json", ShapeChat},
		{"case variant by long s", chat(`,"ſtream":true`), "stream", "invalid_json", ShapeChat},
		{"case variant of include_usage", chat(`,"stream":true,"stream_options":{"Include_Usage":false}`), "stream_options", "invalid_json", ShapeChat},
		{"stream as string", chat(`,"stream":"true"`), "stream", "invalid_type", ShapeChat},
		{"stream as number", chat(`,"stream":1`), "stream", "invalid_type", ShapeChat},
		{"stream_options as list", chat(`,"stream":true,"stream_options":[]`), "stream_options", "invalid_type", ShapeChat},
		{"include_usage as string", chat(`,"stream":true,"stream_options":{"include_usage":"yes"}`), "stream_options", "invalid_type", ShapeChat},
		{"no model", `{` + messages + `}`, "model", "missing_required_parameter", ShapeChat},
		{"model null", `{"model":null,` + messages + `}`, "model", "missing_required_parameter", ShapeChat},
		{"model number", `{"model":3,` + messages + `}`, "model", "invalid_value", ShapeChat},
		{"model empty", `{"model":"",` + messages + `}`, "model", "invalid_value", ShapeChat},
		{"model with NUL", `{"model":"a\u0000b",` + messages + `}`, "model", "invalid_value", ShapeChat},
		{"model too long", `{"model":"` + strings.Repeat("m", 257) + `",` + messages + `}`, "model", "invalid_value", ShapeChat},
		{"no messages", `{"model":"m"}`, "messages", "missing_required_parameter", ShapeChat},
		{"messages null", `{"model":"m","messages":null}`, "messages", "missing_required_parameter", ShapeChat},
		{"messages string", `{"model":"m","messages":"hi"}`, "messages", "invalid_type", ShapeChat},
		{"messages empty", `{"model":"m","messages":[]}`, "messages", "invalid_value", ShapeChat},
		{"no input", `{"model":"m"}`, "input", "missing_required_parameter", ShapeEmbedding},
		{"input object", `{"model":"m","input":{}}`, "input", "invalid_type", ShapeEmbedding},
		{"bad UTF-8", "{\"model\":\"m\",\"messages\":[{\"content\":\"\xff\"}]}", "messages", "invalid_json", ShapeChat},
		{"lone surrogate", `{"model":"m","messages":[{"content":"\ud800"}]}`, "messages", "invalid_json", ShapeChat},
		{"BOM", "\ufeff" + chat(""), "", "invalid_json", ShapeChat},
		{"UTF-16", "\xff\xfe{\x00}\x00", "", "invalid_json", ShapeChat},
		{"trailing data", chat("") + `{"n":99}`, "", "invalid_json", ShapeChat},
		{"trailing comma", `{"model":"m",` + messages + `,}`, "", "invalid_json", ShapeChat},
		{"cut short", `{"model":"m","messages":[`, "messages", "invalid_json", ShapeChat},
		{"empty", ``, "", "invalid_json", ShapeChat},
		{"array", `[]`, "", "invalid_json", ShapeChat},
		{"null", `null`, "", "invalid_json", ShapeChat},
		{"too deep", chat(`,"x":` + strings.Repeat("[", 20_000)), "", "invalid_json", ShapeChat},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, r := readRequest(c.shape, []byte(c.body))
			if r == nil {
				t.Fatal("accepted")
			}
			if r.status != 400 || r.code != c.code || r.param != c.param {
				t.Errorf("got %d %s param %q (%s), want 400 %s param %q", r.status, r.code, r.param, r.message, c.code, c.param)
			}
		})
	}
}

func TestReadRequest_reads(t *testing.T) {
	for _, c := range []struct {
		name, body string
		shape      Shape
		want       request
	}{
		{"absent is no ceiling", `{"model":"m","messages":[{"content":"hi"}]}`, ShapeChat, request{model: "m", choices: 1}},
		{"null is absent", `{"model":"m","messages":[{"content":"hi"}],"max_tokens":null,"n":null,"stream":null}`, ShapeChat, request{model: "m", choices: 1}},
		{"ceiling and n", `{"model":"m","messages":[{"content":"hi"}],"max_tokens":7,"n":3}`, ShapeChat, request{model: "m", ceiling: 7, choices: 3}},
		{"the larger of two ceilings", `{"model":"m","messages":[{"content":"hi"}],"max_tokens":7,"max_completion_tokens":9}`, ShapeChat, request{model: "m", ceiling: 9, choices: 1}},
		{"stream asks", `{"model":"m","messages":[{"content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`, ShapeChat, request{model: "m", stream: true, usageAsked: true, choices: 1}},
		{"best_of and prompts multiply", `{"prompt":["a","b"],"best_of":4,"n":2,"max_tokens":5}`, ShapeCompletion, request{ceiling: 5, choices: 8}},
		{"token ids are one prompt", `{"prompt":[1,2,3],"max_tokens":5}`, ShapeCompletion, request{ceiling: 5, choices: 1}},
		{"lists of token ids are prompts", `{"prompt":[[1,2],[3]],"max_tokens":5}`, ShapeCompletion, request{ceiling: 5, choices: 2}},
		{"embeddings have no output members", `{"model":"e","input":"x","n":0,"max_tokens":-1}`, ShapeEmbedding, request{model: "e", choices: 1}},
		{"unread members may be anything", `{"model":"m","messages":[{"content":"hi"}],"temperature":"hot","x":{"max_tokens":-1}}`, ShapeChat, request{model: "m", choices: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, r := readRequest(c.shape, []byte(c.body))
			if r != nil {
				t.Fatalf("refused: %s", r.message)
			}
			got.prompt, got.usageEdit, got.ceilingAt, got.end = promptSize{}, nil, nil, 0
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(request{}, promptSize{}, edit{})); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPromptBound_coversEveryByte(t *testing.T) {
	for _, c := range []struct {
		name, body string
		shape      Shape
		want       promptSize
	}{
		{"text and roles", `{"model":"m","messages":[{"role":"user","content":"hello"}]}`, ShapeChat, promptSize{textBytes: 9, messages: 1, chat: true}},
		{"a name", `{"model":"m","messages":[{"role":"user","name":"bob","content":"hi"},{"tool_calls":[{"function":{"name":"f"}}]}]}`, ShapeChat, promptSize{textBytes: 4 + 3 + 2 + 1, messages: 2, names: 1, chat: true}},
		{"escapes count decoded", `{"model":"m","messages":[{"content":"\u00e9\n\ud83d\ude00\u20ac\u0041"}]}`, ShapeChat, promptSize{textBytes: 2 + 1 + 4 + 3 + 1, messages: 1, chat: true}},
		{"parts", `{"model":"m","messages":[{"content":[{"type":"text","text":"ab"},{"type":"image_url","image_url":{"url":"data:xxxxxxxxxxxx","detail":"low"}}]}]}`, ShapeChat, promptSize{textBytes: 4 + 2 + 9, messages: 1, mediaTokens: 300, chat: true}},
		{"tools are text", `{"model":"m","messages":[{"content":"a"}],"tools":[{"type":"function"}]}`, ShapeChat, promptSize{textBytes: 1 + 21, messages: 1, chat: true}},
		{"token ids are exact", `{"model":"m","input":[1,2,3,4]}`, ShapeEmbedding, promptSize{messages: 1, tokens: 4}},
		{"several inputs", `{"model":"m","input":["ab","c"]}`, ShapeEmbedding, promptSize{textBytes: 3, messages: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, r := readRequest(c.shape, []byte(c.body))
			if r != nil {
				t.Fatalf("refused: %s", r.message)
			}
			if got.prompt != c.want {
				t.Errorf("got %+v, want %+v", got.prompt, c.want)
			}
			if got.prompt.bound() <= 0 {
				t.Error("the bound is not positive")
			}
		})
	}
}

func TestUsageEdit_changesNothingElse(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{
			"no stream_options", `{ "model":"m","messages":[{"content":"x"}],"stream":true , "temperature":1.0 }`,
			`{ "model":"m","messages":[{"content":"x"}],"stream":true , "temperature":1.0 ,"stream_options":{"include_usage":true}}`,
		},
		{
			"null", `{"model":"m","stream_options":null,"messages":[{"content":"x"}],"stream":true}`,
			`{"model":"m","stream_options":{"include_usage":true},"messages":[{"content":"x"}],"stream":true}`,
		},
		{
			"empty object", `{"model":"m","stream_options":{ },"messages":[{"content":"x"}],"stream":true}`,
			`{"model":"m","stream_options":{ "include_usage":true},"messages":[{"content":"x"}],"stream":true}`,
		},
		{
			"other options", `{"model":"m","stream_options": {"include_obfuscation":false},"messages":[{"content":"x"}],"stream":true}`,
			`{"model":"m","stream_options": {"include_obfuscation":false,"include_usage":true},"messages":[{"content":"x"}],"stream":true}`,
		},
		{
			"false", `{"model":"m","stream_options":{"include_usage": false ,"a":1},"messages":[{"content":"x"}],"stream":true}`,
			`{"model":"m","stream_options":{"include_usage": true ,"a":1},"messages":[{"content":"x"}],"stream":true}`,
		},
		{
			"big numbers and odd escapes survive", `{"seed":123456789012345678901234567890,"model":"m","messages":[{"content":"\u003c\/"}],"stream":true}`,
			`{"seed":123456789012345678901234567890,"model":"m","messages":[{"content":"\u003c\/"}],"stream":true,"stream_options":{"include_usage":true}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, r := readRequest(ShapeChat, []byte(c.body))
			if r != nil {
				t.Fatalf("refused: %s", r.message)
			}
			out := apply([]byte(c.body), got.usageEdit)
			if string(out) != c.want {
				t.Errorf("got  %s\nwant %s", out, c.want)
			}
			again, r := readRequest(ShapeChat, out)
			if r != nil || !again.usageAsked || again.usageEdit != nil {
				t.Errorf("the edited request does not ask for usage: %+v %v", again, r)
			}
		})
	}
	got, _ := readRequest(ShapeChat, []byte(`{"model":"m","messages":[{"content":"x"}],"stream_options":{"include_usage":false}}`))
	if got.usageEdit != nil {
		t.Error("a request that does not stream is edited")
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"max_tokens":5,"n":2}`,
		`{"model":"m","messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}],"stream":true,"stream_options":{"a":1}}`,
		`{"prompt":[[1,2],[3]],"best_of":3}`, `{"model":"m","input":["a","b"]}`, `{"model":"m","model":"n"}`, `{"a":"\ud83d\ude00"}`, "\xff", `[`,
	} {
		f.Add(seed, uint8(1))
		f.Add(seed, uint8(2))
		f.Add(seed, uint8(3))
	}
	f.Fuzz(func(t *testing.T, body string, shape uint8) {
		s := Shape(shape%3) + ShapeChat
		r, bad := readRequest(s, []byte(body))
		if bad != nil {
			if bad.status != 400 || !json.Valid(bad.body()) {
				t.Fatalf("refusal %d %s", bad.status, bad.body())
			}
			return
		}
		if r.choices < 1 || r.ceiling < 0 || r.prompt.bound() <= 0 || r.prompt.estimate() <= 0 || r.prompt.bound() < r.prompt.tokens {
			t.Fatalf("a hold could be without tokens: %+v", r)
		}
		var plain map[string]any
		if err := json.Unmarshal([]byte(body), &plain); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		promptTexts(s, []byte(body))
		if r.usageEdit == nil {
			return
		}
		again, bad := readRequest(s, apply([]byte(body), r.usageEdit))
		if bad != nil || !again.usageAsked {
			t.Fatalf("edited body is not read: %+v", bad)
		}
		again.usageAsked, again.usageEdit, again.end, again.ceilingAt = r.usageAsked, r.usageEdit, r.end, r.ceilingAt
		if d := cmp.Diff(r, again, cmp.AllowUnexported(request{}, promptSize{}, edit{})); d != "" {
			t.Fatalf("the edit changed the request: %s", d)
		}
	})
}

// TestPromptTokens: the recipe for chats, and the text alone for the others, as
// OpenAI counts them; each text by itself.
func TestPromptTokens(t *testing.T) {
	for _, c := range []struct {
		body  string
		shape Shape
		want  int64
	}{
		{`{"model":"gpt-4o","messages":[{"role":"user","content":"Hello world"}]}`, ShapeChat, 3 + 1 + 2 + 3},
		{`{"model":"gpt-4o","messages":[{"role":"system","content":"Hello"},{"role":"user","name":"bob","content":"Hello world"}]}`, ShapeChat, 3 + 1 + 1 + 3 + 1 + 1 + 1 + 2 + 3},
		{`{"model":"gpt-4o","prompt":"Hello world"}`, ShapeCompletion, 2},
		{`{"model":"gpt-4o","prompt":[1,2,3]}`, ShapeCompletion, 3},
		{`{"model":"text-embedding-3-small","input":["Hello world","Hello"]}`, ShapeEmbedding, 3},
	} {
		r, bad := readRequest(c.shape, []byte(c.body))
		if bad != nil {
			t.Fatal(bad.body())
		}
		n, known := billing.CountTokens(r.model, promptTexts(c.shape, []byte(c.body))...)
		if got := r.prompt.withText(n); got != c.want || !known {
			t.Errorf("%s: %d tokens (%v), want %d", c.body, got, known, c.want)
		}
	}
}
