//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// errand is one request of the reconciliation, with the verdict it must get.
// Its model name is its own, so that the books tell each charge apart.
type errand struct {
	kind    string
	path    string // "" = chat
	chat    rig.Chat
	abort   rig.Abort
	onHit   bool     // leave as soon as the upstream has the request
	words   []string // provenance; none = nothing may be charged
	exact   bool     // the books must show the upstream's figures
	end     bool     // the client must see the whole answer
	status  int
	noEntry bool // must not reach the upstream
	breaks  bool // the upstream breaks off: on a busy machine that may overtake the headers, then 502
}

// errands are the kinds of requests, mixed over and over.
func errands() []errand {
	script := rig.Script{Prompt: 11, Completion: 23}
	with := func(change func(*rig.Script)) rig.Script { s := script; change(&s); return s }
	usage := func(u rig.UsageKind) rig.Script { return with(func(s *rig.Script) { s.Usage = u }) }
	yes, no := ptr(true), ptr(false)
	reported, estimated, aborted := []string{"reported"}, []string{"estimated"}, []string{"aborted"}
	long := with(func(s *rig.Script) { s.Chunks, s.ChunkDelayMS = 60, 10 })
	list := []errand{
		{kind: "json", chat: rig.Chat{Script: script}, words: reported, exact: true, end: true},
		{kind: "json-legacy", path: "/v1/completions", chat: rig.Chat{Script: script}, words: reported, exact: true, end: true},
		{kind: "embeddings", path: "/v1/embeddings", chat: rig.Chat{Script: rig.Script{Prompt: 9}}, words: reported, exact: true, end: true},
		{kind: "json-split", chat: rig.Chat{Script: with(func(s *rig.Script) { s.Split = 13 })}, words: reported, exact: true, end: true},
		{kind: "json-gzip", chat: rig.Chat{Script: with(func(s *rig.Script) { s.Gzip = true })}, words: reported, exact: true, end: true},
		{kind: "sse", chat: rig.Chat{Stream: true, Script: script}, words: reported, exact: true, end: true},
		{kind: "sse-false", chat: rig.Chat{Stream: true, IncludeUsage: no, Script: script}, words: reported, exact: true, end: true},
		{kind: "sse-asked", chat: rig.Chat{Stream: true, IncludeUsage: yes, Script: script}, words: reported, exact: true, end: true},
		{kind: "sse-legacy", path: "/v1/completions", chat: rig.Chat{Stream: true, Script: script}, words: reported, exact: true, end: true},
		{kind: "sse-split", chat: rig.Chat{Stream: true, IncludeUsage: yes, Script: with(func(s *rig.Script) { s.Split = 5 })}, words: reported, exact: true, end: true},
		{kind: "sse-split-strip", chat: rig.Chat{Stream: true, Script: with(func(s *rig.Script) { s.Split = 7 })}, words: reported, exact: true, end: true},
		{kind: "sse-crlf", chat: rig.Chat{Stream: true, Script: with(func(s *rig.Script) { s.CRLF = true })}, words: reported, exact: true, end: true},
		{kind: "sse-gzip", chat: rig.Chat{Stream: true, IncludeUsage: yes, Script: with(func(s *rig.Script) { s.Gzip = true })}, words: reported, exact: true, end: true},
		{kind: "sse-no-usage", chat: rig.Chat{Stream: true, Script: usage(rig.UsageNone)}, words: estimated, end: true},
		{kind: "sse-no-done", chat: rig.Chat{Stream: true, Script: with(func(s *rig.Script) { s.End = rig.EndNoDone })}, words: []string{"reported", "aborted"}, exact: true, end: true},
		{kind: "left-after-done", chat: rig.Chat{Stream: true, IncludeUsage: yes, Script: script}, abort: rig.Abort{Done: true}, words: reported, exact: true},
		{kind: "left-midway", chat: rig.Chat{Stream: true, Script: long}, abort: rig.Abort{Events: 3}, words: aborted},
		{kind: "left-before-headers", chat: rig.Chat{Script: with(func(s *rig.Script) { s.FirstDelayMS = 5000 })}, onHit: true, words: aborted},
		{kind: "upstream-reset", chat: rig.Chat{Stream: true, Script: with(func(s *rig.Script) { s.Chunks, s.ChunkDelayMS, s.End, s.EndAfter = 20, 5, rig.EndReset, 10 })}, words: aborted, breaks: true},
		{kind: "upstream-close", chat: rig.Chat{Stream: true, Script: with(func(s *rig.Script) { s.Chunks, s.ChunkDelayMS, s.End, s.EndAfter = 20, 5, rig.EndClose, 10 })}, words: aborted, breaks: true},
		{kind: "upstream-close-at-once", chat: rig.Chat{Script: with(func(s *rig.Script) { s.End = rig.EndClose })}, status: http.StatusBadGateway},
		{kind: "unknown-path", path: "/v1/images/generations", chat: rig.Chat{Script: script}, status: http.StatusNotFound, noEntry: true},
	}
	for _, u := range []rig.UsageKind{rig.UsageNone, rig.UsageNull, rig.UsageNegative, rig.UsageString, rig.UsageFloat, rig.UsageHuge, rig.UsageZero} {
		list = append(list,
			errand{kind: "json-" + string(u), chat: rig.Chat{Script: usage(u)}, words: estimated, end: true},
			errand{kind: "sse-asked-" + string(u), chat: rig.Chat{Stream: true, IncludeUsage: yes, Script: usage(u)}, words: estimated, end: true})
	}
	for _, status := range []int{400, 429, 500} {
		for _, stream := range []bool{false, true} {
			list = append(list, errand{
				kind: fmt.Sprintf("error-%d-%v", status, stream), status: status,
				chat: rig.Chat{Stream: stream, Script: rig.Script{Status: status}},
			})
		}
	}
	for i := range list {
		if list[i].path == "" {
			list[i].path = "/v1/chat/completions"
		}
		if list[i].status == 0 {
			list[i].status = http.StatusOK
		}
	}
	return list
}

