package usage

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const (
	helloEvent = `data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}` + "\n\n"
	stopEvent  = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	usageEvent = `data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}` + "\n\n"
	doneEvent  = "data: [DONE]\n\n"
)

func stream1(drop bool) Options {
	return Options{ContentType: "Text/Event-Stream;charset=UTF-8", Choices: 1, DropUsageChunk: drop}
}

func pieces(texts ...string) (p [][]byte) {
	for _, text := range texts {
		p = append(p, []byte(text))
	}
	return p
}

func TestEnding(t *testing.T) {
	two := stream1(false)
	two.Choices = 2
	choice := func(index, finish, usage string) string {
		return `data: {"choices":[{"index":` + index + `,"delta":{},"finish_reason":` + finish + `}],"usage":` + usage + "}\n\n"
	}
	const u1, u2 = `{"prompt_tokens":1,"completion_tokens":1}`, `{"prompt_tokens":1,"completion_tokens":2}`
	tests := []struct {
		name    string
		options Options
		pieces  [][]byte // the last one is the end of the stream
		ending  []bool
	}{
		{"usage chunk, once", stream1(false), pieces(helloEvent, stopEvent, usageEvent, doneEvent, ""), []bool{false, false, true, false, true}},
		{"done without usage", stream1(false), pieces(helloEvent, stopEvent, doneEvent, ""), []bool{false, false, true, true}},
		{"neither", stream1(false), pieces(helloEvent, stopEvent, ""), []bool{false, false, true}},
		{"done without its line end", stream1(false), pieces(helloEvent, "data: [DON", "E]", "\n\n", ""), []bool{false, false, true, false, true}},
		{"done without the space", stream1(false), pieces("data:[DONE]", ""), []bool{true, true}},
		{"usage without its line end", stream1(false), pieces(usageEvent[:len(usageEvent)-3], "}", "\n", "\n", ""), []bool{false, true, false, false, true}},
		{"empty choices are no end", stream1(false), pieces(`data: {"choices":[],"prompt_filter_results":[]}`+"\n\n", `data: {"choices":[],"usage":null}`+"\n\n", ""), []bool{false, false, true}},
		{"choices absent", stream1(false), pieces(`data: {"usage":`+u1+`}`+"\n\n", ""), []bool{true, true}},
		{"choices null", stream1(false), pieces(`data: {"choices":null,"usage":`+u1+`}`+"\n\n", ""), []bool{true, true}},
		{"zeros are no end", stream1(false), pieces(`data: {"choices":[],"usage":{"total_tokens":0}}`+"\n\n", ""), []bool{false, true}},
		{"a lie is an end", stream1(false), pieces(`data: {"choices":[],"usage":{"total_tokens":-4}}`+"\n\n", ""), []bool{true, true}},
		{"usage on every chunk", stream1(false), pieces(choice("0", "null", u1), choice("0", `"stop"`, u2), `data: {"choices":[],"usage":`+u2+"}\n\n", doneEvent, ""), []bool{false, true, false, false, true}},
		{"a correction after the end", stream1(false), pieces(choice("0", `"stop"`, u1), `data: {"choices":[],"usage":`+u2+"}\n\n", doneEvent, ""), []bool{true, true, false, true}},
		{"usage after done", stream1(false), pieces(doneEvent, usageEvent, ""), []bool{true, true, true}},
		{"first of two choices", two, pieces(choice("0", `"stop"`, u1), choice("1", "null", u1), choice("1", `"stop"`, u2), ""), []bool{false, false, true, true}},
		{"one choice twice is not two", two, pieces(choice("0", `"stop"`, u1), choice("0", `"stop"`, u2), ""), []bool{false, false, true}},
		{"one choice of any number", stream1(false), pieces(choice("3", `"stop"`, u1), ""), []bool{true, true}},
		{"a later event's text", stream1(false), pieces(`data: {"choices":[{"delta":{"content":"[DONE] \"usage\":{\"total_tokens\":5}"}}]}`+"\n\n", ""), []bool{false, true}},
		{"a comment says nothing", stream1(false), pieces(": [DONE]\n\n", "event: [DONE]\n\n", ""), []bool{false, false, true}},
		{"no empty line between", stream1(false), pieces(strings.TrimSuffix(helloEvent, "\n"), strings.TrimSuffix(usageEvent, "\n"), "data: [DONE]\n", ""), []bool{false, true, false, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := read(t, tt.options, tt.pieces...).ending; !slices.Equal(got, tt.ending) {
				t.Errorf("Ending %v, want %v", got, tt.ending)
			}
			tt.options.DropUsageChunk = true
			if got := read(t, tt.options, tt.pieces...).ending; !slices.Equal(got, tt.ending) {
				t.Errorf("drop mode: Ending %v, want %v", got, tt.ending)
			}
		})
	}
}

