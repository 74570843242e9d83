package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// What is asked and answered everywhere. A word is one token in the vocabularies of
// OpenAI's models; a message of a user costs seven beside its text by OpenAI's rule.
const (
	word         = " hello"
	promptWords  = 100
	promptTokens = promptWords + 7
	answerTokens = 20 // of a short JSON answer
	streamTokens = 50
	leaveAfter   = 24 // of them
)

// read tells what a client knows of a stream: tokens of content, whether the model
// said that it is done, whether usage was stated. It does not mind how a gateway
// cuts the stream into events.
func read(events []rig.Event) (tokens int64, finished, usage bool) {
	for _, e := range events {
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
				Finish *string `json:"finish_reason"`
			} `json:"choices"`
			Usage *struct {
				Total int64 `json:"total_tokens"`
			} `json:"usage"`
		}
		if json.Unmarshal([]byte(e.Data), &chunk) != nil {
			continue // [DONE], comments
		}
		for _, c := range chunk.Choices {
			tokens += int64(strings.Count(c.Delta.Content, word))
			finished = finished || c.Finish != nil && *c.Finish != ""
		}
		usage = usage || chunk.Usage != nil && chunk.Usage.Total > 0
	}
	return tokens, finished, usage
}

func streamed(r rig.Received) int64 {
	tokens, _, _ := read(r.Events)
	return promptTokens + tokens
}

// answer is a script for a JSON answer or a stream of that many tokens.
func answer(tokens int64) rig.Script {
	return rig.Script{Text: word, Chunks: int(tokens), Prompt: promptTokens, Completion: tokens}
}

// chat makes requests of one kind. leave says when a client leaves, and is asked for
// anew for each of them.
func (t *target) chat(key string, c rig.Chat, leave func() rig.Abort) func() rig.Request {
	c.Model, c.Plain, c.Text = t.s.model, true, strings.TrimSpace(strings.Repeat(word, promptWords))
	body := c.Body()
	return func() rig.Request { return rig.Request{Key: key, Body: body, Abort: leave()} }
}

func stay() rig.Abort { return rig.Abort{} }

// overspend sends many requests at once against a budget for a few.
func (t *target) overspend(ctx context.Context, fits int64, all *report) error {
	const ceiling = 1000
	each := int64(promptTokens + ceiling)
	budget := fits*each + each/2 // half a request more than fits: bounds of prompts may be generous
	key, err := t.newKey(ctx, budget)
	if err != nil {
		return err
	}
	before, err := t.used(ctx, key)
	if err != nil {
		return err
	}
	script := answer(ceiling)
	script.FirstDelayMS = 300 // all are under way before the first ends
	t.up.Otherwise(script)
	got := t.send(ctx, t.s.parallel, t.s.parallel, t.chat(key, rig.Chat{MaxTokens: ceiling}, stay), func(rig.Received) int64 { return each })
	name := fmt.Sprintf("budget for %d, %d at once", fits, t.s.parallel)
	if err := t.record(ctx, all, finding{Scenario: name, Budget: budget}, key, before, got); err != nil {
		return err
	}
	// A hold may be larger than what a request uses in the end: what is left must be
	// there for those that come later.
	later := sent{delivered: got.delivered, statuses: map[int]int{}}
	for later.requests < int(fits) && later.statuses[http.StatusOK] == later.requests {
		one := t.send(ctx, 1, 1, t.chat(key, rig.Chat{MaxTokens: ceiling}, stay), func(rig.Received) int64 { return each })
		later.add(one)
	}
	return t.record(ctx, all, finding{Scenario: "  then one by one; tokens in all", Budget: budget}, key, before, later)
}

// record waits for the books and adds a finding.
func (t *target) record(ctx context.Context, all *report, f finding, key string, before int64, got sent) error {
	used, err := t.settled(ctx, key, before, got.delivered)
	f.Requests, f.Answered, f.Delivered, f.Used = got.requests, got.answered, got.delivered, used
	f.UsageChunks, f.Statuses = got.gotUsage, got.statuses
	all.Findings = append(all.Findings, f)
	return err
}

// aborts lets clients leave at three points of a stream.
func (t *target) aborts(ctx context.Context, all *report) error {
	yes := true
	for _, p := range []struct {
		name  string
		abort rig.Abort
	}{
		{"client leaves at [DONE]", rig.Abort{Done: true}},
		{"client leaves at finish_reason", rig.Abort{When: func(e []rig.Event) bool { _, end, _ := read(e); return end }}},
		{fmt.Sprintf("client leaves after token %d of %d", leaveAfter, streamTokens), rig.Abort{When: func(e []rig.Event) bool {
			n, _, _ := read(e)
			return n >= leaveAfter
		}}},
	} {
		script := answer(streamTokens)
		script.ChunkDelayMS = 20
		if err := t.compare(ctx, all, p.name, script, &yes, p.abort); err != nil {
			return err
		}
	}
	return nil
}

