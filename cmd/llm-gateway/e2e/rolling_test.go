//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const (
	rollingRate = 80 // requests a second
	longStream  = 2500 * time.Millisecond
)

// mixedRide is every tenth time a stream of seconds.
func mixedRide(n int) rig.Chat {
	c := shortRide(n)
	if n%10 == 0 {
		c.Script.Chunks, c.Script.ChunkDelayMS = 25, int(longStream.Milliseconds())/25
	}
	return c
}

// rolling is load and intruders, while a part of the gateway is replaced.
type rolling struct {
	t          *testing.T
	g          *gateway
	load       *traffic
	checkpoint string

	stop      chan struct{}
	intruders sync.WaitGroup
	knocks    atomic.Int64
	answers   sync.Map // status of an intruder's answer
}

func startRolling(t *testing.T, g *gateway, key rig.NewKey) *rolling {
	t.Helper()
	r := &rolling{t: t, g: g, checkpoint: filepath.Join(g.dir, "checkpoint.json"), stop: make(chan struct{})}
	r.audit()
	r.load = startTrafficOf(t, []*gateway{g}, []rig.NewKey{key}, rollingRate, mixedRide)
	forged := http.Header{
		"X-Llmgw-Admit": {"1"}, "X-Llmgw-Key-Id": {key.ID}, "X-Envoy-Original-Path": {"/healthz"}, "X-Envoy-Internal": {"true"},
	}
	for i, knock := range []rig.Request{{}, {Key: "sk-wrong"}, {Header: forged}, {Key: "sk-wrong", Header: forged}} {
		client := g.client(i%2 == 0)
		r.intruders.Go(func() {
			ticker := time.NewTicker(100 * time.Millisecond)
			defer ticker.Stop()
			for {
				select {
				case <-r.stop:
					return
				case <-ticker.C:
				}
				in := knock
				in.Body = rig.Chat{Model: "intruder", MaxTokens: 5, Stream: i%2 == 0, Script: rig.Script{ID: "intruder"}}.Body()
				r.answers.Store(client.Do(g.context(), in).Status, true)
				r.knocks.Add(1)
			}
		})
	}
	return r
}

// more lets the load go on for some time.
func (r *rolling) more(d time.Duration) { time.Sleep(d) }

func (r *rolling) audit() {
	r.t.Helper()
	if out, err := r.g.cli.Run("audit", "--checkpoint", r.checkpoint); err != nil || out.Code != 0 {
		r.t.Errorf("audit: exit %d, %v\n%s%s", out.Code, err, out.Stdout, out.Stderr)
	}
}

// finish ends the load, holds what the upstream delivered and the clients saw
// against the books, and returns how many requests failed, by kind. A refused
// one has reached nobody and costs nothing; one that was cut costs at most what
// the upstream was ready to deliver, once.
func (r *rolling) finish() map[string]int {
	t := r.t
	t.Helper()
	close(r.stop)
	r.intruders.Wait()
	r.load.stop()
	r.load.wg.Wait()
	r.g.balanced()
	r.audit()
	books := r.load.rides(t, r.g.cli)
	delivered := map[string][]rig.Record{}
	for _, rec := range r.g.up.Records() {
		if strings.HasPrefix(rec.Script.ID, rideModel) {
			delivered[rec.Script.ID] = append(delivered[rec.Script.ID], rec)
		} else if rec.Script.ID == "intruder" {
			t.Errorf("an intruder reached the upstream: %s", rec.Path)
		}
	}
	kinds, wrong := map[string]int{}, 0
	for model, ride := range r.load.sent {
		if problem := unlike(ride, delivered[model], books[model]); problem != "" {
			if wrong++; wrong <= 5 {
				t.Errorf("%s: %s", model, problem)
			}
		}
		if kind := failure(ride.received); kind != "" {
			kinds[kind]++
		}
	}
	if wrong > 5 {
		t.Errorf("%d of %d requests are not in the books as they were delivered", wrong, len(r.load.sent))
	}
	for model := range books {
		if _, ok := r.load.sent[model]; !ok {
			t.Errorf("%s: a charge that nobody asked for", model)
		}
	}
	r.answers.Range(func(status, _ any) bool {
		if s, ok := status.(int); !ok || s/100 == 2 {
			t.Errorf("an intruder was answered %v", status)
		}
		return true
	})
	t.Logf("%d requests in %s, %d at the upstream, %d charged, failed: %v; %d intruders, none let in",
		len(r.load.sent), time.Since(r.load.began).Round(time.Second), len(delivered), len(books), kinds, r.knocks.Load())
	if r.knocks.Load() == 0 || len(delivered) == 0 {
		t.Error("there was no load")
	}
	return kinds
}

// unlike says in what the books differ from what was delivered.
func unlike(ride ride, hits []rig.Record, row rig.UsageRow) string {
	s, got := ride.chat.Script, ride.received
	told := fmt.Sprintf("client %d %v, %d upstream hits, %d charges of %d+%d (%s), the script has %d+%d",
		got.Status, got.Err, len(hits), row.Requests, row.Prompt, row.Completion, row.Words(), s.Prompt, s.Completion)
	switch {
	case len(hits) > 1 || row.Requests > 1:
		return "more than once: " + told
	case len(hits) == 0 && row.Total > 0:
		return "charged, and never delivered: " + told
	case len(hits) == 0:
		return ""
	case row.Requests != 1:
		return "delivered, and not charged: " + told
	case got.SawEnd() && (row.Prompt != s.Prompt || row.Completion != s.Completion || !row.Is("reported")):
		return "seen to its end, and charged otherwise: " + told
	case !got.SawEnd() && row.Is("reported") && (row.Prompt != s.Prompt || row.Completion != s.Completion):
		return "charged otherwise than reported: " + told
	}
	return ""
}