func TestStreamComplete(t *testing.T) {
	two := stream1(false)
	two.Choices = 2
	many := stream1(false)
	many.Choices = 1 << 40
	tests := []struct {
		name             string
		options          Options
		body             string
		complete, failed bool
	}{
		{"done", stream1(false), helloEvent + doneEvent, true, false},
		{"final usage", stream1(false), helloEvent + usageEvent, true, false},
		{"finished", stream1(false), helloEvent + stopEvent, true, false},
		{"half finished", two, helloEvent + stopEvent, false, false},
		{"cut", stream1(false), helloEvent, false, false},
		{"nothing", stream1(false), "", false, false},
		{"endless choices", many, helloEvent + stopEvent, false, false},
		{"error event", stream1(false), helloEvent + `data: {"error":{"message":"x"}}` + "\n\n", false, true},
		{"error without wrapper", stream1(false), `data: {"object":"error","message":"x","code":500}` + "\n\n" + doneEvent, true, true},
		{"error null", stream1(false), `data: {"error":null,"choices":[]}` + "\n\n", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := read(t, tt.options, []byte(tt.body), nil).report
			if got.Complete != tt.complete || got.Failed != tt.failed {
				t.Errorf("Complete %v Failed %v, want %v %v", got.Complete, got.Failed, tt.complete, tt.failed)
			}
		})
	}
	m := NewMeter(stream1(false))
	defer m.Close()
	m.Write([]byte(helloEvent+stopEvent), false)
	if m.Report().Complete {
		t.Error("complete before the stream ended")
	}
}

func TestStreamOutput(t *testing.T) {
	tests := []struct {
		name, body, text string
		chunks           int64
	}{
		{"delta", helloEvent + helloEvent, "hellohello", 2},
		{"all members", `data: {"choices":[{"delta":{"role":"assistant","refusal":"a","content":"b","reasoning_content":"c","reasoning":"d","reasoning_details":[{"text":"no"}],"function_call":{"name":"e","arguments":"f"},"tool_calls":[{"id":"no","function":{"name":"g","arguments":"h"}}]},"logprobs":{"content":[{"token":"no"}]}}]}`, "abcdefgh", 1},
		{"parts", `data: {"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"}]},{"type":"text","text":"b"}]}}]}`, "ab", 1},
		{"text only where text is", `data: {"text":"no","choices":[{"text":"yes","delta":{"text":"no"}}],"delta":{"content":"no"}}`, "yes", 1},
		{"escapes", `data: {"choices":[{"delta":{"cont\u0065nt":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83dx\ude00\ud83d\ud83d\ude00\ud83d"}}]}`, "\"\\/\b\f\n\r\té😀\ufffdx\ufffd\ufffd😀\ufffd", 1},
		{"not JSON", "data: hello there\n\n", "hello there", 1},
		{"broken JSON", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},}]} tail\n\n" + helloEvent, "a]} tailhello", 2},
		{"cut JSON", `data: {"choices":[{"delta":{"content":"cut he`, "cut he", 1},
		{"no field", "hello\nworld: x\n\n", "helloworld: x", 1},
		{"other fields", "event: x\nid: x\nretry: 1\n: x\n\n", "", 0},
		{"not quite done", "data: [DONT]\n\ndata: [\n\n", "[DONT]", 1},
		{"array", "data: [1,2]\n\n", "", 0},
		{"too deep", "data: " + strings.Repeat("[", maxDepth+1) + "]\n\n", "]", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, p := range [][][]byte{{[]byte(tt.body)}, singles([]byte(tt.body))} {
				got := read(t, stream1(false), p...).report
				if got.OutputText != tt.text || got.OutputBytes != int64(len(tt.text)) || got.OutputChunks != tt.chunks {
					t.Errorf("%d pieces: %q, %d bytes, %d chunks; want %q, %d chunks", len(p), got.OutputText, got.OutputBytes, got.OutputChunks, tt.text, tt.chunks)
				}
			}
		})
	}
}

