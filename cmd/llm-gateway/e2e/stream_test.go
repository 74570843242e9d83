//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestFifteenHundredStreamsAtOnce keeps them all open at the same time, more
// than Envoy's default of 1024 on either side.
func TestFifteenHundredStreamsAtOnce(t *testing.T) {
	const streams = 1500
	g := start(t, setup{})
	key := g.key().Key
	h1, h2 := g.client(false), g.client(true)
	script := rig.Script{Prompt: 3, Completion: 7, ChunkDelayMS: 3000, Chunks: 2}
	parallel(streams, streams, func(i int) {
		client := h1
		if i%3 == 0 {
			client = h2
		}
		c := rig.Chat{Model: fmt.Sprintf("s-%d", i%10), Stream: true, MaxTokens: 10, Script: script}
		r := client.Do(g.context(), rig.Request{Key: key, Body: c.Body()})
		if want := script.Answer(c.Ask("/v1/chat/completions")).BodyWithoutUsage(); !r.Complete || !bytes.Equal(r.Body, want) {
			t.Errorf("stream %d: %d, %d events, %v", i, r.Status, len(r.Events), r.Err)
		}
	})
	g.balanced()
	table, err := g.cli.Usage("key")
	if err != nil {
		t.Fatal(err)
	}
	if table.Total.Requests != streams || table.Total.Total != streams*10 || !table.Total.Is("reported") {
		t.Errorf("books: %d requests, %d tokens, %s", table.Total.Requests, table.Total.Total, table.Total.Words())
	}
	var last, first time.Time
	for _, r := range g.up.Records() {
		if r.At.After(last) {
			last = r.At
		}
		if first.IsZero() || r.EndedAt.Before(first) {
			first = r.EndedAt
		}
	}
	if last.After(first) {
		t.Errorf("not all streams were open at once: the last began %s after the first had ended", last.Sub(first))
	}
}

// TestEventsComeAsTheyAreSent: the upstream is silent for a minute after its
// first event; a gateway that buffers would deliver nothing. When the client
// then leaves, the upstream notices at once.
func TestEventsComeAsTheyAreSent(t *testing.T) {
	g := start(t, setup{})
	key := g.key().Key
	for _, h2c := range []bool{false, true} {
		for events := 1; events <= 2; events++ {
			id := fmt.Sprintf("slow-%v-%d", h2c, events)
			script := rig.Script{ID: id, Prompt: 3, Completion: 7, Chunks: 9, ChunkDelayMS: 60_000}
			if events == 2 {
				script.ChunkDelayMS = 1500
			}
			c := rig.Chat{Model: id, Stream: true, MaxTokens: 10, Script: script}
			r := g.client(h2c).Do(g.context(), rig.Request{Key: key, Body: c.Body(), Abort: rig.Abort{Events: events}})
			if len(r.Events) != events || !r.Aborted {
				t.Errorf("%s: %d events, %v", id, len(r.Events), r.Err)
			}
			g.eventually("the upstream to see the client leave", func() bool {
				rs := g.up.ByID(id)
				return len(rs) == 1 && rs[0].Ended == rig.Gone
			})
			if late := g.up.ByID(id)[0].EndedAt.Sub(r.Ended); late > time.Second {
				t.Errorf("%s: the upstream connection was closed %s after the client left", id, late)
			}
			if row := g.books()[id]; row.Requests != 1 || !row.Is("aborted") || row.Completion == 0 {
				t.Errorf("%s: %d charges, %d+%d, %s", id, row.Requests, row.Prompt, row.Completion, row.Words())
			}
		}
	}
}

func TestUsageChunkOnlyForThoseWhoAsk(t *testing.T) {
	g := start(t, setup{})
	key := g.key().Key
	for _, h2c := range []bool{false, true} {
		for _, ask := range []*bool{nil, ptr(false), ptr(true)} {
			c := rig.Chat{Model: "m", Stream: true, MaxTokens: 10, IncludeUsage: ask, Script: rig.Script{Prompt: 3, Completion: 7}}
			r := g.client(h2c).Do(g.context(), rig.Request{Key: key, Body: c.Body()})
			if seen := bytes.Contains(r.Body, []byte(`"total_tokens"`)); seen != c.AsksUsage() || !r.Done || !r.Complete {
				t.Errorf("h2c=%v asked=%v: usage seen = %v: %q", h2c, c.AsksUsage(), seen, r.Body)
			}
		}
	}
	for _, r := range g.up.Records() {
		if !r.Ask.IncludeUsage {
			t.Errorf("request %d reached the upstream without include_usage", r.Seq)
		}
	}
}

func TestUpstreamAwayAndSilent(t *testing.T) {
	t.Parallel() // a silent model server
	free, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	away := start(t, setup{url: "http://" + free})
	silent := start(t, setup{env: []string{"LLM_TIMEOUT=1s"}})
	for _, c := range []struct {
		g      *gateway
		status int
		code   string
		end    rig.Script
	}{
		{away, http.StatusBadGateway, "upstream_error", rig.Script{}},
		{silent, http.StatusGatewayTimeout, "upstream_timeout", rig.Script{FirstDelayMS: 30_000}},
		{silent, http.StatusBadGateway, "upstream_error", rig.Script{End: rig.EndReset}},
	} {
		key := c.g.key().Key
		for _, stream := range []bool{false, true} {
			chat := rig.Chat{Model: "m", Stream: stream, MaxTokens: 10, Script: c.end}
			r := c.g.client(stream).Do(c.g.context(), rig.Request{Key: key, Body: chat.Body()})
			wantProblem(t, fmt.Sprintf("stream=%v", stream), r, c.status, c.code)
		}
		c.g.balanced()
	}
	// Silence inside an answer cuts it.
	key := silent.key().Key
	chat := rig.Chat{Model: "gap", Stream: true, MaxTokens: 10, Script: rig.Script{ChunkDelayMS: 20_000}}
	if r := silent.client(false).Do(silent.context(), rig.Request{Key: key, Body: chat.Body()}); r.Complete || r.Done || len(r.Events) != 1 {
		t.Errorf("an answer with a gap: complete=%v done=%v events=%d", r.Complete, r.Done, len(r.Events))
	}
	if row := silent.books()["gap"]; row.Requests != 1 || !row.Is("aborted") {
		t.Errorf("an answer with a gap: %d charges, %s", row.Requests, row.Words())
	}
}