// unstated has streams where nobody asked for usage, and a server that states none.
func (t *target) unstated(ctx context.Context, all *report) error {
	script := answer(streamTokens)
	script.ChunkDelayMS = 5
	if err := t.compare(ctx, all, "client does not ask for usage", script, nil, rig.Abort{}); err != nil {
		return err
	}
	script.Usage = rig.UsageNone
	return t.compare(ctx, all, "server states no usage", script, nil, rig.Abort{})
}

// compare runs some streams of one kind with a key of their own, and the books after
// them beside what the clients received.
func (t *target) compare(ctx context.Context, all *report, name string, script rig.Script, asks *bool, abort rig.Abort) error {
	key, before, err := t.fresh(ctx)
	if err != nil {
		return err
	}
	t.up.Otherwise(script)
	in := t.chat(key, rig.Chat{Stream: true, IncludeUsage: asks}, func() rig.Abort { return abort })
	seen := t.up.Hits()
	got := t.send(ctx, t.s.streams, t.s.streams, in, streamed)
	if err := t.record(ctx, all, finding{Scenario: name}, key, before, got); err != nil {
		return err
	}
	for _, r := range t.up.Records()[seen:] {
		if r.Ended == rig.Finished {
			all.Findings[len(all.Findings)-1].ServerFinished++
		}
	}
	return nil
}

// kills ends the gateway by SIGKILL after answers and in the middle of streams, and
// looks at the books when it is back.
func (t *target) kills(ctx context.Context, all *report) error {
	var key string
	var before int64
	var err error
	for _, killed := range []bool{false, true} { // what is missing without it is not its doing
		if key, before, err = t.fresh(ctx); err != nil {
			return err
		}
		t.up.Otherwise(answer(answerTokens))
		got := t.send(ctx, t.s.n, 8, t.chat(key, rig.Chat{MaxTokens: answerTokens}, stay), func(rig.Received) int64 { return promptTokens + answerTokens })
		name := fmt.Sprintf("%d answers", got.answered)
		if killed {
			err = t.afterKill(ctx, key, before, name+", SIGKILL right after", got, all)
		} else {
			err = t.record(ctx, all, finding{Scenario: name}, key, before, got)
		}
		if err != nil {
			return err
		}
	}
	if key, before, err = t.fresh(ctx); err != nil {
		return err
	}
	script := answer(streamTokens)
	script.ChunkDelayMS = 40
	t.up.Otherwise(script)
	middle := make(chan struct{})
	in := t.chat(key, rig.Chat{Stream: true}, watch(int64(t.s.streams), middle))
	done := make(chan sent, 1)
	go func() { done <- t.send(ctx, t.s.streams, t.s.streams, in, streamed) }()
	select {
	case <-middle:
	case got := <-done:
		return fmt.Errorf("the streams ended before their middle: answers by status %v", got.statuses)
	}
	t.proc.KillGroup() // the clients' ends follow from it
	return t.afterKill(ctx, key, before, "SIGKILL in the middle of streams", <-done, all)
}

// watch closes middle when that many streams have come to their middle. It never
// makes a client leave.
func watch(streams int64, middle chan struct{}) func() rig.Abort {
	var there atomic.Int64
	return func() rig.Abort {
		passed := false // of one stream
		return rig.Abort{When: func(events []rig.Event) bool {
			if n, _, _ := read(events); n >= leaveAfter && !passed {
				passed = true
				if there.Add(1) == streams {
					close(middle)
				}
			}
			return false
		}}
	}
}

func (t *target) afterKill(ctx context.Context, key string, before int64, name string, got sent, all *report) error {
	t.proc.KillGroup()
	t.client.Close() // its connections are gone
	if err := t.start(ctx); err != nil {
		return err
	}
	return t.record(ctx, all, finding{Scenario: name}, key, before, got)
}

// costs measures CPU time of the gateway's processes under a steady load.
func (t *target) costs(ctx context.Context, all *report) error {
	key, err := t.newKey(ctx, plenty)
	if err != nil {
		return err
	}
	for _, load := range []struct {
		name   string
		stream bool
		tokens int64
	}{{"JSON answer", false, answerTokens}, {"stream of 50 chunks", true, streamTokens}} {
		t.up.Otherwise(answer(load.tokens))
		in := t.chat(key, rig.Chat{Stream: load.stream, MaxTokens: load.tokens}, stay)
		t.send(ctx, 50, 8, in, streamed) // connections and caches
		before, err := rig.Tree(t.proc.Pid)
		if err != nil {
			return err
		}
		answered, failed := 0, 0
		begin := time.Now()
		for time.Since(begin) < time.Duration(t.s.seconds)*time.Second {
			got := t.send(ctx, 40, 8, in, streamed)
			answered, failed = answered+got.answered, failed+got.requests-got.answered
		}
		took := time.Since(begin)
		after, err := rig.Tree(t.proc.Pid)
		if err != nil {
			return err
		}
		if answered == 0 {
			return fmt.Errorf("%s: nothing was answered", load.name)
		}
		all.Costs = append(all.Costs, cost{
			Load: load.name, Requests: answered, Failed: failed, PerSecond: float64(answered) / took.Seconds(),
			CPUMicros: float64((after.CPU - before.CPU).Microseconds()) / float64(answered), RSSMB: float64(after.RSS) / 1e6,
		})
	}
	return nil
}