// TestClientUpstreamAndBooksAgree sends more than a thousand mixed requests
// and compares what the three witnesses say about every single one.
func TestClientUpstreamAndBooksAgree(t *testing.T) {
	const total = 1200
	g := start(t, setup{})
	keys := []rig.NewKey{g.key(), g.key(), g.key()}
	clients := []*rig.Client{g.client(false), g.client(true)}
	kinds := errands()
	all := make([]errand, total)
	got := make([]rig.Received, total)
	parallel(total, 24, func(i int) {
		e := kinds[i%len(kinds)]
		e.chat.Model = fmt.Sprintf("r-%04d-%s", i, e.kind)
		e.chat.Script.ID = e.chat.Model
		e.chat.MaxTokens = 100
		if e.onHit {
			e.abort.Signal = whenHit(g, e.chat.Model)
		}
		all[i] = e
		got[i] = clients[i/len(kinds)%2].Do(g.context(), rig.Request{
			Path: e.path, Key: keys[i%len(keys)].Key, Body: body(e.path, e.chat), Abort: e.abort,
		})
	})
	books := g.books()
	records := map[string][]rig.Record{}
	for _, r := range g.up.Records() {
		records[r.Script.ID] = append(records[r.Script.ID], r)
	}
	sums := map[string]int64{}
	known := map[string]bool{}
	for i, e := range all {
		verdict(t, e, got[i], records[e.chat.Model], books)
		known[e.chat.Model] = true
		sums[keys[i%len(keys)].ID] += books[e.chat.Model].Total
	}
	for model := range books {
		if !known[model] {
			t.Errorf("a charge for a request that nobody sent: %s", model)
		}
	}
	table, err := g.cli.Usage("key")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Rows {
		if row.Total != sums[row.KeyID] {
			t.Errorf("key %s: %d tokens by key, %d by request", row.KeyID, row.Total, sums[row.KeyID])
		}
	}
}

