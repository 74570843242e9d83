package usage

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Pieces of streams and answers, whole and broken, in any order: closer to the grammar than random bytes, and as far from sense.
var (
	streamSoup = []string{
		helloEvent, stopEvent, usageEvent, doneEvent, strings.ReplaceAll(usageEvent, "\n", "\r\n"), strings.ReplaceAll(usageEvent, "\n", "\r"),
		"data", "data:", "data: ", ": c", "event: x", "id", "x", byteOrderMark, "\n", "\r", "\r\n", "\n\n", " ",
		"[DONE]", "[DO", "NE]", "[", "{", "}", `{"usage":{`, `"total_tokens":5`, `}}`, `"`, `\`, `\ud83d`, `{"choices":[]`, `,"usage":{}`, `{"error":{}}`, `{}`, `5`,
	}
	jsonSoup = []string{
		`{`, `}`, `[`, `]`, `,`, `:`, `"`, `"usage":`, `{"total_tokens":5}`, `"choices":[{"text":"a`, `"}]`, `"model":"m"`, `null`, `true`, `-1.5e3`, ` `, "\n", byteOrderMark, `\u00`, `e9`, `\"`, `x`,
		`{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
	}
)

func soup(r *rapid.T, of []string) []byte {
	return []byte(strings.Join(rapid.SliceOfN(rapid.SampledFrom(of), 0, 25).Draw(r, "soup"), ""))
}

func TestLawsOfStreams(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		o := stream1(rapid.Bool().Draw(r, "drop"))
		o.Choices = rapid.Int64Range(0, 3).Draw(r, "choices")
		laws(t, o, soup(r, streamSoup), rapid.Uint32().Draw(r, "seed"))
	})
}

func TestLawsOfJSON(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		laws(t, Options{Embeddings: rapid.Bool().Draw(r, "embeddings")}, soup(r, jsonSoup), rapid.Uint32().Draw(r, "seed"))
	})
}
