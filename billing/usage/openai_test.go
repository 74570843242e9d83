package usage

import (
	"strings"
	"testing"
)

func TestUsageObject(t *testing.T) {
	big := strings.Repeat("x", maxCapture)
	tests := []struct {
		name, usage string
		verdict     Verdict
		tokens      Tokens
		reason      string
	}{
		{"plain", `{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}`, Reported, Tokens{3, 4, 7, 0, 0, 0, 0, 0}, ""},
		{"without total", `{"prompt_tokens":3,"completion_tokens":4}`, Reported, Tokens{3, 4, 7, 0, 0, 0, 0, 0}, ""},
		{"input and output", `{"input_tokens":3,"output_tokens":4,"input_tokens_details":{"cached_tokens":2},"output_tokens_details":{"reasoning_tokens":1}}`, Reported, Tokens{3, 4, 7, 2, 0, 0, 1, 0}, ""},
		{"null leaves the other spelling", `{"prompt_tokens":null,"input_tokens":3,"completion_tokens":4}`, Reported, Tokens{3, 4, 7, 0, 0, 0, 0, 0}, ""},
		{"total above the parts", `{"prompt_tokens":35,"completion_tokens":12,"total_tokens":109}`, Reported, Tokens{35, 74, 109, 0, 0, 0, 0, 0}, ""},
		{"total below the parts", `{"prompt_tokens":35,"completion_tokens":12,"total_tokens":40}`, Reported, Tokens{35, 12, 47, 0, 0, 0, 0, 0}, ""},
		{"total only", `{"total_tokens":8}`, Reported, Tokens{0, 8, 8, 0, 0, 0, 0, 0}, ""},
		{"prompt missing", `{"completion_tokens":8}`, Reported, Tokens{0, 8, 8, 0, 0, 0, 0, 0}, ""},
		{"written with a point", `{"prompt_tokens":3.0,"completion_tokens":5.0}`, Reported, Tokens{3, 5, 8, 0, 0, 0, 0, 0}, ""},
		{"written with an exponent", `{"prompt_tokens":3e2,"completion_tokens":5}`, Reported, Tokens{300, 5, 305, 0, 0, 0, 0, 0}, ""},
		{"fractions elsewhere", `{"queue_time":0.5,"prompt_tokens":3,"completion_tokens":5,"cost":1e-9}`, Reported, Tokens{3, 5, 8, 0, 0, 0, 0, 0}, ""},
		{"largest", `{"completion_tokens":10000000}`, Reported, Tokens{0, 10_000_000, 10_000_000, 0, 0, 0, 0, 0}, ""},
		{"last duplicate wins", `{"completion_tokens":1,"completion_tokens":2}`, Reported, Tokens{0, 2, 2, 0, 0, 0, 0, 0}, ""},
		{"escaped name", `{"completion\u005ftokens":2}`, Reported, Tokens{0, 2, 2, 0, 0, 0, 0, 0}, ""},

		{"cache hits", `{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":4}`, Reported, Tokens{9, 1, 10, 4, 0, 0, 0, 0}, ""},
		{"cache hits and cached are one", `{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":4,"prompt_tokens_details":{"cached_tokens":4}}`, Reported, Tokens{9, 1, 10, 4, 0, 0, 0, 0}, ""},
		{"details null", `{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":null,"completion_tokens_details":{}}`, Reported, Tokens{9, 1, 10, 0, 0, 0, 0, 0}, ""},
		{"all parts", `{"prompt_tokens":90,"completion_tokens":80,"prompt_tokens_details":{"cached_tokens":40,"cache_write_tokens":20,"audio_tokens":10},"completion_tokens_details":{"reasoning_tokens":30,"audio_tokens":5}}`, Reported, Tokens{90, 80, 170, 40, 20, 10, 30, 5}, ""},
		{"cache writes by Anthropic's name", `{"prompt_tokens":90,"completion_tokens":1,"cache_creation_input_tokens":7}`, Reported, Tokens{90, 1, 91, 0, 7, 0, 0, 0}, ""},
		{"audio not believed", `{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"audio_tokens":10},"completion_tokens_details":{"audio_tokens":-2}}`, Reported, Tokens{9, 1, 10, 0, 0, 9, 0, 0}, ""},
		{"detail above its whole", `{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":10},"reasoning_tokens":2}`, Reported, Tokens{9, 1, 10, 9, 0, 0, 1, 0}, ""},
		{"detail not believed", `{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":-1},"completion_tokens_details":{"reasoning_tokens":"1"}}`, Reported, Tokens{9, 1, 10, 0, 0, 0, 0, 0}, ""},
		{"detail too large", `{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":10000001}}`, Reported, Tokens{9, 1, 10, 0, 0, 0, 0, 0}, ""},
		{"reasoning in the surplus", `{"prompt_tokens":9,"completion_tokens":1,"total_tokens":15,"completion_tokens_details":{"reasoning_tokens":5}}`, Reported, Tokens{9, 6, 15, 0, 0, 0, 5, 0}, ""},

		{"null", `null`, Absent, Tokens{}, ""},
		{"empty", `{}`, Absent, Tokens{}, ""},
		{"no count", `{"type":"duration","seconds":9,"total_tokens":null}`, Absent, Tokens{}, ""},

		{"negative prompt", `{"prompt_tokens":-1,"completion_tokens":4}`, Implausible, Tokens{}, ReasonNegative},
		{"negative completion", `{"prompt_tokens":1,"completion_tokens":-4}`, Implausible, Tokens{}, ReasonNegative},
		{"negative total", `{"prompt_tokens":1,"completion_tokens":4,"total_tokens":-5.5}`, Implausible, Tokens{}, ReasonNegative},
		{"negative beyond floats", `{"completion_tokens":-1e999}`, Implausible, Tokens{}, ReasonNegative},
		{"fraction", `{"prompt_tokens":1,"completion_tokens":1.5}`, Implausible, Tokens{}, ReasonNotAnInteger},
		{"fraction by exponent", `{"completion_tokens":15e-1}`, Implausible, Tokens{}, ReasonNotAnInteger},
		{"string", `{"prompt_tokens":1,"completion_tokens":"4"}`, Implausible, Tokens{}, ReasonNotANumber},
		{"bool", `{"prompt_tokens":true,"completion_tokens":4}`, Implausible, Tokens{}, ReasonNotANumber},
		{"object", `{"prompt_tokens":1,"completion_tokens":4,"total_tokens":{}}`, Implausible, Tokens{}, ReasonNotANumber},
		{"array", `{"completion_tokens":[4]}`, Implausible, Tokens{}, ReasonNotANumber},
		{"too large prompt", `{"prompt_tokens":10000001,"completion_tokens":4}`, Implausible, Tokens{}, ReasonTooLarge},
		{"too large total", `{"prompt_tokens":1,"completion_tokens":4,"total_tokens":9223372036854775807}`, Implausible, Tokens{}, ReasonTooLarge},
		{"too large together", `{"prompt_tokens":9000000,"completion_tokens":9000000}`, Implausible, Tokens{}, ReasonTooLarge},
		{"1e30", `{"completion_tokens":1e30}`, Implausible, Tokens{}, ReasonTooLarge},
		{"beyond floats", `{"completion_tokens":1e999}`, Implausible, Tokens{}, ReasonTooLarge},
		{"zero for output", `{"prompt_tokens":3,"completion_tokens":0,"total_tokens":3}`, Implausible, Tokens{}, ReasonZeroForOutput},
		{"all zero for output", `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`, Implausible, Tokens{}, ReasonZeroForOutput},
		{"string for an object", `"none"`, Implausible, Tokens{}, ReasonMalformed},
		{"number for an object", `12`, Implausible, Tokens{}, ReasonMalformed},
		{"array for an object", `[{"completion_tokens":4}]`, Implausible, Tokens{}, ReasonMalformed},
		{"bad number", `{"completion_tokens":01}`, Implausible, Tokens{}, ReasonMalformed},
		{"longer than kept", `{"x":"` + big + `","completion_tokens":4}`, Implausible, Tokens{}, ReasonMalformed},
	}
	for _, tt := range tests {
		body := []byte(`{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":` + tt.usage + `}`)
		event := []byte("data: " + string(body) + "\n\n")
		for name, got := range map[string]Report{
			"json":   read(t, Options{}, body).report,
			"stream": read(t, Options{ContentType: "text/event-stream"}, event).report,
		} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				if got.Verdict != tt.verdict || got.Tokens != tt.tokens || got.Reason != tt.reason {
					t.Errorf("got %v %+v %q, want %v %+v %q", got.Verdict, got.Tokens, got.Reason, tt.verdict, tt.tokens, tt.reason)
				}
				if got.OutputText != "hi" || got.OutputBytes != 2 {
					t.Errorf("output %q, %d bytes: the estimate needs it whatever the verdict", got.OutputText, got.OutputBytes)
				}
			})
		}
	}
}

