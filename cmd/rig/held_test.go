package rig

import (
	"slices"
	"strings"
	"testing"
)

// A held answer stands still where its script says so until it is released, and
// only it.
func TestHeldAnswersWaitForTheirRelease(t *testing.T) {
	for _, h2c := range []bool{false, true} {
		u := upstream(t)
		client := NewClient(u.URL, h2c)
		defer client.Close()
		ask := func(s Script, stream bool) chan Received {
			got := make(chan Received, 1)
			go func() { got <- client.Do(soon(t), Request{Body: Chat{Model: "m", Stream: stream, Script: s}.Body()}) }()
			return got
		}
		before := ask(Script{ID: "before", Held: true}, false)
		middle := ask(Script{ID: "middle", Held: true, HeldAfter: 2}, true)
		piece := int64(len(Script{}.Answer(Ask{Path: "/v1/chat/completions", Model: "m", Stream: true}).Pieces[0].Bytes))
		still := func(records []Record) bool {
			sent := []int64{}
			for _, r := range records {
				sent = append(sent, r.Sent)
			}
			slices.Sort(sent)
			return slices.Equal(sent, []int64{0, 2 * piece})
		}
		if err := u.Wait(soon(t), still); err != nil {
			t.Fatal(err)
		}
		u.Release("middle")
		if r := <-middle; !r.Done || !r.Complete {
			t.Errorf("released in the middle: %q %v", r.Body, r.Err)
		}
		if r := u.ByID("before")[0]; r.Ended != Running || r.Sent != 0 {
			t.Errorf("not released yet: %+v", r)
		}
		u.Release("before")
		if r := <-before; r.Status != 200 || !r.Complete {
			t.Errorf("released: %d %v", r.Status, r.Err)
		}
		if r := <-ask(Script{ID: "before", Held: true}, false); !r.Complete {
			t.Errorf("asked for after the release: %v", r.Err)
		}
	}
}

func TestUsageTellsItsParts(t *testing.T) {
	s := Script{Prompt: 9, Completion: 8, Parts: Parts{Cached: 1, CacheWrite: 2, AudioPrompt: 3, Reasoning: 4, AudioCompletion: 5}}
	want := `"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17,` +
		`"prompt_tokens_details":{"cached_tokens":1,"cache_write_tokens":2,"audio_tokens":3},` +
		`"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":5}}`
	for _, stream := range []bool{false, true} {
		a := s.Answer(Ask{Path: "/v1/chat/completions", Stream: stream, IncludeUsage: stream})
		if body := string(a.Body()); strings.Count(body, want) != 1 {
			t.Errorf("stream=%v: %s", stream, body)
		}
	}
}
