//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// shot is one request of an open load: it is sent at its time, whatever became
// of those before it.
type shot struct {
	at       time.Time
	received rig.Received
}

func (s shot) took() time.Duration { return s.received.Ended.Sub(s.at) }

// fire sends requests under one key at a steady rate and returns them in the
// order they were sent. Each has model as its model, so that the upstream's
// records of them can be found.
func fire(g *gateway, key, model string, perSecond int, d time.Duration) []shot {
	client := g.client(true)
	body := rig.Chat{Model: model, MaxTokens: 5, Script: rig.Script{Prompt: 3, Completion: 2}}.Body()
	n := int(d.Seconds() * float64(perSecond))
	shots := make([]shot, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
		shots[i].at = time.Now()
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			shots[i].received = client.Do(ctx, rig.Request{Key: key, Body: body})
		})
	}
	wg.Wait()
	return shots
}

// statuses counts answers by status; 0 is no answer.
func statuses(shots []shot) map[int]int {
	out := map[int]int{}
	for _, s := range shots {
		out[s.received.Status]++
	}
	return out
}

// noServerErrors fails for every answer of 500 and above, and for none at all.
func noServerErrors(t *testing.T, name string, shots []shot) {
	t.Helper()
	shown := 0
	for _, s := range shots {
		if r := s.received; r.Status == 0 || r.Status >= 500 {
			if shown++; shown <= 3 {
				t.Errorf("%s: status %d %q %v", name, r.Status, r.Body, r.Err)
			}
		}
	}
	if shown > 3 {
		t.Errorf("%s: %d answers of 500 and above in all", name, shown)
	}
}

// percentile of the time that answers took.
func percentile(shots []shot, p float64) time.Duration {
	took := make([]time.Duration, len(shots))
	for i, s := range shots {
		took[i] = s.took()
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(p*float64(len(took))))]
}

// between are the shots sent in a part of the load.
func between(shots []shot, from, to time.Time) []shot {
	return slices.DeleteFunc(slices.Clone(shots), func(s shot) bool { return s.at.Before(from) || !s.at.Before(to) })
}

// windowHolds fails when more than limit admissions must have been in one
// window. An admission happened between the moment a client sent the request
// and the moment the upstream got it; both are known. If windows are kept, the
// admission that is limit places later came at least one window later, so the
// upstream got the (i+limit)th no earlier than a window after the ith was sent.
// It returns the number of admissions, and the most that any window held by
// the upstream's clock alone, transit included.
func windowHolds(t *testing.T, name string, shots []shot, records []rig.Record, limit int, window time.Duration) (admitted, most int) {
	t.Helper()
	var sent, arrived []time.Time
	for _, s := range shots {
		if s.received.Status == 200 {
			sent = append(sent, s.at)
		}
	}
	for _, r := range records {
		arrived = append(arrived, r.At)
	}
	slices.SortFunc(sent, time.Time.Compare)
	slices.SortFunc(arrived, time.Time.Compare)
	if len(sent) != len(arrived) {
		t.Errorf("%s: %d answers of 200, %d requests at the upstream", name, len(sent), len(arrived))
	}
	for i := 0; i+limit < len(arrived) && i < len(sent); i++ {
		if gap := arrived[i+limit].Sub(sent[i]); gap < window {
			t.Errorf("%s: admissions %d and %d, of which no more than %d fit into %s, are at most %s apart", name, i+1, i+limit+1, limit, window, gap)
			break
		}
	}
	for i, j := 0, 0; j < len(arrived); j++ {
		for arrived[j].Sub(arrived[i]) >= window {
			i++
		}
		most = max(most, j-i+1)
	}
	return len(arrived), most
}

// ofModel are the upstream's records of one model.
func ofModel(up *rig.Upstream, model string) []rig.Record {
	return slices.DeleteFunc(up.Records(), func(r rig.Record) bool { return r.Ask.Model != model })
}

// describe is a line for the log of a test run.
func describe(shots []shot) string {
	return fmt.Sprintf("%d sent, statuses %v, p50 %s, p99 %s", len(shots), statuses(shots),
		percentile(shots, 0.5).Round(10*time.Microsecond), percentile(shots, 0.99).Round(10*time.Microsecond))
}
