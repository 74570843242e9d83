package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func post(path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	return w
}

type fatal interface {
	Helper()
	Fatalf(string, ...any)
}

func decode[T any](t fatal, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

// reply holds what tests read of answers and chunks.
type reply struct {
	ID, Object, Model string
	Created           int64
	Choices           []struct {
		Index          int
		Text           string
		Message, Delta struct{ Role, Content string }
		Finish         string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Total      int64 `json:"total_tokens"`
	}
}

func ok(t fatal, w *httptest.ResponseRecorder) reply {
	t.Helper()
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return decode[reply](t, w.Body.Bytes())
}

const hi = `{"model":"m","messages":[{"role":"user","content":"Grüße, Welt 🌍"}]`

func TestChatAnswerByteForByte(t *testing.T) {
	w := post("/v1/chat/completions", hi+`,"max_tokens":2}`)
	want := `{"id":"ID","object":"chat.completion","created":1735689600,"model":"m","system_fingerprint":"fp_llm_gateway_demo",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"Hello! I","refusal":null},"logprobs":null,"finish_reason":"length"}],` +
		`"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},` +
		`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}`
	got := w.Body.String()
	id := ok(t, w).ID
	if !strings.HasPrefix(id, "chatcmpl-demo") {
		t.Errorf("id %q", id)
	}
	if diff := cmp.Diff(want, strings.Replace(got, id, "ID", 1)); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	if w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("content type %q", w.Header().Get("Content-Type"))
	}
	if again := post("/v1/chat/completions", hi+`,"max_tokens":2}`).Body.String(); again != got {
		t.Errorf("the same request got another answer: %s", again)
	}
}

func TestTheAnswerSaysWhatItIs(t *testing.T) {
	r := ok(t, post("/any/base/v1/chat/completions", hi+`,"max_tokens":100000}`))
	text := r.Choices[0].Message.Content
	for _, want := range []string{"demo model", "llm-gateway", "LLM_SERVER_URL", "You said: Grüße, Welt 🌍"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	if r.Choices[0].Finish != "stop" {
		t.Errorf("finish_reason %q", r.Choices[0].Finish)
	}
}

func TestTheEchoIsShortAndWhole(t *testing.T) {
	for _, text := range []string{strings.Repeat("wort ", 50), strings.Repeat("語", 500), strings.Repeat("é🌍", 99) + " x"} {
		a := answerTo(text)
		if !utf8.ValidString(a) || !strings.HasSuffix(a, " …") || len(a) > len(greeting)+echoBytes+30 {
			t.Errorf("answer %q", a)
		}
	}
	if got := answerTo(" \n"); got != greeting {
		t.Errorf("answer to nothing: %q", got)
	}
}

func TestPartsAndSystemMessages(t *testing.T) {
	r := ok(t, post("/v1/chat/completions", `{"model":"m","messages":[{"role":"system","content":"be kind"},
		{"role":"user","content":[{"type":"text","text":"one two"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"three"}]},
		{"role":"assistant","content":null}]}`))
	if !strings.HasSuffix(r.Choices[0].Message.Content, "You said: one two three") {
		t.Errorf("answer %q", r.Choices[0].Message.Content)
	}
	if want := int64(9 + 2 + 2 + 2); r.Usage.Prompt != want {
		t.Errorf("prompt_tokens %d, want %d", r.Usage.Prompt, want)
	}
}

func TestCountTokens(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "a": 1, "abcd": 1, "abcde": 2, "a b c": 3, "語": 1, "語語": 2, "\u00a0 \n": 1} {
		if got := countTokens(text); got != want {
			t.Errorf("countTokens(%q) = %d, want %d", text, got, want)
		}
	}
}

func TestAnswersAndPromptsStayWithinTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 1, 4).Draw(t, "texts")
		bytes, messages := 0, []any{}
		for _, text := range texts {
			bytes += len(text)
			messages = append(messages, map[string]any{"role": "user", "content": text})
		}
		most := rapid.Int64Range(1, 200).Draw(t, "max")
		body, _ := json.Marshal(map[string]any{"model": "m", "messages": messages, "max_completion_tokens": most})
		r := ok(t, post("/v1/chat/completions", string(body)))
		whole := answerTo(texts[len(texts)-1])
		got := r.Choices[0].Message.Content
		if r.Usage.Prompt > int64(bytes+8*len(texts)+8) || r.Usage.Total != r.Usage.Prompt+r.Usage.Completion {
			t.Fatalf("usage %+v for %d bytes", r.Usage, bytes)
		}
		if got == "" || !strings.HasPrefix(whole, got) || r.Usage.Completion > most || r.Usage.Completion != countTokens(got) {
			t.Fatalf("%q has %d tokens, at most %d wanted", got, r.Usage.Completion, most)
		}
		if (r.Choices[0].Finish == "stop") != (got == whole) || (got == whole) != (countTokens(whole) <= most) {
			t.Fatalf("finish_reason %q for %q", r.Choices[0].Finish, got)
		}
	})
}

// chunks splits a stream into the data of its events and checks that it ends with [DONE].
func chunks(t fatal, body string) (raw []string, parsed []reply) {
	t.Helper()
	events := strings.Split(strings.TrimSuffix(body, "\n\n"), "\n\n")
	for i, e := range events {
		data, isData := strings.CutPrefix(e, "data: ")
		if !isData || strings.Contains(data, "\n") || (data == "[DONE]") != (i == len(events)-1) {
			t.Fatalf("event %d is %q", i, e)
		}
		if data != "[DONE]" {
			raw, parsed = append(raw, data), append(parsed, decode[reply](t, []byte(data)))
		}
	}
	return raw, parsed
}

func TestChatStreamByteForByte(t *testing.T) {
	w := post("/v1/chat/completions", hi+`,"max_tokens":2,"stream":true,"stream_options":{"include_usage":true}}`)
	raw, parsed := chunks(t, w.Body.String())
	head := `{"id":"` + parsed[0].ID + `","object":"chat.completion.chunk","created":1735689600,"model":"m","system_fingerprint":"fp_llm_gateway_demo","choices":`
	want := []string{
		head + `[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}`,
		head + `[{"index":0,"delta":{"content":"Hello!"},"logprobs":null,"finish_reason":null}],"usage":null}`,
		head + `[{"index":0,"delta":{"content":" I"},"logprobs":null,"finish_reason":null}],"usage":null}`,
		head + `[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}`,
		head + `[],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}`,
	}
	if diff := cmp.Diff(want, raw); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	if !strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") || !w.Flushed {
		t.Errorf("content type %q, flushed %v", w.Header().Get("Content-Type"), w.Flushed)
	}
}

func TestStreamWithoutUsageHasNone(t *testing.T) {
	for _, more := range []string{"", `,"stream_options":{"include_usage":false}`, `,"stream_options":null`} {
		body := post("/v1/chat/completions", hi+`,"stream":true`+more+`}`).Body.String()
		chunks(t, body)
		if strings.Contains(body, "usage") {
			t.Errorf("usage was not asked for: %s", body)
		}
	}
}

