package reconcile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// page is how OpenAI answers GET /v1/organization/usage/completions?bucket_width=1d&group_by=model.
const page = `{
  "object": "page",
  "data": [
    {
      "object": "bucket",
      "start_time": 1793491200,
      "end_time": 1793577600,
      "results": [
        {
          "object": "organization.usage.completions.result",
          "input_tokens": 1000, "output_tokens": 500, "input_cached_tokens": 800,
          "input_audio_tokens": 0, "output_audio_tokens": 0, "num_model_requests": 5,
          "project_id": null, "user_id": null, "api_key_id": null,
          "model": "gpt-4o-2024-08-06", "batch": false, "service_tier": null
        },
        {
          "object": "organization.usage.completions.result",
          "input_tokens": 1, "output_tokens": 2, "input_cached_tokens": 0, "num_model_requests": 1,
          "model": "gpt-4o-2024-08-06", "batch": true
        }
      ]
    },
    {"object": "bucket", "start_time": 1793577600, "end_time": 1793664000, "results": []}
  ],
  "has_more": %v,
  "next_page": null
}
`

const embeddings = `{"object":"page","data":[{"object":"bucket","start_time":1793491200,"end_time":1793577600,"results":[
	{"object":"organization.usage.embeddings.result","input_tokens":16,"num_model_requests":2,"model":"text-embedding-3-small"}]}],"has_more":false}`

func TestRead(t *testing.T) {
	gpt := Row{Day: "2026-11-01", Model: "gpt-4o-2024-08-06", Figures: Figures{1001, 502, 800, 6}}
	pages := func(more ...any) string { return fmt.Sprintf(page, more...) }
	all := Stated{Cached: true, Requests: true}
	openAI := Export{Rows: []Row{gpt}, First: "2026-11-01", Last: "2026-11-02", Stated: all, ByModel: true}
	cut := openAI
	cut.Cut = true
	twice := openAI
	twice.Rows = []Row{{Day: gpt.Day, Model: gpt.Model, Figures: gpt.Plus(gpt.Figures)}}
	mixed := openAI
	mixed.Rows = []Row{gpt, {Day: "2026-11-01", Model: "text-embedding-3-small", Figures: Figures{Prompt: 16, Requests: 2}}}
	mixed.Stated.Cached = false
	plain := Export{
		Rows:  []Row{{Day: "2026-11-01", Model: "a", Figures: Figures{3, 4, 0, 2}}, {Day: "2026-11-03", Model: "b", Figures: Figures{Prompt: 5}}},
		First: "2026-11-01", Last: "2026-11-03", Stated: Stated{Requests: true}, ByModel: true,
	}
	for _, c := range []struct {
		name, text string
		want       Export
	}{
		{"one page", pages(false), openAI},
		{"a page that is not the last", pages(true), cut},
		{"pages in a list", "[" + pages(true) + "," + embeddings + "]", mixed},
		{"one page after another", "\ufeff" + pages(true) + pages(false), twice},
		{"the buckets alone", `[{"start_time":1793491200,"results":[{"input_tokens":1001,"output_tokens":502,"input_cached_tokens":800,"num_model_requests":6,"model":"gpt-4o-2024-08-06"}]},
			{"start_time":1793577600,"result":[]}]`, openAI},
		{
			"not by model", `{"object":"page","data":[{"object":"bucket","start_time":1793491200,"end_time":1793577600,"results":[
			{"input_tokens":9,"output_tokens":8,"input_cached_tokens":7,"num_model_requests":6,"model":null}]}],"has_more":false}`,
			Export{Rows: []Row{{Day: "2026-11-01", Figures: Figures{9, 8, 7, 6}}}, First: "2026-11-01", Last: "2026-11-01", Stated: all},
		},
		{
			"by hours", `{"data":[{"start_time":1793523600,"end_time":1793527200,"results":[]},{"start_time":1793527200,"end_time":1793530800,"results":[]}]}`,
			Export{First: "2026-11-01", Last: "2026-11-01", Stated: all, ByModel: true, Partial: []string{"2026-11-01"}},
		},
		{"nothing", `{"object":"page","data":[],"has_more":false}`, Export{Stated: all, ByModel: true}},
		{"rows", `[{"date":"2026-11-01","model_name":"a","context_tokens":1,"generated_tokens":4,"n_requests":1},
			{"date":"2026-11-01T23:59:59Z","model_name":"a","context_tokens":2,"generated_tokens":null,"n_requests":1},
			{"date":"2026-11-02T23:30:00-02:00","model_name":"b","context_tokens":"5","generated_tokens":"","n_requests":0}]`, plain},
		{"rows in an object", `{"rows":[{"Day":"2026-11-01","Model":"a","Prompt Tokens":3,"completion-tokens":4,"requests":2},
			{"Day":"2026-11-03","Model":"b","Prompt Tokens":5,"completion-tokens":0,"requests":0}]}`, plain},
		{"the old usage API", `{"object":"list","data":[{"aggregation_timestamp":1793491500,"snapshot_id":"a","n_context_tokens_total":3,"n_generated_tokens_total":4,"n_requests":2},
			{"aggregation_timestamp":1793664300,"snapshot_id":"b","n_context_tokens_total":5,"n_generated_tokens_total":0,"n_requests":0}]}`, plain},
		{"CSV of the dashboard", "start_time,end_time,start_time_iso,end_time_iso,input_tokens,output_tokens,input_cached_tokens,num_model_requests,model\n" +
			"1793491200,1793577600,2026-11-01T00:00:00+00:00,2026-11-02T00:00:00+00:00,1001,502,800,6,gpt-4o-2024-08-06\n" +
			"1793577600,1793664000,2026-11-02T00:00:00+00:00,2026-11-03T00:00:00+00:00,,,,,\n", openAI},
		{"CSV of a spreadsheet", "\ufeffUsage Date; Model Name ;Input Tokens;Output Tokens;Requests;note\r\n2026-11-01;a;3;4;2;\"x;y\"\r\n\r\n2026-11-03;b;5;;0;\r\n", plain},
		{"tabs", "day\tmodel\tprompt_tokens\tcompletion_tokens\trequests\n2026-11-01\ta\t3\t4\t2\n2026-11-03 00:00:00Z\tb\t5\t0\t0", plain},
		{"CSV of our own usage", "day,key_id,model,prompt_tokens,completion_tokens,total_tokens,requests,reported\n2026-11-01,k,a,3,4,7,2,2\n2026-11-03,k,b,5,0,5,0,0\n", plain},
		{"a header alone", "day,model,prompt_tokens\n", Export{Stated: all, ByModel: true}},
	} {
		got, err := Read([]byte(c.text))
		if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, err, diff)
		}
	}
}

