package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serveModel is the model server: canned answers, as cheap as net/http allows.
// The request's user member says how to stream: "events:pause in µs".
func serveModel(at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: time.Minute}
	return s.Serve(l)
}

const usageJSON = `{"prompt_tokens":230,"completion_tokens":120,"total_tokens":350}`

func jsonAnswer() string {
	return `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("lorem ipsum ", 45) + `"},"logprobs":null,"finish_reason":"stop"}],"usage":` + usageJSON + `}`
}

func event(choices, usage string) string {
	return `data: {"id":"chatcmpl-bench-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"bench","system_fingerprint":"fp_0123456789","service_tier":"default","choices":[` + choices + `],"usage":` + usage + "}\n\n"
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, spec, streams := bytes.Cut(body, []byte(`"user":"`))
	if !streams {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, jsonAnswer())
		return
	}
	var events, pause int
	if _, err := fmt.Sscanf(string(spec), "%d:%d", &events, &pause); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	stream(w, events, time.Duration(pause)*time.Microsecond, bytes.Contains(body, []byte(`"include_usage":true`)))
}

func stream(w http.ResponseWriter, events int, pause time.Duration, usage bool) {
	control := http.NewResponseController(w)
	chunk := event(`{"index":0,"delta":{"content":" lorem"},"logprobs":null,"finish_reason":null}`, "null")
	next := time.Now()
	for range events {
		if pause > 0 {
			next = next.Add(pause)
			time.Sleep(time.Until(next))
		}
		if _, err := io.WriteString(w, chunk); err != nil {
			return
		}
		_ = control.Flush()
	}
	_, _ = io.WriteString(w, event(`{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}`, "null"))
	if usage {
		_, _ = io.WriteString(w, event("", usageJSON))
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// requestBody is about 1.1 KB; spec makes it a stream.
func requestBody(spec string) string {
	body := `{"model":"bench","messages":[{"role":"system","content":"You are a benchmark."},{"role":"user","content":"` +
		strings.Repeat("What would you like to know today? ", 26) + `"}],"temperature":0.7,"max_tokens":200`
	if spec != "" {
		body += `,"stream":true,"user":"` + spec + `"`
	}
	return body + "}"
}

func streamSpec(events int, pause time.Duration) string {
	return strconv.Itoa(events) + ":" + strconv.FormatInt(pause.Microseconds(), 10)
}