func TestStreamAndWholeAnswerAgree(t *testing.T) {
	for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
		q := `{"model":"m","n":3,"prompt":"Привет, мир","messages":[{"role":"user","content":"Привет, мир"}]`
		whole := ok(t, post(path, q+`}`))
		_, stream := chunks(t, post(path, q+`,"stream":true,"stream_options":{"include_usage":true}}`).Body.String())
		texts, finish := map[int]string{}, map[int]string{}
		for _, c := range stream {
			for _, choice := range c.Choices {
				texts[choice.Index] += choice.Delta.Content + choice.Text
				finish[choice.Index] += choice.Finish
			}
		}
		if len(whole.Choices) != 3 || len(texts) != 3 {
			t.Fatalf("%s: %d and %d choices, want 3", path, len(whole.Choices), len(texts))
		}
		for i, c := range whole.Choices {
			if c.Index != i || texts[i] != c.Message.Content+c.Text || finish[i] != c.Finish || !strings.Contains(texts[i], "Привет") {
				t.Errorf("%s: choice %d: %q streamed %q", path, i, c.Message.Content+c.Text, texts[i])
			}
		}
		if diff := cmp.Diff(whole.Usage, stream[len(stream)-1].Usage); diff != "" {
			t.Errorf("%s: usage: %s", path, diff)
		}
		if got, want := whole.Usage.Completion, 3*countTokens(texts[0]); got != want {
			t.Errorf("%s: completion_tokens %d, want %d for all choices", path, got, want)
		}
	}
}

// flushCounter counts the flushes, and the events in each write.
type flushCounter struct {
	*httptest.ResponseRecorder
	flushes int
}

func (f *flushCounter) Flush() { f.flushes++ }

func TestEveryEventIsFlushedAndDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &flushCounter{ResponseRecorder: httptest.NewRecorder()}
		start := time.Now()
		New(Options{ChunkDelay: time.Second}).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", strings.NewReader(hi+`,"stream":true}`)))
		events := strings.Count(w.Body.String(), "data: ")
		if w.flushes != events || time.Since(start) != time.Duration(events-1)*time.Second {
			t.Fatalf("%d events, %d flushes, %v", events, w.flushes, time.Since(start))
		}
	})
}

func TestCompletions(t *testing.T) {
	w := post("/v1/completions", `{"model":"m","prompt":["a b","c"],"n":2,"max_tokens":1}`)
	want := `"choices":[{"text":"Hell","index":0,"logprobs":null,"finish_reason":"length"},{"text":"Hell","index":1,`
	r := ok(t, w)
	if !strings.Contains(w.Body.String(), want) || r.Object != "text_completion" || len(r.Choices) != 4 || r.Usage.Prompt != 3 || r.Usage.Completion != 4 {
		t.Errorf("%s", w.Body)
	}
	if r := ok(t, post("/v1/completions", `{"prompt":"a"}`)); r.Model != modelName {
		t.Errorf("a request that names no model was answered by %q", r.Model)
	}
	if r := ok(t, post("/v1/completions", `{"model":"m","prompt":[[1,2,3],[4]]}`)); r.Usage.Prompt != 4 || len(r.Choices) != 2 {
		t.Errorf("%+v", r)
	}
}

func TestModels(t *testing.T) {
	const card = `{"id":"demo","object":"model","created":1735689600,"owned_by":"llm-gateway"}`
	for path, want := range map[string]string{
		"/v1/models":             `{"object":"list","data":[` + card + `]}`,
		"/base/v1/models/demo":   card,
		"/v1/models/gpt-5":       `{"error":{"message":"The model 'gpt-5' does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}`,
		"/v1/nothing":            `{"error":{"message":"Invalid URL (GET /v1/nothing)","type":"invalid_request_error","param":null,"code":null}}`,
		"/chat/completions":      `{"error":{"message":"Invalid URL (GET /chat/completions)","type":"invalid_request_error","param":null,"code":null}}`,
		"/v1/embeddings":         `{"error":{"message":"Not allowed to GET on /v1/embeddings","type":"invalid_request_error","param":null,"code":null}}`,
		"/models/v1/completions": `{"error":{"message":"Not allowed to GET on /models/v1/completions","type":"invalid_request_error","param":null,"code":null}}`,
	} {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if diff := cmp.Diff(want, w.Body.String()); diff != "" {
			t.Errorf("%s -want +got:\n%s", path, diff)
		}
		if allow := w.Header().Get("Allow"); (w.Code == http.StatusMethodNotAllowed) != (allow == http.MethodPost) {
			t.Errorf("%s: status %d, Allow %q", path, w.Code, allow)
		}
		if (w.Code == http.StatusOK) == strings.Contains(want, "error") {
			t.Errorf("%s: status %d", path, w.Code)
		}
	}
}

