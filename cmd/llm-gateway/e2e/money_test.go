//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// priceTable has amounts that no float holds, so that a sum which is rounded
// anywhere but at its end is seen.
func priceTable() map[string]rates {
	return map[string]rates{
		"every": {
			"input": "2.500000001", "cached_read": "0.625000007", "cache_write": "3.125000003", "audio_input": "40.000000013",
			"output": "10.000000009", "reasoning": "12.000000011", "audio_output": "80.000000017",
		},
		"some-*":     {"input": "0.000001", "output": "0.333333333"},
		"some-exact": {"input": "7", "output": "0.000000001"},
		"in-only":    {"input": "0.02"},
		"least":      {"input": "0.000000001", "output": "0.000000001"},
		"dearest":    {"input": "100000", "output": "99999.999999999"},
		"for-free":   {"input": "0"},
	}
}

// TestPricesAreChargedExactly sets prices beside a running gateway and holds
// every place that tells of money to the last nano-unit.
func TestPricesAreChargedExactly(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { chargeExactly(t, start(t, setup{})) })
	t.Run("PostgreSQL", func(t *testing.T) {
		postgres := rig.StartPostgres(t)
		chargeExactly(t, start(t, setup{env: []string{"DATABASE_URL=" + postgres.NewDatabase()}}))
	})
}

