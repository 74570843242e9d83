//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// load is a steady stream of requests with a model name of their own each.
type load struct {
	g    *gateway
	key  string
	stop chan struct{}
	wg   sync.WaitGroup
	next atomic.Int64

	mu  sync.Mutex
	got map[string]rig.Received
	ask map[string]rig.Chat
}

func startLoad(g *gateway, workers int) *load { return startLoadWith(g, g.key().Key, workers) }

func startLoadWith(g *gateway, key string, workers int) *load {
	l := &load{g: g, key: key, stop: make(chan struct{}), got: map[string]rig.Received{}, ask: map[string]rig.Chat{}}
	for w := range workers {
		client := g.client(w%2 == 0)
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
					if r := l.one(client); r.Status/100 != 2 {
						time.Sleep(5 * time.Millisecond) // nobody there: do not spin
					}
				}
			}
		})
	}
	return l
}

func (l *load) one(client *rig.Client) rig.Received {
	n := l.next.Add(1)
	c := rig.Chat{Model: fmt.Sprintf("c-%05d", n), MaxTokens: 100, Stream: n%3 != 0}
	c.Script = rig.Script{ID: c.Model, Prompt: 3 + n%50, Completion: 5 + n%70, Chunks: 6, ChunkDelayMS: int(n % 7), FirstDelayMS: int(n % 11)}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r := client.Do(ctx, rig.Request{Key: l.key, Body: c.Body()})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got[c.Model], l.ask[c.Model] = r, c
	return r
}

// seenEnds is the number of answers whose end a client has seen.
func (l *load) seenEnds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.got {
		if r.SawEnd() {
			n++
		}
	}
	return n
}

// more waits until the load has seen the ends of n more answers.
func (l *load) more(n int) {
	l.g.t.Helper()
	goal := l.seenEnds() + n
	l.g.eventually("the load to go on", func() bool { return l.seenEnds() >= goal })
}

// finish stops the load and reconciles everything it did.
func (l *load) finish() {
	t := l.g.t
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	books := l.g.books()
	hits := map[string]int{}
	for _, r := range l.g.up.Records() {
		hits[r.Script.ID]++
	}
	ends := 0
	for id, r := range l.got {
		row, s := books[id], l.ask[id].Script
		if hits[id] > 1 || row.Requests > 1 {
			t.Errorf("%s: %d upstream hits, %d charges", id, hits[id], row.Requests)
		}
		if row.Total > 0 && hits[id] == 0 {
			t.Errorf("%s: %d tokens charged (%s), never at the upstream", id, row.Total, row.Words())
		}
		if !r.SawEnd() {
			continue
		}
		ends++
		if row.Requests != 1 || row.Prompt != s.Prompt || row.Completion != s.Completion || !row.Is("reported") {
			t.Errorf("%s: the client saw the end; books: %d charges of %d+%d (%s), reported %d+%d",
				id, row.Requests, row.Prompt, row.Completion, row.Words(), s.Prompt, s.Completion)
		}
	}
	t.Logf("%d requests, %d seen to their end, %d models in the books", len(l.got), ends, len(books))
}

// shut checks that nothing gets through while the sidecar is down.
func (l *load) shut(t *testing.T, round int) {
	t.Helper()
	l.nothingPasses(t, fmt.Sprintf("down-%d", round), func(status int) bool { return status == 0 || status >= 500 })
}

// refused checks that nothing is let through while no hold can be written.
// Answers that were running when the books went away may still come.
func (l *load) refused(t *testing.T, round int) {
	t.Helper()
	l.nothingPasses(t, fmt.Sprintf("away-%d", round), func(status int) bool { return status >= 500 })
}

func (l *load) nothingPasses(t *testing.T, name string, closed func(status int) bool) {
	t.Helper()
	client := l.g.client(false)
	var mu sync.Mutex
	parallel(20, 10, func(i int) { // each takes Envoy half a second
		id := fmt.Sprintf("%s-%d", name, i)
		r := client.Do(l.g.context(), rig.Request{Key: l.key, Body: rig.Chat{Model: id, Script: rig.Script{ID: id}}.Body()})
		mu.Lock()
		defer mu.Unlock()
		if !closed(r.Status) {
			t.Errorf("%s: status %d, it must be closed", id, r.Status)
		}
		if n := len(l.g.up.ByID(id)); n != 0 {
			t.Errorf("%s: %d upstream hits, it must be closed", id, n)
		}
	})
}

// TestKillNineLosesNothing kills the sidecar under load, ten times on the same
// data, behind an Envoy that stays.
func TestKillNineLosesNothing(t *testing.T) {
	g := startApart(t, setup{})
	l := startLoad(g, 12)
	for round := range 10 {
		l.more(60)
		g.proc.Kill()
		l.shut(t, round)
		g.runServe()
		g.ready()
	}
	l.more(60)
	l.finish()
}

// TestKillNineOfUp kills the whole `up` (its Envoy goes with it).
func TestKillNineOfUp(t *testing.T) {
	g := start(t, setup{})
	l := startLoad(g, 8)
	for round := range 2 {
		l.more(60)
		g.proc.Kill()
		l.shut(t, round)
		g.runUp()
	}
	l.more(60)
	l.finish()
}