// failure names what went wrong for a client, "" for nothing.
func failure(r rig.Received) string {
	p, _ := r.Problem()
	switch {
	case r.Status == http.StatusOK && r.SawEnd():
		return ""
	case r.Status == http.StatusOK:
		return "cut"
	case r.Status == http.StatusServiceUnavailable && p.Error.Code == "gateway_unavailable":
		return "refused"
	case r.Status != 0:
		return fmt.Sprintf("%d %s", r.Status, p.Error.Code)
	case errors.Is(r.Err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(r.Err, io.EOF), errors.Is(r.Err, syscall.ECONNRESET):
		return "connection lost"
	default:
		return "no answer: " + r.Err.Error()
	}
}

// wantAtMost fails for every kind of failure beyond what is allowed of it.
func wantAtMost(t *testing.T, allowed, kinds map[string]int) {
	t.Helper()
	for kind, n := range kinds {
		if n > allowed[kind] {
			t.Errorf("%d requests: %s, at most %d may be", n, kind, allowed[kind])
		}
	}
}

// A single gateway is restarted: requests are refused while the answers that
// run come to their end, and nothing else happens to anybody.
func TestRollingSingle(t *testing.T) {
	g := startApart(t, setup{})
	r := startRolling(t, g, g.key())
	for range 2 {
		r.more(1500 * time.Millisecond)
		began := time.Now()
		if code, err := g.proc.Stop(20 * time.Second); err != nil || code != 0 {
			t.Fatalf("stop: exit %d, %v", code, err)
		}
		stopped := time.Now()
		g.runServe()
		g.ready()
		t.Logf("stopped after %s, ready %s later", stopped.Sub(began).Round(time.Millisecond), time.Since(stopped).Round(time.Millisecond))
	}
	r.more(time.Second)
	wantAtMost(t, map[string]int{"refused": plenty}, r.finish())
}

// Two gateways are restarted one after the other: nobody notices.
func TestRollingFleet(t *testing.T) {
	f := startFleet(t, 2)
	r := startRolling(t, f.gateway, f.key(plenty))
	r.more(time.Second)
	for _, n := range append(f.nodes, f.nodes[0]) { // as soon as the one before says that it is ready
		began := time.Now()
		if code, err := n.proc.Stop(20 * time.Second); err != nil || code != 0 {
			t.Fatalf("%s: exit %d, %v", n.name, code, err)
		}
		stopped := time.Now()
		f.run(n)
		f.nodeReady(n)
		t.Logf("%s stopped after %s, ready %s later", n.name, stopped.Sub(began).Round(time.Millisecond), time.Since(stopped).Round(time.Millisecond))
	}
	r.more(2 * time.Second)
	wantAtMost(t, nil, r.finish())
}

// Envoy is replaced: by a signal, with another configuration, another program,
// and with a configuration that is wrong.
func TestRollingEnvoy(t *testing.T) {
	g := prepare(t, setup{env: []string{"LLMGW_ENVOY__DRAIN=5s"}})
	program := filepath.Join(g.dir, "envoy")
	copyProgram(t, g.envoyBinary, program)
	g.envoyBinary = program
	g.cli.Env = g.environment()
	g.runServe()
	side := filepath.Join(g.dir, "envoy-data")
	var err error
	g.envoy, err = rig.Start(rig.Spec{
		Name: "envoy-command", Path: g.cli.Binary, Env: g.environment(), Dir: g.dir, Logs: g.dir,
		Args: append([]string{
			"envoy", "--data", side, "--listen", g.addr,
			"--grpc", "unix://" + g.socket("extproc.sock"), "--http", "unix://" + g.socket("api.sock"),
		}, g.upstreamArgs()...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(g.envoy.Tail(40))
		}
		g.envoy.Kill()
	})
	g.ready()
	r := startRolling(t, g, g.key())
	count := func(message string) int { return strings.Count(g.envoy.Stderr(), `"msg":"`+message) }
	replaced := func(change func()) {
		t.Helper()
		n := count("envoy replaced")
		r.more(time.Second)
		change()
		g.eventually("Envoy to be replaced", func() bool { return count("envoy replaced") == n+1 })
	}
	hup := func() { g.envoy.Signal(syscall.SIGHUP) }
	settings := filepath.Join(g.dir, ".env")
	replaced(hup)
	replaced(func() { writeFile(t, settings, "LLM_TIMEOUT=200s\n", 0o600) })
	if text, err := os.ReadFile(filepath.Join(side, "run", "envoy.yaml")); err != nil || !strings.Contains(string(text), "200s") {
		t.Errorf("the new setting is not in the configuration that serves: %v", err)
	}
	writeFile(t, settings, "LLM_TIMEOUT=soon\n", 0o600)
	g.eventually("a wrong setting to be refused", func() bool { return count("envoy not replaced") > 0 })
	writeFile(t, settings, "LLM_TIMEOUT=200s\n", 0o600)
	replaced(func() {
		copyProgram(t, program, program+".new")
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	})
	r.more(2 * time.Second)
	// A client may write on a connection at the moment in which the former Envoy
	// closes it as unused, as with any server.
	wantAtMost(t, map[string]int{"connection lost": 1}, r.finish())
	if code, err := g.envoy.Stop(20 * time.Second); err != nil || code != 0 {
		t.Errorf("stop: exit %d, %v", code, err)
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o700); err != nil {
		t.Fatal(err)
	}
}