func chargeExactly(t *testing.T, g *gateway) {
	k, probe := g.till(), g.key()
	// A key of its own finds out since when a price is in force: what is admitted
	// until then costs what it did before.
	priced := func(model string, id int64) {
		t.Helper()
		g.obeys("the price of "+model, func() (rig.Received, bool) {
			r := k.client.Do(g.context(), rig.Request{Key: probe.Key, Body: rig.Chat{Model: model, MaxTokens: 5, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()})
			return r, r.SawEnd() && g.line(r.Header.Get("X-Request-Id"))["price"] == float64(id)
		})
	}
	table := priceTable()
	ids := g.setPrices(table)
	priced("every", ids["every"])

	all := rig.Parts{Cached: 301, CacheWrite: 203, AudioPrompt: 107, Reasoning: 401, AudioCompletion: 53}
	for _, c := range []struct {
		name, price, path string
		script            rig.Script
	}{
		{"every", "every", "", rig.Script{Prompt: 1009, Completion: 2003, Parts: all}},
		{"every", "every", "", rig.Script{Prompt: 1, Completion: 1}},
		{"every", "every", "", rig.Script{Prompt: 1000, Completion: 1000, Parts: rig.Parts{Cached: 1000, Reasoning: 1000}}},
		{"every", "every", "", rig.Script{Prompt: 100, Completion: 90, Parts: rig.Parts{Cached: 80, CacheWrite: 70, AudioPrompt: 60, Reasoning: 50, AudioCompletion: 40}}},
		{"every", "every", "", rig.Script{Prompt: 100, Completion: 90, Parts: rig.Parts{Cached: 101, AudioCompletion: 91}}},
		{"every", "every", "", rig.Script{Usage: rig.UsageNone, Chunks: 20}}, // counted here
		{"some-exact", "some-exact", "", rig.Script{Prompt: 999, Completion: 999, Parts: all}},
		{"some-other", "some-*", "", rig.Script{Prompt: 999, Completion: 999, Parts: all}},
		{"some-other", "some-*", "/v1/completions", rig.Script{Prompt: 5, Completion: 7}},
		{"in-only", "in-only", "/v1/embeddings", rig.Script{Prompt: 8191}},
		{"in-only", "in-only", "", rig.Script{Prompt: 33, Completion: 5000, Parts: rig.Parts{Reasoning: 4000}}},
		{"least", "least", "", rig.Script{Prompt: 1, Completion: 1}},
		{"dearest", "dearest", "", rig.Script{Prompt: 5_000_000, Completion: 4_999_999}},
		{"for-free", "for-free", "", rig.Script{Prompt: 10, Completion: 10}},
		{"every-not", "", "", rig.Script{Prompt: 10, Completion: 10}},
		{"every-not", "", "/v1/completions", rig.Script{Prompt: 1, Completion: 2}},
	} {
		for _, stream := range []bool{false, true} {
			chat := rig.Chat{Model: c.name, MaxTokens: 10_000, Stream: stream, Script: c.script}
			ask := rig.Request{Path: c.path, Key: k.key.Key, Body: chat.Body()}
			switch c.path {
			case "/v1/completions":
				ask.Body = chat.CompletionBody()
			case "/v1/embeddings":
				if stream {
					continue
				}
				ask.Body = chat.EmbeddingBody()
			}
			r := k.client.Do(g.context(), ask)
			if !r.SawEnd() {
				t.Fatalf("%s: %d %s %v", c.name, r.Status, r.Body, r.Err)
			}
			k.took(r, chat, ids[c.price], table[c.price])
		}
	}
	// A client that leaves pays what it got.
	leaving := rig.Chat{Model: "every", MaxTokens: 100, Stream: true, Script: rig.Script{ID: "left", Chunks: 9, Held: true, HeldAfter: 6}}
	k.took(k.client.Do(g.context(), rig.Request{Key: k.key.Key, Body: leaving.Body(), Abort: rig.Abort{Events: 6}}), leaving, ids["every"], table["every"])

	// A price that changes while an answer runs is not that answer's.
	long := rig.Chat{Model: "every", MaxTokens: 9000, Stream: true, Script: rig.Script{ID: "long", Prompt: 1009, Completion: 2003, Parts: all, Held: true, HeldAfter: 2}}
	running := make(chan rig.Received)
	go func() { running <- k.client.Do(g.context(), rig.Request{Key: k.key.Key, Body: long.Body()}) }()
	g.answeredBy("long", 1)
	dearer := map[string]rates{"every": {"input": "3", "output": "11.000000001"}}
	later := g.setPrices(dearer)
	priced("every", later["every"])
	g.up.Release("long")
	k.took(<-running, long, ids["every"], table["every"])
	k.took(k.client.Do(g.context(), rig.Request{Key: k.key.Key, Body: long.Body()}), long, later["every"], dearer["every"])
	k.closes()
	if !strings.Contains(g.proc.Stderr(), `a model has no price: its tokens are metered without money`) {
		t.Error("nobody is told of a model without a price")
	}
}

// TestKilledStreamsCostWhatTheyDid kills the sidecar in the middle of answers
// with prices, changes the prices while it is down, and starts it again.
func TestKilledStreamsCostWhatTheyDid(t *testing.T) {
	const streams = 8
	g := startApart(t, setup{})
	k := g.till()
	if err := g.cli.SetLimit(k.key.ID, "--budget", "1000"); err != nil {
		t.Fatal(err)
	}
	first := map[string]rates{"k-*": {"input": "2.500000001", "cached_read": "0.5", "output": "10.000000009", "reasoning": "60"}}
	id := g.setPrices(first)["k-*"]
	ask := func(c rig.Chat) rig.Received {
		return k.client.Do(g.context(), rig.Request{Key: k.key.Key, Body: c.Body()})
	}
	whole := rig.Chat{Model: "k-whole", MaxTokens: 100, Stream: true, Script: rig.Script{Prompt: 7, Completion: 13}}
	time.Sleep(inForce)
	for range 5 {
		k.took(ask(whole), whole, id, first["k-*"])
	}
	g.balanced()
	check := filepath.Join(g.dir, "checkpoint.json")
	before := g.command("audit", "--checkpoint", check)

	ended := make(chan rig.Received, streams)
	for i := range streams {
		c := rig.Chat{Model: fmt.Sprintf("k-%d", i), MaxTokens: 1000, Stream: true}
		c.Script = rig.Script{ID: "cut", Prompt: 7, Completion: 100, Chunks: 50, ChunkBytes: 2000, Held: true, HeldAfter: 5 + i}
		go func() { ended <- ask(c) }()
	}
	g.eventually("all answers to have begun", func() bool {
		n := 0
		for _, r := range g.up.ByID("cut") {
			if r.Sent > 0 {
				n++
			}
		}
		return n == streams
	})
	time.Sleep(500 * time.Millisecond) // nobody is told when the marks of running answers are written
	if open := g.command("audit")["open_holds"]; open != float64(streams) {
		t.Fatalf("%v requests run, want %d", open, streams)
	}
	g.proc.Kill()
	for range streams {
		if r := <-ended; r.SawEnd() {
			t.Errorf("an answer ended well while the sidecar was dead: %s", r.Body)
		}
	}
	second := map[string]rates{"k-*": {"input": "50", "output": "500"}}
	id = g.setPrices(second)["k-*"]
	g.runServe()
	g.ready()
	rows := g.books("--key", k.key.ID)
	for i := range streams {
		model := fmt.Sprintf("k-%d", i)
		row := rows[model]
		want := bill(t, first["k-*"], row.Prompt, row.Completion, rig.Parts{})
		if !row.Is("recovered") || row.Requests != 1 || row.Completion == 0 || row.Prompt == 0 || row.Cost != decimal(want) || row.Unpriced != 0 {
			t.Errorf("%s: %+v, want it recovered for %s", model, row, decimal(want))
		}
		k.rows[model] = &bought{cost: want, requests: 1}
	}
	k.took(ask(whole), whole, id, second["k-*"])
	k.closes()

	after := g.command("audit", "--checkpoint", check)
	if b, a := before["charges"].(float64), after["charges"].(float64); a != b+streams+1 || after["balanced"] != true {
		t.Errorf("before %v, after %v", before, after)
	}
	money := k.told(owner{NewKey: k.key}, owner{}, "/limits")["money"].(object)
	if table, err := g.cli.Usage("key", "--key", k.key.ID); err != nil || money["held"] != "0" || money["used"] != table.Total.Cost {
		t.Errorf("money %v, used %s, %v", money, table.Total.Cost, err)
	}
	if code, err := g.proc.Stop(20 * time.Second); err != nil || code != 0 {
		t.Fatalf("serve after SIGTERM: exit %d, %v", code, err)
	}
	if again := g.command("rebuild-counters"); len(again["corrected"].([]any)) != 0 {
		t.Errorf("counters were wrong: %v", again)
	}
}

// TestUnpricedModelsAreRefusedFromAReloadOn changes prices.unknown_model of a
// running gateway, by a signal and by the file alone.
func TestUnpricedModelsAreRefusedFromAReloadOn(t *testing.T) {
	config := filepath.Join(t.TempDir(), "c.yaml")
	write := func(word string) {
		t.Helper()
		if err := os.WriteFile(config+"~", []byte("prices: {unknown_model: "+word+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(config+"~", config); err != nil {
			t.Fatal(err)
		}
	}
	write("meter")
	g := start(t, setup{args: []string{"--config", config}})
	k := g.till()
	table := map[string]rates{"priced": {"input": "1", "output": "2"}}
	id := g.setPrices(table)["priced"]
	ask := func(model, id string) (rig.Chat, rig.Received) {
		c := rig.Chat{Model: model, MaxTokens: 10, Script: rig.Script{ID: id, Prompt: 3, Completion: 4}}
		return c, k.client.Do(g.context(), rig.Request{Key: k.key.Key, Body: c.Body()})
	}
	time.Sleep(inForce)
	buy := func(model string, price int64) {
		t.Helper()
		c, r := ask(model, "bought")
		if !r.SawEnd() {
			t.Fatalf("%s: %d %s", model, r.Status, r.Body)
		}
		k.took(r, c, price, table[model])
	}
	buy("unpriced", 0)
	buy("priced", id)
	running := make(chan rig.Received)
	long := rig.Chat{Model: "unpriced", MaxTokens: 10, Stream: true, Script: rig.Script{ID: "long", Prompt: 5, Completion: 6, Held: true, HeldAfter: 1}}
	go func() { running <- k.client.Do(g.context(), rig.Request{Key: k.key.Key, Body: long.Body()}) }()
	g.answeredBy("long", 1)

	write("refuse")
	if err := syscall.Kill(g.proc.Pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	g.eventually("the model to be refused", func() bool {
		c, r := ask("unpriced", "until")
		if r.SawEnd() {
			k.took(r, c, 0, nil)
		}
		return r.Status == http.StatusForbidden
	})
	for range 5 {
		_, r := ask("unpriced", "refused")
		p := wantProblem(t, "without a price", r, http.StatusForbidden, "model_not_priced")
		if p.Error.Param == nil || *p.Error.Param != "model" {
			t.Errorf("it does not name the model: %s", r.Body)
		}
	}
	if n := len(g.up.ByID("refused")); n != 0 {
		t.Errorf("%d refused requests reached the upstream", n)
	}
	buy("priced", id)
	g.up.Release("long")
	k.took(<-running, long, 0, nil)

	// A price makes the model served, its end makes it refused again.
	table["unpriced"] = rates{"input": "3"}
	next := g.setPrices(map[string]rates{"unpriced": table["unpriced"]})["unpriced"]
	g.obeys("the price", func() (rig.Received, bool) {
		c, r := ask("unpriced", "priced")
		if r.SawEnd() {
			k.took(r, c, next, table["unpriced"])
		}
		return r, r.SawEnd()
	})
	g.command("set-price", "--model", "unpriced", "--none")
	g.obeys("the end of the price", func() (rig.Received, bool) {
		_, r := ask("unpriced", "over")
		return r, r.Status == http.StatusForbidden
	})
	write("meter")
	g.eventually("the model to be served", func() bool { _, r := ask("unpriced", "again"); return r.SawEnd() })
	g.balanced()
}
