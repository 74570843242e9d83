//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// python returns the interpreter with the pinned packages of
// testdata/requirements.txt.
func python(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "requirements.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return rig.Python(t, string(b))
}

// call is what the script says about one call of the SDK.
type call struct {
	Error  string `json:"error"` // class name, "" = none
	Status int    `json:"status"`
	Code   string `json:"code"`
	Param  string `json:"param"`
	Sent   int    `json:"sent"` // HTTP requests that the SDK made for it
	Text   string `json:"text"`
	Models int    `json:"models"`
	Prompt int64  `json:"prompt"`
	Output int64  `json:"completion"`
	Total  int64  `json:"total"` // usage the SDK saw, 0 = none
	Header string `json:"header"`
}

// TestOpenAIPython drives the gateway with the real SDK and compares what it
// saw with the books.
func TestOpenAIPython(t *testing.T) {
	interpreter := python(t)
	g := start(t, setup{demo: true})
	spent, err := g.cli.CreateKey(plenty, "--daily", "5")
	if err != nil {
		t.Fatal(err)
	}
	g.accepted(spent)
	key := g.key()
	cmd := exec.CommandContext(g.context(), interpreter, filepath.Join("testdata", "sdk_openai.py"))
	cmd.Env = rig.MinimalEnv("GATEWAY="+g.url, "KEY="+key.Key, "SPENT_KEY="+spent.Key)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the script: %v\n%s", err, out)
	}
	var got map[string]call
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	for name, want := range map[string]call{
		"no_key":         {Status: 401, Code: "missing_api_key", Sent: 1, Header: "Bearer"},
		"wrong_key":      {Error: "PermissionDeniedError", Status: 403, Code: "invalid_api_key", Sent: 1},
		"spent":          {Error: "RateLimitError", Status: 429, Code: "insufficient_quota", Sent: 1},
		"bad_max_tokens": {Error: "BadRequestError", Status: 400, Param: "max_tokens", Sent: 1},
		"bad_n":          {Error: "BadRequestError", Status: 400, Param: "n", Sent: 1},
		"unknown_path":   {Error: "NotFoundError", Status: 404, Sent: 1},
	} {
		c := got[name]
		if want.Code == "" {
			c.Code = ""
		}
		if c != want {
			t.Errorf("%s: %+v, want %+v", name, c, want)
		}
	}
	if c := got["models"]; c.Models == 0 || c.Sent != 1 {
		t.Errorf("models: %+v", c)
	}
	books := g.books("--key", key.ID)
	for _, name := range []string{"chat", "chat_stream", "chat_stream_usage", "completion", "completion_stream", "embedding"} {
		c, row := got[name], books["sdk-"+name]
		if c.Error != "" || c.Sent != 1 || c.Text == "" {
			t.Errorf("%s: %+v", name, c)
		}
		if row.Requests != 1 || row.Total == 0 || !row.Is("reported") {
			t.Errorf("%s: books %d requests, %d tokens, %s", name, row.Requests, row.Total, row.Words())
		}
		silent := name == "chat_stream" || name == "completion_stream"
		if silent != (c.Total == 0) {
			t.Errorf("%s: the SDK saw a usage of %d", name, c.Total)
		}
		if !silent && (c.Total != row.Total || c.Prompt != row.Prompt || c.Output != row.Completion) {
			t.Errorf("%s: the SDK saw %d+%d=%d, the books have %d+%d=%d", name, c.Prompt, c.Output, c.Total, row.Prompt, row.Completion, row.Total)
		}
	}
	if len(books) != 6 {
		t.Errorf("%d models in the books, want 6", len(books))
	}
}
