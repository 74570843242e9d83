package usage

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// seeds adds every recording with the given ending; none found is a failure, not an empty run.
func seeds(f *testing.F, ending string, add func(body []byte)) {
	f.Helper()
	paths, err := filepath.Glob("testdata/openai/*" + ending)
	if err != nil || len(paths) == 0 {
		f.Fatalf("no recordings *%s: %v", ending, err)
	}
	for _, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		add(body)
	}
}

// cut splits body at places drawn from seed, empty pieces included.
func cut(body []byte, seed uint32) (pieces [][]byte) {
	for len(body) > 0 {
		seed = seed*1664525 + 1013904223
		n := min(int(seed>>24)%37, len(body))
		pieces = append(pieces, body[:n])
		body = body[n:]
	}
	return append(pieces, nil)
}

// laws are what holds for any bytes.
func laws(t *testing.T, o Options, body []byte, seed uint32) Report {
	t.Helper()
	whole := read(t, o, body)
	for _, pieces := range [][][]byte{cut(body, seed), append(singles(body), nil)} {
		same(t, "split", read(t, o, pieces...), whole.report, whole.client)
	}
	if !o.DropUsageChunk && !bytes.Equal(whole.client, body) {
		t.Fatal("the client's bytes changed")
	}
	if !isSubsequence(whole.client, body) {
		t.Fatal("the client got bytes that were not sent")
	}
	if !whole.ending[0] {
		t.Fatal("no Ending with the end of the stream")
	}
	r := whole.report
	if r.BodyBytes != int64(len(body)) || len(r.OutputText) > MaxOutputSample || int64(len(r.OutputText)) > r.OutputBytes || len(r.Model) > maxModel {
		t.Fatalf("bounds: %+v", r)
	}
	if k := r.Tokens; k.Total != k.Prompt+k.Completion || k.Prompt < 0 || k.Completion < 0 || k.Total > maxTokens || k.CachedPrompt < 0 || k.CachedPrompt > k.Prompt || k.Reasoning < 0 || k.Reasoning > k.Completion {
		t.Fatalf("tokens: %+v", k)
	}
	if (r.Verdict == Implausible) != (r.Reason != "") || r.Verdict != Reported && r.Tokens != (Tokens{}) {
		t.Fatalf("verdict: %+v", r)
	}
	m := newPlain(o)
	m.Write(body, false)
	if size := m.(interface{ size() int }).size(); size > keptMost+len(body) {
		t.Fatalf("%d bytes kept of %d", size, len(body))
	}
	return r
}

func isSubsequence(sub, of []byte) bool {
	for _, c := range of {
		if len(sub) > 0 && sub[0] == c {
			sub = sub[1:]
		}
	}
	return len(sub) == 0
}

func FuzzStream(f *testing.F) {
	seeds(f, ".sse", func(body []byte) {
		f.Add(body, uint32(1), int64(1), false)
		f.Add(body, uint32(2), int64(2), true)
	})
	f.Add([]byte("data: [\r\rdata: {\"usage\":{}}\r\n\r"), uint32(3), int64(1), true)
	f.Fuzz(func(t *testing.T, body []byte, seed uint32, choices int64, drop bool) {
		laws(t, Options{ContentType: "text/event-stream", Choices: choices, DropUsageChunk: drop}, body, seed)
	})
}

func FuzzJSON(f *testing.F) {
	seeds(f, ".json", func(body []byte) {
		f.Add(body, uint32(1), false)
		f.Add(body, uint32(2), true)
	})
	f.Fuzz(func(t *testing.T, body []byte, seed uint32, embeddings bool) {
		r := laws(t, Options{Embeddings: embeddings}, body, seed)
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return
		}
		if object != nil && !tooDeep(body) && (!r.Complete || r.Failed && object["error"] == nil && object["object"] == nil) {
			t.Fatalf("a valid object is %+v", r)
		}
	})
}

func tooDeep(body []byte) bool {
	return bytes.Count(body, []byte("["))+bytes.Count(body, []byte("{")) >= maxDepth
}

func FuzzUsageObject(f *testing.F) {
	seeds(f, ".json", func(body []byte) {
		var answer struct{ Usage json.RawMessage }
		if err := json.Unmarshal(body, &answer); err != nil {
			f.Fatal(err)
		}
		if answer.Usage != nil {
			f.Add([]byte(answer.Usage), true, int64(5))
		}
	})
	for _, usage := range []string{`{"completion_tokens":1e999}`, `{"total_tokens":5.0,"prompt_tokens":null}`, `[]`, `"x"`, `{"prompt_tokens":-0}`} {
		f.Add([]byte(usage), false, int64(0))
	}
	f.Fuzz(func(t *testing.T, usage []byte, embeddings bool, output int64) {
		tokens, reason, stated := readUsage(usage, embeddings)
		if tokens.Total != tokens.Prompt+tokens.Completion || tokens.Prompt < 0 || tokens.Completion < 0 || tokens.Total > maxTokens {
			t.Fatalf("tokens %+v", tokens)
		}
		if tokens.CachedPrompt < 0 || tokens.CachedPrompt > tokens.Prompt || tokens.Reasoning < 0 || tokens.Reasoning > tokens.Completion {
			t.Fatalf("parts %+v", tokens)
		}
		if reason != "" && (tokens != (Tokens{}) || !stated) || !stated && tokens != (Tokens{}) {
			t.Fatalf("%+v with reason %q, stated %v", tokens, reason, stated)
		}
		if !json.Valid(usage) && reason != ReasonMalformed {
			t.Fatalf("not JSON, yet the reason is %q", reason)
		}
		var fig figure
		fig.take(tokens, reason, false)
		if verdict, _, why := fig.judge(embeddings, output); (verdict == Implausible) != (why != "") {
			t.Fatalf("verdict %v, reason %q", verdict, why)
		}
	})
}
