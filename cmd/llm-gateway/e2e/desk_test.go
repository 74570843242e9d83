//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// desk is where an operator works with the commands, beside gateways under
// load. Every key of the operator's is asked with at each gateway, from its
// first moment until the desk closes.
type desk struct {
	t     *testing.T
	cli   rig.CLI
	gates []*gateway

	mu    sync.Mutex
	seats []*seat
}

// seat is one key of the desk with those who ask with it, one a gateway, and
// what was done to it.
type seat struct {
	rig.NewKey
	askers  []*asker
	changes []change
}

// TestDeskUnderLoad serves 200 requests a second while an operator makes,
// limits, replaces and revokes keys and takes backups: each change is in force
// within the promised second and for good, no request of the load is refused or
// lost, and the books balance, live and restored.
func TestDeskUnderLoad(t *testing.T) {
	postgres := rig.StartPostgres(t)
	t.Run("SQLite", func(t *testing.T) {
		workUnderLoad(t, postgres, start(t, setup{}))
	})
	t.Run("PostgreSQL and two gateways", func(t *testing.T) {
		env := []string{"DATABASE_URL=" + postgres.NewDatabase()}
		first := start(t, setup{env: env})
		workUnderLoad(t, postgres, first, start(t, setup{env: env, url: first.up.URL}))
	})
}

func workUnderLoad(t *testing.T, postgres *rig.Postgres, gates ...*gateway) {
	const perSecond, lives = 200, 5
	g := gates[0]
	keys := []rig.NewKey{g.key(), g.key(), g.key()}
	for _, other := range gates {
		for _, k := range keys {
			other.accepted(k)
		}
	}
	load := startTraffic(t, gates, keys, perSecond)
	d := &desk{t: t, cli: g.cli, gates: gates}
	parallel(lives, 2, func(int) {
		if err := d.life(); err != nil {
			t.Error(err)
		}
	})
	backups := takeBackups(t, load, g, postgres)
	again := 0
	if len(gates) > 1 {
		// Gateways wait 200 ms for each other's lock on a key, then they send the
		// client away. On a disk with much else to do a commit may take longer.
		again = 20
	}
	load.endTraffic(t, g, again)
	d.close(t, lives, again)
	g.balanced()
	backups.compare(t, load)
	backups.unusable(t)
	backups.takeOver(t, keys[0])
}

// life is what becomes of one key and its successors.
func (d *desk) life() error {
	const overlap = 2 * time.Second
	first, err := d.open("create", "create-key", "--limit", strconv.FormatInt(plenty, 10))
	if err != nil {
		return err
	}
	err = errors.Join(
		d.change(first, "lower a limit", spent, "set-limit", "--key", first.ID, "--daily", "1"),
		d.change(first, "raise a limit", admitted, "set-limit", "--key", first.ID, "--daily", strconv.FormatInt(plenty, 10)))
	if err != nil {
		return err
	}
	began := time.Now()
	second, err := d.open("rotate with an overlap, new key", "rotate-key", "--key", first.ID, "--overlap", overlap.String())
	if err != nil {
		return err
	}
	// The end that the command set lies between these two, a gateway's clock being the same.
	first.changes = append(first.changes, change{
		kind: "rotate with an overlap, old key", from: admitted, to: unknown,
		began: began.Add(overlap), done: second.changes[0].done.Add(overlap),
	})
	began = time.Now()
	third, err := d.open("rotate at once, new key", "rotate-key", "--key", second.ID, "--overlap", "0s")
	if err != nil {
		return err
	}
	second.changes = append(second.changes, change{
		kind: "rotate at once, old key", from: admitted, to: unknown, began: began, done: third.changes[0].done,
	})
	second.settled(unknown)
	err = d.change(third, "revoke", unknown, "revoke-key", "--key", third.ID, "--force")
	first.settled(unknown) // by the end of the overlap
	return err
}

// open runs a command that makes a key, and begins to ask with it.
func (d *desk) open(kind string, args ...string) (*seat, error) {
	s := &seat{}
	began := time.Now()
	if err := d.run(&s.NewKey, args...); err != nil {
		return nil, err
	}
	if s.ID == "" || s.Key == "" {
		return nil, fmt.Errorf("%s: no id or no key in its answer", args[0])
	}
	s.changes = []change{{kind: kind, from: unknown, to: admitted, began: began, done: time.Now()}}
	for _, g := range d.gates {
		s.askers = append(s.askers, ask(d.t, g.client(true), s.NewKey))
	}
	d.mu.Lock()
	d.seats = append(d.seats, s)
	d.mu.Unlock()
	s.settled(admitted)
	return s, nil
}

// change runs a command and waits until every gateway obeys.
func (d *desk) change(s *seat, kind, to string, args ...string) error {
	c := change{kind: kind, from: s.changes[len(s.changes)-1].to, to: to, began: time.Now()}
	var answer json.RawMessage
	if err := d.run(&answer, args...); err != nil {
		return err
	}
	c.done = time.Now()
	s.changes = append(s.changes, c)
	s.settled(to)
	return nil
}

func (d *desk) run(answer any, args ...string) error {
	r, err := d.cli.Run(append(args, "--json")...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit %d: %s", r.Code, r.Stderr)
	}
	if err == nil {
		err = json.Unmarshal([]byte(r.Stdout), answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return nil
}

// settled waits until all gateways say so; a key that is dead is then asked
// with less often.
func (s *seat) settled(want string) {
	for _, a := range s.askers {
		a.settled(want)
		if want == unknown {
			a.slower()
		}
	}
}

// close ends the asking, judges every answer that came, and compares what was
// admitted with the books. So many of the answers may be "come again".
func (d *desk) close(t *testing.T, lives, again int) {
	t.Helper()
	took, away := map[string][]time.Duration{}, 0
	for _, s := range d.seats {
		var requests int64
		for i, a := range s.askers {
			answers := a.end()
			away += a.away
			for _, one := range answers {
				if one.told == admitted {
					requests++
				}
			}
			each, problems := judge(answers, s.changes)
			for _, p := range problems {
				t.Errorf("key %s at gateway %d: %s", s.ID, i, p)
			}
			if len(problems) == 0 {
				for j, c := range s.changes {
					took[c.kind] = append(took[c.kind], each[j])
				}
			}
		}
		table, err := d.cli.Usage("key", "--key", s.ID)
		if err != nil {
			t.Fatal(err)
		}
		if total := table.Total; total.Requests != requests || total.Prompt != requests*askerPrompt || total.Completion != requests*askerCompletion {
			t.Errorf("key %s: %d requests of %d+%d tokens in the books, %d were admitted", s.ID, total.Requests, total.Prompt, total.Completion, requests)
		}
	}
	if away > again {
		t.Errorf("%d requests with the operator's keys were told to come again, at most %d may be", away, again)
	}
	for _, kind := range []string{
		"create", "lower a limit", "raise a limit", "rotate with an overlap, new key", "rotate with an overlap, old key",
		"rotate at once, new key", "rotate at once, old key", "revoke",
	} {
		if n := len(took[kind]); n < lives*len(d.gates) {
			t.Errorf("%s: measured %d times only", kind, n)
			continue
		}
		var longest time.Duration
		for _, each := range took[kind] {
			longest = max(longest, each)
		}
		t.Logf("%-32s in force at the latest %s after the command", kind+":", longest.Round(time.Millisecond))
	}
}
