package usage

import (
	"slices"
	"strings"
	"testing"
)

func TestJSONEnding(t *testing.T) {
	tests := []struct {
		name   string
		pieces [][]byte
		ending []bool
	}{
		{"whole", pieces(`{"a":1}`), []bool{true}},
		{"end of stream apart", pieces(`{"a":1}`, ""), []bool{true, true}},
		{"closing brace apart", pieces(`{"a":{"b":[1]}`, "}", "\n", ""), []bool{false, true, false, true}},
		{"braces in strings", pieces(`{"a":"}`, `\"}`, `"`, `}`, ""), []bool{false, false, false, true, true}},
		{"array", pieces(`[1,2`, `]`, ``), []bool{false, true, true}},
		{"not JSON", pieces("hello", "", "x"), []bool{false, false, true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := read(t, Options{DropUsageChunk: true}, tt.pieces...); !slices.Equal(got.ending, tt.ending) {
				t.Errorf("Ending %v, want %v", got.ending, tt.ending)
			} else if slices.Contains(got.change, true) {
				t.Errorf("a JSON body was changed")
			}
		})
	}
}

func TestJSONBodies(t *testing.T) {
	const text = `{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`
	tests := []struct {
		name, body  string
		verdict     Verdict
		complete    bool
		failed      bool
		outputBytes int64
	}{
		{"plain", text, Reported, true, false, 2},
		{"byte order mark", byteOrderMark + "\n" + text + "\n", Reported, true, false, 2},
		{"cut behind the usage", strings.TrimSuffix(text, "}"), Reported, false, false, 2},
		{"cut in the usage", strings.TrimSuffix(text, "}}"), Absent, false, false, 2},
		{"something behind", text + " \n x y", Reported, true, false, 4},
		{"last duplicate", strings.TrimSuffix(text, "}") + `,"usage":{"completion_tokens":0.5}}`, Implausible, true, false, 2},
		{"smaller duplicate", `{"usage":{"completion_tokens":9},"usage":{"completion_tokens":1}}`, Reported, true, false, 0},
		{"error", `{"error":{"message":"x"}}`, Absent, true, true, 0},
		{"error text", `{"error":"x"}`, Absent, true, true, 0},
		{"error null", `{"error":null}`, Absent, true, false, 0},
		{"empty", "", Absent, false, false, 0},
		{"white space", " \n", Absent, false, false, 0},
		{"text", "hello", Absent, true, false, 5},
		{"number", " 12", Absent, true, false, 3},
		{"half a byte order mark", "\xEF\xBBx", Absent, true, false, 3},
		{"broken behind the usage", `{"usage":{"completion_tokens":9},}`, Absent, true, false, 34},
		{"missing colon", `{"a" 1}`, Absent, true, false, 7},
		{"missing comma", `[1 2]`, Absent, true, false, 5},
		{"wrong bracket", `{"a":[1}}`, Absent, true, false, 9},
		{"trailing comma", `[1,]`, Absent, true, false, 4},
		{"bad literal", `[nul]`, Absent, true, false, 5},
		{"bad escape", `["\x"]`, Absent, true, false, 6},
		{"bad hex", `["\u00g0"]`, Absent, true, false, 10},
		{"line break in a string", "[\"a\nb\"]", Absent, true, false, 7},
		{"bare key", `{a:1}`, Absent, true, false, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := read(t, Options{}, []byte(tt.body)).report
			if whole.Verdict != tt.verdict || whole.Complete != tt.complete || whole.Failed != tt.failed || whole.OutputBytes != tt.outputBytes {
				t.Errorf("%+v", whole)
			}
			if split := read(t, Options{}, append(singles([]byte(tt.body)), nil)...).report; split != whole {
				t.Errorf("single bytes: %+v, whole: %+v", split, whole)
			}
		})
	}
}

func TestOutputSample(t *testing.T) {
	long := strings.Repeat("é", MaxOutputSample)
	for _, lead := range []string{"", "x"} {
		got := read(t, Options{}, []byte(`{"choices":[{"text":"`+lead+long+`"}]}`)).report
		want := (lead + long)[:MaxOutputSample-len(lead)]
		if got.OutputText != want || got.OutputBytes != int64(len(lead+long)) {
			t.Errorf("lead %q: sample of %d bytes, want %d; %d in all", lead, len(got.OutputText), len(want), got.OutputBytes)
		}
	}
}
