//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// traffic is an open load at a steady rate: chat completions, JSON and SSE in
// turn, under keys that are valid all the time. Each request has a model name
// and figures of its own, so that the books tell every charge apart.
type traffic struct {
	keys    []rig.NewKey
	chat    func(n int) rig.Chat
	clients []*rig.Client
	began   time.Time
	ctx     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu   sync.Mutex
	sent map[string]ride // by model
}

// ride is one request of the load.
type ride struct {
	key      string // id
	chat     rig.Chat
	received rig.Received
}

// rideModel is what the model names of the load begin with.
const rideModel = "ride-"

// startTraffic sends so many requests a second until endTraffic, in turn
// through the gateways and under the keys.
func startTraffic(t *testing.T, gates []*gateway, keys []rig.NewKey, perSecond int) *traffic {
	return startTrafficOf(t, gates, keys, perSecond, shortRide)
}

// startTrafficOf is startTraffic with requests of another kind; their model
// names are made here.
func startTrafficOf(t *testing.T, gates []*gateway, keys []rig.NewKey, perSecond int, chat func(n int) rig.Chat) *traffic {
	l := &traffic{keys: keys, chat: chat, sent: map[string]ride{}, began: time.Now()}
	l.ctx, l.stop = context.WithCancel(context.Background())
	t.Cleanup(l.stop)
	for _, g := range gates {
		l.clients = append(l.clients, g.client(false), g.client(true))
	}
	l.wg.Go(func() {
		for n := 0; ; n++ {
			due := l.began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(time.Until(due)):
				l.wg.Go(func() { l.one(n) })
			}
		}
	})
	return l
}

func shortRide(n int) rig.Chat {
	prompt, completion := int64(3+n%50), int64(5+n%70)
	return rig.Chat{
		MaxTokens: completion, Stream: n%2 == 0,
		Script: rig.Script{Prompt: prompt, Completion: completion, FirstDelayMS: n % 30, ChunkDelayMS: n % 20},
	}
}

func (l *traffic) one(n int) {
	k := l.keys[n%len(l.keys)]
	chat := l.chat(n)
	chat.Model = fmt.Sprintf("%s%05d", rideModel, n)
	chat.Script.ID = chat.Model
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r := l.clients[n%len(l.clients)].Do(ctx, rig.Request{Key: k.Key, Body: chat.Body()})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[chat.Model] = ride{k.ID, chat, r}
}

// endTraffic stops the load, waits for its answers and holds every one of them
// against the books of g: the charges by request, and their sums by key. So
// many of them may be told to come again, at no charge.
func (l *traffic) endTraffic(t *testing.T, g *gateway, again int) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	took := time.Since(l.began)
	books := l.rides(t, g.cli)
	type sum struct{ requests, prompt, completion int64 }
	sums := map[string]sum{}
	streams, wrong, away := 0, 0, 0
	for model, r := range l.sent {
		s, row := r.chat.Script, books[model]
		if p, ok := r.received.Problem(); ok && r.received.Status == http.StatusServiceUnavailable && p.Error.Code == "gateway_unavailable" && row.Requests == 0 {
			away++
			continue
		}
		if r.received.Status != http.StatusOK || !r.received.SawEnd() {
			if wrong++; wrong <= 3 {
				t.Errorf("%s: %d %q %v, its key was valid all the time", model, r.received.Status, r.received.Body, r.received.Err)
			}
			continue
		}
		if row.Requests != 1 || row.Prompt != s.Prompt || row.Completion != s.Completion || !row.Is("reported") {
			if wrong++; wrong <= 3 {
				t.Errorf("%s: %d charges of %d+%d (%s), the client was told %d+%d", model, row.Requests, row.Prompt, row.Completion, row.Words(), s.Prompt, s.Completion)
			}
		}
		if r.chat.Stream {
			streams++
		}
		k := sums[r.key]
		sums[r.key] = sum{k.requests + 1, k.prompt + s.Prompt, k.completion + s.Completion}
	}
	if wrong > 3 {
		t.Errorf("%d of %d requests of the load went wrong", wrong, len(l.sent))
	}
	if away > again {
		t.Errorf("%d of %d requests of the load were told to come again, at most %d may be", away, len(l.sent), again)
	}
	if len(books) != len(l.sent)-away {
		t.Errorf("%d requests were sent, %d told to come again, %d are in the books", len(l.sent), away, len(books))
	}
	for _, k := range l.keys {
		table, err := g.cli.Usage("key", "--key", k.ID)
		if err != nil {
			t.Fatal(err)
		}
		total := table.Total
		if got := (sum{total.Requests, total.Prompt, total.Completion}); got != sums[k.ID] {
			t.Errorf("key %s: the books have %+v, the clients counted %+v", k.ID, got, sums[k.ID])
		}
	}
	t.Logf("%d requests in %s, %d of them streams; %d told to come again", len(l.sent), took.Round(100*time.Millisecond), streams, away)
}

// rides are the charges of the load in some books, by model.
func (l *traffic) rides(t *testing.T, books rig.CLI) map[string]rig.UsageRow {
	t.Helper()
	rows, err := books.UsageByModel()
	if err != nil {
		t.Fatal(err)
	}
	for model := range rows {
		if !strings.HasPrefix(model, rideModel) {
			delete(rows, model)
		}
	}
	return rows
}