// TestHeadersAndSecrets follows the credentials through everything that is
// written down or sent on.
func TestHeadersAndSecrets(t *testing.T) {
	const upstreamKey = "sk-upstream-canary-5b1f0c"
	g := start(t, setup{env: []string{"LLM_API_KEY=" + upstreamKey, "LOG_LEVEL=debug"}})
	key := g.key("--name", "canary").Key
	forged := http.Header{
		"Accept-Encoding": {"gzip, br"}, "Cookie": {"session=" + key}, "X-Api-Key": {key}, "Api-Key": {key},
		"X-Llmgw-Key-Id": {"key_forged"}, "X-Llmgw-Admit": {"1"}, "X-Envoy-Upstream-Rq-Timeout-Ms": {"1"},
		"X-Envoy-Retry-On": {"5xx"}, "X-Envoy-Original-Path": {"/x"}, "X-Forwarded-For": {"10.0.0.1"},
		"Connection": {"x-llmgw-admit, authorization"}, "X-Kept": {"yes"},
	}
	ours := map[string]string{"x-ratelimit-limit-requests": "77777", "x-ratelimit-remaining-tokens": "77777", "retry-after": "77777"}
	for _, h2c := range []bool{false, true} {
		client := g.client(h2c)
		for _, stream := range []bool{false, true} {
			header := forged.Clone()
			if h2c {
				header.Del("Connection") // not allowed in HTTP/2
			}
			chat := rig.Chat{Model: "m", Stream: stream, MaxTokens: 10, Script: rig.Script{Prompt: 3, Completion: 7, Header: ours}}
			r := client.Do(g.context(), rig.Request{Key: key, Header: header, Body: chat.Body(), Path: "/v1/chat/completions?token=" + key[len(key)-20:]})
			if header.Get("Connection") != "" && r.Status/100 == 4 {
				continue // refused as a whole: also right
			}
			if !r.SawEnd() {
				t.Fatalf("h2c=%v stream=%v: %d %q", h2c, stream, r.Status, r.Body)
			}
			for name, values := range r.Header {
				all := strings.Join(values, ",")
				if strings.Contains(all, upstreamKey) || strings.Contains(all, key) || strings.Contains(all, "77777") ||
					strings.HasPrefix(strings.ToLower(name), "x-llmgw-") || strings.HasPrefix(strings.ToLower(name), "x-envoy-") {
					t.Errorf("the client got %s: %s", name, all)
				}
			}
			if r.Header.Get("X-Ratelimit-Limit-Requests") == "" || r.Header.Get("X-Request-Id") == "" {
				t.Errorf("no rate-limit headers or request id of ours: %v", r.Header)
			}
			if bytes.Contains(r.Body, []byte(upstreamKey)) {
				t.Error("the upstream's key is in the body")
			}
		}
	}
	if r := g.client(false).Do(g.context(), rig.Request{Method: "GET", Path: "/v1/models", Key: key}); !r.SawEnd() {
		t.Errorf("models: %d %q", r.Status, r.Body)
	}
	records := g.up.Records()
	if len(records) < 3 {
		t.Fatalf("%d upstream requests", len(records))
	}
	for _, r := range records {
		if got := r.Header.Get("Authorization"); got != "Bearer "+upstreamKey {
			t.Errorf("%s: the upstream got Authorization %q", r.Path, got)
		}
		for name, values := range r.Header {
			lower := strings.ToLower(name)
			bad := lower == "accept-encoding" || lower == "cookie" || strings.HasPrefix(lower, "x-llmgw-") ||
				strings.HasPrefix(lower, "x-envoy-") || strings.HasPrefix(lower, "x-forwarded-")
			if bad || strings.Contains(strings.Join(values, ","), key) {
				t.Errorf("%s: the upstream got %s: %q", r.Path, name, values)
			}
		}
		if r.Ask.Model != "" && r.Header.Get("X-Kept") != "yes" {
			t.Error("a harmless header was lost")
		}
	}
	g.balanced()
	if code, err := g.proc.Stop(20 * time.Second); err != nil || code != 0 {
		t.Errorf("exit %d %v", code, err)
	}
	noCanary(t, g.dir, key, upstreamKey, key[len(key)-20:])
}

// noCanary searches every file under a folder for secrets.
func noCanary(t *testing.T, dir string, secrets ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, s := range secrets {
			if i := bytes.Index(b, []byte(s)); i >= 0 {
				t.Errorf("%s holds a secret: …%q…", path, b[max(0, i-60):i])
			}
		}
		return nil
	})
	if err != nil || files < 3 {
		t.Errorf("searched %d files: %v", files, err)
	}
}