func TestUsageWithoutOutput(t *testing.T) {
	tests := []struct {
		name, usage string
		embeddings  bool
		verdict     Verdict
		tokens      Tokens
		reason      string
	}{
		{"honest zero", `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`, false, Reported, Tokens{}, ""},
		{"prompt only", `{"prompt_tokens":5,"total_tokens":5}`, false, Reported, Tokens{5, 0, 5, 0, 0, 0, 0, 0}, ""},
		{"embeddings, total only", `{"total_tokens":5}`, true, Reported, Tokens{5, 0, 5, 0, 0, 0, 0, 0}, ""},
		{"embeddings, both", `{"prompt_tokens":5,"total_tokens":5}`, true, Reported, Tokens{5, 0, 5, 0, 0, 0, 0, 0}, ""},
		{"embeddings, zero prompt", `{"prompt_tokens":0,"total_tokens":0}`, true, Implausible, Tokens{}, ReasonZeroForOutput},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := read(t, Options{Embeddings: tt.embeddings}, []byte(`{"usage":`+tt.usage+`}`)).report
			if got.Verdict != tt.verdict || got.Tokens != tt.tokens || got.Reason != tt.reason {
				t.Errorf("got %v %+v %q, want %v %+v %q", got.Verdict, got.Tokens, got.Reason, tt.verdict, tt.tokens, tt.reason)
			}
		})
	}
}

