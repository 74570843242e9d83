//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// rates are the prices of a million tokens by kind, as they are written.
type rates map[string]string

// nano reads a decimal amount in nano-units.
func nano(t *testing.T, text string) *big.Int {
	t.Helper()
	r, ok := new(big.Rat).SetString(text)
	if ok {
		r.Mul(r, big.NewRat(1_000_000_000, 1))
	}
	if !ok || !r.IsInt() {
		t.Fatalf("%q is no amount in whole nano-units", text)
	}
	return r.Num()
}

// decimal writes nano-units as the gateway does: no zeros at the end.
func decimal(nano *big.Int) string {
	text := new(big.Rat).SetFrac(nano, big.NewInt(1_000_000_000)).FloatString(9)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// bill is what an answer has to cost at these prices, by the contract: no token
// is paid twice, a kind without a price costs as the whole that it is a part of,
// and the sum is rounded up once. The parts are cut to what is left of the whole.
func bill(t *testing.T, r rates, prompt, completion int64, p rig.Parts) *big.Int {
	t.Helper()
	sum := new(big.Int)
	add := func(tokens int64, kind, instead string) {
		rate, ok := r[kind]
		if !ok {
			if rate, ok = r[instead]; !ok {
				rate = "0"
			}
		}
		sum.Add(sum, new(big.Int).Mul(big.NewInt(tokens), nano(t, rate)))
	}
	for _, part := range []struct {
		tokens        int64
		whole         *int64
		kind, instead string
	}{
		{p.Cached, &prompt, "cached_read", "input"},
		{p.CacheWrite, &prompt, "cache_write", "input"},
		{p.AudioPrompt, &prompt, "audio_input", "input"},
		{p.Reasoning, &completion, "reasoning", "output"},
		{p.AudioCompletion, &completion, "audio_output", "output"},
	} {
		n := min(part.tokens, *part.whole)
		*part.whole -= n
		add(n, part.kind, part.instead)
	}
	add(prompt, "input", "")
	add(completion, "output", "")
	million := big.NewInt(1_000_000)
	return sum.Add(sum, big.NewInt(999_999)).Div(sum, million) // rounded up: none is negative
}

// setPrices adds prices by a file and returns their ids by model.
func (g *gateway) setPrices(list map[string]rates) map[string]int64 {
	g.t.Helper()
	text := "currency: USD\nprices:\n"
	for model, r := range list {
		text += fmt.Sprintf("  - model: %q\n", model)
		for kind, amount := range r {
			text += fmt.Sprintf("    %s: %s\n", kind, amount)
		}
	}
	path := filepath.Join(g.dir, "prices.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	ids := map[string]int64{}
	for _, p := range g.command("set-price", "--file", path)["prices"].([]any) {
		p := p.(object)
		ids[p["model"].(string)] = int64(p["id"].(float64))
	}
	if len(ids) != len(list) {
		g.t.Fatalf("%d of %d prices were added", len(ids), len(list))
	}
	return ids
}

// obeys asks until an answer shows that a command which has ended is in force.
// One that was sent after the promised second has to.
func (g *gateway) obeys(what string, ask func() (r rig.Received, obeyed bool)) {
	g.t.Helper()
	for done := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		r, obeyed := ask()
		if obeyed {
			return
		}
		if late := r.Started.Sub(done); late > inForce {
			g.t.Fatalf("%s: not in force %s after the command: %d %.300s", what, late, r.Status, r.Body)
		}
	}
}

// line waits for the gateway's own line of a request.
func (g *gateway) line(requestID string) (line object) {
	g.t.Helper()
	mark := fmt.Sprintf("%q", requestID)
	g.eventually("the line of "+requestID, func() bool {
		for text := range strings.Lines(g.proc.Stderr()) {
			if !strings.Contains(text, mark) || !strings.Contains(text, `"msg":"request"`) {
				continue
			}
			line = nil
			if json.Unmarshal([]byte(text), &line) == nil {
				return true
			}
		}
		return false
	})
	return line
}

// answeredBy waits until the upstream is answering so many requests of an id.
func (g *gateway) answeredBy(id string, n int) {
	g.t.Helper()
	if err := g.up.Wait(g.context(), func([]rig.Record) bool { return len(g.up.ByID(id)) >= n }); err != nil {
		g.t.Fatal(err)
	}
}

// till buys with one key and adds up what each answer has to cost.
type till struct {
	*gateway
	client *rig.Client
	key    rig.NewKey
	rows   map[string]*bought // by model
}

// bought is what the books have to say of a model.
type bought struct {
	cost               *big.Int
	requests, unpriced int64
}

func (g *gateway) till() *till {
	g.t.Helper()
	return &till{gateway: g, client: g.client(false), key: g.key(), rows: map[string]*bought{}}
}

// took checks the line of an answer against what it has to cost at a price, 0 =
// none. Where the tokens are not the script's they are the line's.
func (k *till) took(r rig.Received, c rig.Chat, price int64, at rates) {
	k.t.Helper()
	line := k.line(r.Header.Get("X-Request-Id"))
	prompt, completion := int64(line["prompt_tokens"].(float64)), int64(line["completion_tokens"].(float64))
	s := c.Script
	if line["provenance"] == "reported" && (prompt != s.Prompt || completion != s.Completion) {
		k.t.Errorf("%s: %d+%d tokens, reported are %d+%d", c.Model, prompt, completion, s.Prompt, s.Completion)
	}
	want := bill(k.t, at, prompt, completion, s.Parts)
	if int64(line["price"].(float64)) != price || line["cost"] != decimal(want) {
		k.t.Errorf("%s: price %v, cost %v; want price %d, cost %s for %d+%d tokens, %+v",
			c.Model, line["price"], line["cost"], price, decimal(want), prompt, completion, s.Parts)
	}
	row := k.rows[c.Model]
	if row == nil {
		row = &bought{cost: new(big.Int)}
		k.rows[c.Model] = row
	}
	row.requests++
	row.cost.Add(row.cost, want)
	if price == 0 {
		row.unpriced++
	}
}

// closes compares all that tells of money with what was bought: the usage
// command, GET /usage, and the simulation of the prices that were in force.
func (k *till) closes() {
	k.t.Helper()
	rows := k.books("--key", k.key.ID)
	table, err := k.cli.Usage("model", "--key", k.key.ID)
	if err != nil {
		k.t.Fatal(err)
	}
	told := map[string]object{}
	for _, row := range k.told(owner{NewKey: k.key}, owner{}, "/usage?group_by=model")["rows"].([]any) {
		told[row.(object)["model"].(string)] = row.(object)
	}
	simulated := k.command("simulate-tariff", "--file", k.allPrices(), "--key", k.key.ID)
	again := map[string]object{}
	for _, row := range simulated["rows"].([]any) {
		again[row.(object)["model"].(string)] = row.(object)
	}
	total, unpriced := new(big.Int), int64(0)
	for model, want := range k.rows {
		cost := decimal(want.cost)
		if row := rows[model]; row.Cost != cost || row.Requests != want.requests || row.Unpriced != want.unpriced {
			k.t.Errorf("usage of %s: cost %s, %d requests, %d without a price; want %s, %d, %d",
				model, row.Cost, row.Requests, row.Unpriced, cost, want.requests, want.unpriced)
		}
		if told[model]["cost"] != cost {
			k.t.Errorf("GET /usage of %s: %v, want %s", model, told[model], cost)
		}
		if row := again[model]; row["charged"] != cost || row["simulated"] != cost || row["difference"] != "0" || row["unpriced_requests"] != float64(want.unpriced) {
			k.t.Errorf("simulation of %s: %v, want %s", model, row, cost)
		}
		total.Add(total, want.cost)
		unpriced += want.unpriced
	}
	if n := len(k.rows); len(rows) != n || len(told) != n || len(again) != n {
		k.t.Errorf("%d models were bought; usage has %d, GET /usage %d, the simulation %d", n, len(rows), len(told), len(again))
	}
	sum := simulated["total"].(object)
	if cost := decimal(total); table.Total.Cost != cost || table.Total.Unpriced != unpriced || sum["charged"] != cost || sum["simulated"] != cost {
		k.t.Errorf("in all: usage %s, %d without a price, simulation %v; want %s, %d", table.Total.Cost, table.Total.Unpriced, sum, cost, unpriced)
	}
}

// allPrices writes every price there ever was as a price file.
func (g *gateway) allPrices() string {
	g.t.Helper()
	list := g.command("list-prices", "--all")
	known := []string{"model", "valid_from", "input", "cached_read", "cache_write", "output", "reasoning", "audio_input", "audio_output"}
	for _, p := range list["prices"].([]any) {
		for name, v := range p.(object) {
			if v == nil || !slices.Contains(known, name) {
				delete(p.(object), name)
			}
		}
	}
	text, err := json.Marshal(list)
	path := filepath.Join(g.dir, "all-prices.json")
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return path
}