func TestAbortKeepsTheLastFigure(t *testing.T) {
	m := NewMeter(stream1(false))
	defer m.Close()
	m.Write([]byte(`data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}}`+"\n\n"), false)
	m.Write([]byte(`data: {"usage":{"prompt_tokens":5,"completion_tokens":3},"choices":[{"del`), false)
	if got := m.Report(); got.Verdict != Reported || got.Tokens.Total != 8 || got.Complete {
		t.Errorf("whole usage in a cut event: %+v", got)
	}
	m = NewMeter(stream1(false))
	defer m.Close()
	m.Write([]byte(`data: {"usage":{"prompt_tokens":5,"completion_tokens":3`), true)
	if got := m.Report(); got.Verdict != Absent {
		t.Errorf("cut usage was believed: %+v", got)
	}
}

func TestModel(t *testing.T) {
	long := strings.Repeat("é", 200)
	tests := []struct{ body, want string }{
		{`{"model":"a"}`, "a"},
		{`{"model":""}`, ""},
		{`{"model":null}`, ""},
		{`{"model":7,"x":{"model":"no"}}`, ""},
		{`{"model":"` + long + `"}`, long[:256]},
		{`{"model":"x` + long + `"}`, "x" + long[:254]},
	}
	for _, tt := range tests {
		if got := read(t, Options{}, []byte(tt.body)).report.Model; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.body, got, tt.want)
		}
	}
	if got := read(t, stream1(false), []byte("data: {\"model\":\"\"}\n\ndata: {\"model\":\"a\"}\n\ndata: {\"model\":\"b\"}\n\n")).report.Model; got != "a" {
		t.Errorf("first name: %q", got)
	}
}

