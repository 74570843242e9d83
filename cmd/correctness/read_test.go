package main

import (
	"errors"
	"io"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

func TestRead(t *testing.T) {
	events := []rig.Event{
		{Data: `{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}`},
		{Data: `{"choices":[{"delta":{"content":" hello hello"},"finish_reason":null}],"usage":null}`},
		{Data: `{"choices":[{"delta":{"content":" hello"},"finish_reason":null}]}`},
		{Data: `{"choices":[{"delta":{},"finish_reason":"stop"}]}`},
		{Data: `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}}`},
		{Data: "[DONE]"},
	}
	for seen, want := range []struct {
		tokens          int64
		finished, usage bool
	}{{0, false, false}, {0, false, false}, {2, false, false}, {3, false, false}, {3, true, false}, {3, true, true}, {3, true, true}} {
		tokens, finished, usage := read(events[:seen])
		if tokens != want.tokens || finished != want.finished || usage != want.usage {
			t.Errorf("%d events: %d tokens, finished %t, usage %t; want %+v", seen, tokens, finished, usage, want)
		}
	}
}

func TestWrongArguments(t *testing.T) {
	enough := []string{"-gateway", "http://127.0.0.1:1", "-upstream", "127.0.0.1:0", "-new-key", "echo k", "-used", "echo 0"}
	for _, more := range [][]string{
		{"-scenarios", "overspend,nothing"},
		{"-scenarios", "overspend", "-fits", "0"},
		{"-scenarios", "kill"},
		{"-scenarios", "cost"},
		{"-parallel", "many"},
		{"-parallel", "0"},
		{"-used", ""},
		{"again"},
	} {
		if err := run(t.Context(), append(enough[:len(enough):len(enough)], more...), io.Discard, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want a usage error", more, err)
		}
	}
}