func TestCumulativeFigures(t *testing.T) {
	const (
		zero  = `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`
		small = `{"prompt_tokens":5,"completion_tokens":1}`
		large = `{"prompt_tokens":5,"completion_tokens":9}`
	)
	middle := func(usage string) string {
		return `data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}],"usage":` + usage + "}\n\n"
	}
	final := func(usage string) string { return `data: {"choices":[],"usage":` + usage + "}\n\n" }
	tests := []struct {
		name, body string
		verdict    Verdict
		total      int64
		reason     string
	}{
		{"last wins, nothing is summed", middle(small) + middle(small) + final(large), Reported, 14, ""},
		{"null takes nothing back", middle(small) + final("null"), Reported, 6, ""},
		{"no count takes nothing back", middle(small) + final("{}"), Reported, 6, ""},
		{"zeros before", middle(zero) + final(small), Reported, 6, ""},
		{"zeros between", middle(small) + middle(zero), Reported, 6, ""},
		{"zeros only", middle(zero) + middle(zero), Implausible, 0, ReasonZeroForOutput},
		{"zeros at the end", middle(small) + final(zero), Implausible, 0, ReasonFalling},
		{"falling", middle(large) + final(small), Implausible, 0, ReasonFalling},
		{"falling and back", middle(large) + middle(small) + final(large), Reported, 14, ""},
		{"a lie between", middle(small) + middle(`{"completion_tokens":-1}`) + final(large), Reported, 14, ""},
		{"a lie at the end", middle(small) + final(`{"completion_tokens":-1}`), Implausible, 0, ReasonNegative},
		{"zeros do not cover a lie", middle(`{"completion_tokens":-1}`) + middle(zero), Implausible, 0, ReasonNegative},
		{"falling below a believed figure behind a lie", middle(large) + middle(`{"completion_tokens":-1}`) + final(small), Implausible, 0, ReasonFalling},
		{"x_groq", `data: {"choices":[],"x_groq":{"usage":` + small + "}}\n\n", Reported, 6, ""},
		{"usage before x_groq", `data: {"usage":` + large + `,"choices":[],"x_groq":{"usage":` + small + "}}\n\n", Reported, 14, ""},
		{"x_groq beside null", `data: {"x_groq":{"usage":` + small + `},"usage":null}` + "\n\n", Reported, 6, ""},
		{"last duplicate in one chunk", `data: {"usage":` + large + `,"usage":` + small + "}\n\n", Reported, 6, ""},
		{"usage further down is none", `data: {"choices":[{"usage":` + small + `}],"a":{"usage":` + small + "}}\n\n", Absent, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := read(t, Options{ContentType: "text/event-stream"}, []byte(tt.body)).report
			if got.Verdict != tt.verdict || got.Tokens.Total != tt.total || got.Reason != tt.reason {
				t.Errorf("got %v %+v %q, want %v %d %q", got.Verdict, got.Tokens, got.Reason, tt.verdict, tt.total, tt.reason)
			}
		})
	}
}