func TestDrop(t *testing.T) {
	long := `data: {"choices":[],"usage":{"total_tokens":5},"id":"` + strings.Repeat("x", maxHeld) + "\"}\n\n"
	tests := []struct{ name, event string }{
		{"usage null", `data: {"choices":[],"usage":null}` + "\n\n"},
		{"usage no object", `data: {"choices":[],"usage":5}` + "\n\n"},
		{"with a choice", `data: {"choices":[{"index":0}],"usage":{"total_tokens":5}}` + "\n\n"},
		{"choices an object", `data: {"choices":{},"usage":{"total_tokens":5}}` + "\n\n"},
		{"with an error", `data: {"choices":[],"usage":{"total_tokens":5},"error":{}}` + "\n\n"},
		{"with filter results", `data: {"choices":[],"usage":{"total_tokens":5},"prompt_filter_results":[]}` + "\n\n"},
		{"another protocol", `data: {"type":"message_delta","delta":{},"usage":{"output_tokens":5}}` + "\n\n"},
		{"x_groq only", `data: {"choices":[],"x_groq":{"usage":{"total_tokens":5}}}` + "\n\n"},
		{"with something behind", `data: {"choices":[],"usage":{"total_tokens":5}} x` + "\n\n"},
		{"two values", `data: {"choices":[],"usage":{"total_tokens":5}}` + "\ndata: {\"choices\":[],\"usage\":{\"total_tokens\":5}}\n\n"},
		{"with done", `data: {"choices":[],"usage":{"total_tokens":5}}` + "\ndata: [DONE]\n\n"},
		{"with a stray line", `data: {"choices":[],"usage":{"total_tokens":5}}` + "\nhello\n\n"},
		{"longer than held", long},
		{"cut", `data: {"choices":[],"usage":{"total_tokens":5}`},
	}
	for _, tt := range tests {
		t.Run("kept: "+tt.name, func(t *testing.T) {
			body := helloEvent + tt.event
			for i := 1; i < len(body); i += 1 + len(body)/500 {
				got := read(t, stream1(true), []byte(body[:i]), []byte(body[i:]))
				if string(got.client) != body {
					t.Fatalf("split at %d: the client got %d bytes of %d", i, len(got.client), len(body))
				}
			}
		})
	}
	gone := []struct{ name, event string }{
		{"usage", usageEvent},
		{"choices absent", `data: {"usage":{"total_tokens":5}}` + "\n\n"},
		{"choices null", `data: {"choices":null,"usage":{}}` + "\n\n"},
		{"nulls beside", `data: {"choices":[],"usage":{"total_tokens":5},"error":null,"prompt_token_ids":null}` + "\n\n"},
		{"a lie", `data: {"choices":[],"usage":{"total_tokens":"5"}}` + "\n\n"},
		{"with its fields", "id: 1\nevent: message\n" + usageEvent},
		{"carriage returns", "data: {\"usage\":\rdata: {}}\r\r"},
	}
	for _, tt := range gone {
		t.Run("gone: "+tt.name, func(t *testing.T) {
			body := helloEvent + tt.event + doneEvent + tt.event
			for i := 1; i < len(body); i++ {
				got := read(t, stream1(true), []byte(body[:i]), []byte(body[i:]), nil)
				if want := helloEvent + doneEvent; string(got.client) != want {
					t.Fatalf("split at %d: the client got %q, want %q", i, got.client, want)
				}
			}
		})
	}
}

func TestDropHoldsBackNoMoreThanTheUnfinishedEvent(t *testing.T) {
	m := NewMeter(stream1(true))
	defer m.Close()
	step := m.Write([]byte(helloEvent+"data: {\"choi"), false)
	if !step.Changed || string(step.Body) != helloEvent {
		t.Fatalf("finished part: %q", step.Body)
	}
	step = m.Write([]byte("ces\":[]"), false)
	if !step.Changed || len(step.Body) != 0 {
		t.Fatalf("unfinished event: %q", step.Body)
	}
	step = m.Write([]byte("}\n\n"+helloEvent), false)
	if want := "data: {\"choices\":[]}\n\n" + helloEvent; !step.Changed || string(step.Body) != want {
		t.Fatalf("its end: %q", step.Body)
	}
	if step = m.Write([]byte(helloEvent), false); step.Changed {
		t.Fatal("copied without need")
	}
	m.Write([]byte("data: {\"a\":\""), false)
	step = m.Write(bytes.Repeat([]byte("x"), maxHeld), false)
	if !step.Changed || len(step.Body) != maxHeld+len("data: {\"a\":\"") {
		t.Fatalf("too long an event: %d bytes released", len(step.Body))
	}
	if step = m.Write([]byte("streams on"), false); step.Changed {
		t.Fatal("too long an event must stream on as it comes")
	}
}

func TestOneMeterPerEnvelope(t *testing.T) {
	for contentType, stream := range map[string]bool{
		"text/event-stream":                   true,
		"TEXT/Event-Stream ; charset=utf-8":   true,
		"text/event-stream; =broken":          true,
		"text/event-streams":                  false,
		"application/json":                    false,
		"application/octet-stream":            false,
		"":                                    false,
		"application/x; a=text/event-stream":  false,
		" text/event-stream":                  true,
		"text/event-stream, application/json": false,
	} {
		if got := isEventStream(contentType); got != stream {
			t.Errorf("%q: stream %v", contentType, got)
		}
	}
}