func body(path string, c rig.Chat) []byte {
	switch path {
	case "/v1/completions":
		return c.CompletionBody()
	case "/v1/embeddings":
		return c.EmbeddingBody()
	}
	return c.Body()
}

// whenHit returns a channel that closes when the upstream has the request.
func whenHit(g *gateway, id string) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = g.up.Wait(ctx, func(rs []rig.Record) bool {
			for i := len(rs) - 1; i >= 0; i-- {
				if rs[i].Script.ID == id {
					return true
				}
			}
			return false
		})
		close(c)
	}()
	return c
}

// verdict compares what client, upstream and books say of one request.
func verdict(t *testing.T, e errand, r rig.Received, records []rig.Record, books map[string]rig.UsageRow) {
	t.Helper()
	id := e.chat.Model
	if want := 1; e.noEntry {
		if len(records) != 0 {
			t.Errorf("%s: %d upstream hits, want none", id, len(records))
		}
	} else if len(records) != want {
		t.Errorf("%s: %d upstream hits, want %d (client: %d %v)", id, len(records), want, r.Status, r.Err)
	}
	if e.breaks && r.Status == http.StatusBadGateway {
		if row := books[id]; row.Requests > 1 || row.Requests == 1 && !row.Is("aborted") {
			t.Errorf("%s: broken before it began, yet %d charges, %s", id, row.Requests, row.Words())
		}
		return
	}
	if r.Status != e.status && !e.onHit {
		t.Errorf("%s: status %d, want %d: %q %v", id, r.Status, e.status, r.Body, r.Err)
	}
	sawEnd := r.SawEnd()
	if e.end != sawEnd && !e.abort.Done {
		t.Errorf("%s: client saw the end = %v, want %v (%v)", id, sawEnd, e.end, r.Err)
	}
	answer := e.chat.Script.Answer(e.chat.Ask(e.path))
	want := answer.Body()
	if !e.chat.AsksUsage() {
		want = answer.BodyWithoutUsage()
	}
	fromUpstream := !e.noEntry && e.status != http.StatusBadGateway
	if whole := e.end || e.status/100 != 2; fromUpstream && whole && !bytes.Equal(r.Body, want) {
		t.Errorf("%s: other bytes than the upstream sent\ngot  %q\nwant %q", id, r.Body, want)
	}
	if fromUpstream && !bytes.HasPrefix(want, r.Body) {
		t.Errorf("%s: what came is no beginning of what was sent: %q", id, r.Body)
	}
	row, charged := books[id]
	if len(e.words) == 0 {
		if charged && (row.Total != 0 || row.Requests != 0) {
			t.Errorf("%s: charged %d tokens in %d requests (%s), want nothing", id, row.Total, row.Requests, row.Words())
		}
		return
	}
	wordOK := false
	for _, w := range e.words {
		wordOK = wordOK || row.Is(w)
	}
	if !charged || row.Requests != 1 || !wordOK {
		t.Errorf("%s: charges %d, provenance %s, want one with %v", id, row.Requests, row.Words(), e.words)
	}
	s := e.chat.Script
	if e.exact && (row.Prompt != s.Prompt || row.Completion != s.Completion || row.Total != s.Prompt+s.Completion) {
		t.Errorf("%s: books say %d+%d=%d, the upstream reported %d+%d", id, row.Prompt, row.Completion, row.Total, s.Prompt, s.Completion)
	}
	if !e.exact && (row.Prompt <= 0 || row.Completion < 0 || len(r.Body) > 0 && row.Completion == 0 || row.Total > 1000) {
		t.Errorf("%s: implausible estimate %d+%d", id, row.Prompt, row.Completion)
	}
}