func TestRead_mistakes(t *testing.T) {
	const header = "day,model,prompt_tokens,requests\n"
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "line 1: the file is empty"},
		{"unknown columns", "when,what,how_much\n1,2,3\n", "line 1: the columns are not known: expected day|date|start_time|start_time_iso|usage_date|aggregation_timestamp, " +
			"model|model_name|snapshot_id, prompt_tokens|input_tokens|n_context_tokens_total|context_tokens, and where there are any completion_tokens|output_tokens"},
		{"no model", "day,prompt_tokens\n2026-11-01,1\n", "line 1: the columns are not known"},
		{"not a table", "PK\x03\x04", "line 1: the columns are not known"},
		{"a column twice", "day,model,prompt_tokens,Prompt Tokens\n", "line 1: expected each column once: prompt_tokens"},
		{"a day that is none", header + "2026-11-31,a,1,1\n", "line 2: day: expected a day such as 2026-11-30"},
		{"a time without a zone", header + "2026-11-01T00:00:00,a,1,1\n", "line 2: day: expected a day such as 2026-11-30, a time with its zone"},
		{"a day without dashes", header + "20261101,a,1,1\n", "line 2: day: expected a day"},
		{"milliseconds", header + "1793491200000,a,1,1\n", "line 2: day: expected a day"},
		{"a row of sums", header + "2026-11-01,a,1,1\nTotal,,1,1\n", "line 3: day: expected a day"},
		{"thousands", header + "2026-11-01,a,\"1,000\",1\n", "line 2: prompt_tokens: expected a whole number of 0 or more, digits only"},
		{"a fraction", header + "2026-11-01,a,1.0,1\n", "line 2: prompt_tokens: expected a whole number"},
		{"an exponent", header + "2026-11-01,a,1e3,1\n", "line 2: prompt_tokens: expected a whole number"},
		{"negative", header + "2026-11-01,a,1,-1\n", "line 2: requests: expected a whole number"},
		{"a sign", header + "2026-11-01,a,+1,1\n", "line 2: prompt_tokens: expected a whole number"},
		{"other digits", header + "2026-11-01,a,١,1\n", "line 2: prompt_tokens: expected a whole number"},
		{"beyond int64", header + "2026-11-01,a,9223372036854775808,1\n", "line 2: prompt_tokens: expected a whole number"},
		{"a sum beyond int64", header + "2026-11-01,a,1152921504606846976,1\n2026-11-01,a,1,1\n", "line 3: the figures are too large"},
		{"a column too few", header + "2026-11-01,a,1,1\n\n2026-11-01,a,1\n", "line 4: expected as many columns as the header has"},
		{"a quote", header + "2026-11-01,\"a,1,1\n", "line 2: expected CSV: a quote"},
		{"cut off", "{\"data\": [\n{\"start_time\": 17", "line 2: expected more: the end is missing"},
		{"no JSON", "[\n\n{day: 1}]", "line 3: expected valid JSON"},
		{"a name twice", "[{\"day\": 1,\n\"day\": 2}]", "line 2: expected each name once"},
		{"a list of numbers", "[\n1]", "line 2: expected an object"},
		{"an object of something else", `{"error": {"message": "no"}}`, "line 1: the columns are not known"},
		{"data that is no list", "{\n\"data\": {}}", "line 2: data: expected a list"},
		{"costs", `{"data":[{"start_time":1793491200,"results":[` + "\n" + `{"object":"organization.costs.result","amount":{"value":1}}]}]}`, "line 2: expected usage of completions or embeddings"},
		{"a result that is none", `{"data":[{"start_time":1793491200,"results":[1]}]}`, "line 1: expected an object"},
		{"a bucket without a start", "{\"data\":[\n{\"results\":[]}]}", "line 2: start_time: expected seconds"},
		{"a bucket that ends before it starts", `{"data":[{"start_time":1793491200,"end_time":1793491200,"results":[]}]}`, "line 1: end_time"},
		{"a bucket of two days", `{"data":[{"start_time":1793491201,"end_time":1793577601,"results":[]}]}`, "line 1: expected buckets that lie in one UTC day"},
		{"tokens that are a fraction", `{"data":[{"start_time":1793491200,"results":[{` + "\n\"num_model_requests\": 1,\n\"input_tokens\": 1.5}]}]}", "line 3: input_tokens: expected a whole number"},
		{"tokens that are a list", `[{"day":"2026-11-01","model":"a",` + "\n" + `"prompt_tokens":[1]}]`, "line 2: prompt_tokens: expected one text or number"},
		{"a model that is an object", `[{"day":"2026-11-01","model":{},"prompt_tokens":1}]`, "line 1: model: expected one text or number"},
		{"a day that is a truth", `[{"day":true,"model":"a","prompt_tokens":1}]`, "line 1: day: expected a day"},
		{"a row without a model", `[{"day":"2026-11-01","prompt_tokens":1}]`, "line 1: the columns are not known"},
	} {
		got, err := Read([]byte(c.text))
		var wrong *FormatError
		if !errors.As(err, &wrong) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", c.name, got, err, c.want)
		}
	}
}

// Whatever an export holds, it is read or refused with a line that is there.
func TestRead_anyText(t *testing.T) {
	seeds := []string{
		fmt.Sprintf(page, false), embeddings,
		"day,model,prompt_tokens,requests\n2026-11-01,a,1,1\n2026-11-02,\"b\",1,1\n",
		"[{\"day\":\"2026-11-01\",\n\"model\":\"a\",\"prompt_tokens\":1}]",
	}
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(rapid.SampledFrom(seeds).Draw(t, "seed"))
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			text[rapid.IntRange(0, len(text)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		text = text[:rapid.IntRange(0, len(text)).Draw(t, "length")]
		got, err := Read(text)
		var wrong *FormatError
		switch {
		case err == nil:
			for _, r := range got.Rows {
				if r.Day < got.First || r.Day > got.Last || r.Prompt < 0 || r.Figures == (Figures{}) && r.Model == "" {
					t.Fatalf("%+v in %+v", r, got)
				}
			}
		case !errors.As(err, &wrong) || wrong.Line < 1 || wrong.Line > 1+strings.Count(string(text), "\n"):
			t.Fatalf("%v", err)
		}
	})
}