func TestBadRequests(t *testing.T) {
	const chat, text, vec = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
	for i, c := range []struct{ path, body, param string }{
		{chat, ``, ""},
		{chat, `null`, ""},
		{chat, `[]`, ""},
		{chat, `{"model":"m"`, ""},
		{chat, hi + `} x`, ""},
		{chat, hi + ",\"user\":\"\xff\"}", ""},
		{chat, `{"messages":[{"role":"user","content":"x"}]}`, "model"},
		{chat, `{"model":7}`, "model"},
		{chat, `{"model":"m"}`, "messages"},
		{chat, `{"model":"m","messages":[]}`, "messages"},
		{chat, `{"model":"m","messages":[{"content":"x"}]}`, "messages"},
		{chat, `{"model":"m","messages":[{"role":"user","content":7}]}`, "messages"},
		{chat, hi + `,"n":0}`, "n"},
		{chat, hi + `,"n":129}`, "n"},
		{chat, hi + `,"n":1.5}`, "n"},
		{chat, hi + `,"max_tokens":0}`, "max_tokens"},
		{chat, hi + `,"max_tokens":"5"}`, "max_tokens"},
		{chat, hi + `,"max_completion_tokens":-1}`, "max_completion_tokens"},
		{chat, hi + `,"stream_options":{"include_usage":true}}`, "stream_options"},
		{text, `{"model":"m"}`, "prompt"},
		{text, `{"model":"m","prompt":null}`, "prompt"},
		{text, `{"model":"m","prompt":{}}`, ""},
		{text, `{"model":"m","n":100,"prompt":["a","b"]}`, "n"},
		{text, `{"model":"m","prompt":[null]}`, ""},
		{text, `{"model":"m","prompt":[1,null]}`, ""},
		{text, `{"model":"m","prompt":[-1]}`, ""},
		{text, `{"model":"m","prompt":[[]]}`, ""},
		{chat, `{"model":"m","messages":[{"role":"user","content":[null]}]}`, "messages"},
		{vec, `{"input":"x"}`, "model"},
		{vec, `{"model":"e"}`, "input"},
		{vec, `{"model":"e","input":""}`, "input"},
		{vec, `{"model":"e","input":[]}`, "input"},
		{vec, `{"model":"e","input":"x","dimensions":0}`, "dimensions"},
		{vec, `{"model":"e","input":"x","encoding_format":"hex"}`, "encoding_format"},
	} {
		w := post(c.path, c.body)
		e := decode[struct {
			Error struct {
				Message, Type string
				Param         *string
			}
		}](t, w.Body.Bytes()).Error
		param := ""
		if e.Param != nil {
			param = *e.Param
		}
		if w.Code != http.StatusBadRequest || e.Message == "" || e.Type != "invalid_request_error" || param != c.param {
			t.Errorf("case %d, %s: status %d, %s", i, c.body, w.Code, w.Body)
		}
	}
}

func TestABodyThatIsTooLarge(t *testing.T) {
	if w := post("/v1/embeddings", fmt.Sprintf(`{"input":"%s"}`, strings.Repeat("a", maxBody))); w.Code != http.StatusRequestEntityTooLarge {
		t.Fatalf("status %d", w.Code)
	}
}

// Over a real connection: a client that goes away ends the stream.
func TestAClientThatGoesAway(t *testing.T) {
	done := make(chan struct{})
	demo := New(Options{ChunkDelay: time.Hour})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		demo.ServeHTTP(w, r)
	}))
	defer server.Close()
	client := &http.Client{Timeout: 10 * time.Second} // so that a stream without flushes fails, not hangs
	response, err := client.Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(hi+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("data: {"))
	if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "data: {" {
		t.Fatalf("%q, %v", first, err)
	}
	response.Body.Close()
	<-done
}
