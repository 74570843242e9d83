//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// plenty is a limit that no test reaches.
const plenty = 1_000_000_000_000

// ports is shared by the tests of the package so that no two get the same one.
var ports rig.Ports

// setup says what to start. The zero value is `up` in front of the scripted
// upstream, with limits that nobody reaches.
type setup struct {
	demo bool     // no upstream configured: the built-in model answers
	url  string   // another upstream than the scripted one
	env  []string // more environment, beats the defaults
	args []string // more arguments of up and serve
}

// gateway is one data directory with everything that runs on it.
type gateway struct {
	t     *testing.T
	setup setup
	up    *rig.Upstream
	proc  *rig.Process // up, or serve
	envoy *rig.Process // of its own, beside serve
	cli   rig.CLI
	envoyBinary,
	dir, data, addr, url string
}

// prepare makes the data directory and the upstream, and starts nothing else.
func prepare(t *testing.T, s setup) *gateway {
	t.Helper()
	binary, err := rig.FindGateway("../../../bin/llm-gateway")
	if err != nil {
		t.Fatalf("the binary under test: %v (make build, or set LLMGW_BIN)", err)
	}
	envoy, err := rig.FindEnvoy()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gw") // short: socket paths have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, setup: s, dir: dir, data: filepath.Join(dir, "data"), envoyBinary: envoy}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if g.addr, err = ports.Next(); err != nil {
		t.Fatal(err)
	}
	g.url = "http://" + g.addr
	g.cli = rig.CLI{Binary: binary, Data: g.data, Env: g.environment(), Dir: dir}
	if !s.demo && s.url == "" {
		if g.up, err = rig.StartUpstream(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.up.Close)
	}
	return g
}

// start runs `up` and waits until it is ready.
func start(t *testing.T, s setup) *gateway {
	t.Helper()
	g := prepare(t, s)
	g.runUp()
	return g
}

func (g *gateway) environment() []string {
	n := fmt.Sprint(int64(plenty))
	return rig.MinimalEnv(append([]string{
		"RATE_LIMIT_REQUESTS=1000000", "API_DAILY_LIMIT=" + n, "API_MONTHLY_LIMIT=" + n, "DEFAULT_MAX_TOKENS=" + n,
		"ENVOY_PATH=" + g.envoyBinary,
		// A machine that tests other things too may stall for longer than the
		// default 250 ms, and a refusal for that reason is no finding.
		"LLMGW_RESERVE__MAX_WAIT=3s",
	}, g.setup.env...)...)
}

func (g *gateway) upstreamArgs() []string {
	switch {
	case g.setup.url != "":
		return []string{"--upstream", g.setup.url}
	case g.up != nil:
		return []string{"--upstream", g.up.URL}
	}
	return nil
}

// launch starts the binary with a subcommand; nobody waits for readiness.
func (g *gateway) launch(args ...string) *rig.Process {
	g.t.Helper()
	args = append(append(args, "--data", g.data), g.upstreamArgs()...)
	p, err := rig.Start(rig.Spec{
		Name: "gateway", Path: g.cli.Binary, Args: append(args, g.setup.args...),
		Env: g.environment(), Dir: g.dir, Logs: g.dir,
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if g.t.Failed() {
			g.t.Log(p.Tail(40))
		}
		p.Kill()
	})
	return p
}

func (g *gateway) runUp() {
	g.t.Helper()
	g.proc = g.launch("up", "--listen", g.addr)
	g.ready()
}

// runServe starts the sidecar alone, on the sockets that `up` would use.
func (g *gateway) runServe() {
	g.t.Helper()
	g.proc = g.launch("serve", "--grpc", "unix://"+g.socket("extproc.sock"), "--http", "unix://"+g.socket("api.sock"))
}

func (g *gateway) socket(name string) string { return filepath.Join(g.data, "run", name) }

// ready waits for GET /health on the listener.
func (g *gateway) ready() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	procs := []*rig.Process{g.proc}
	if g.envoy != nil {
		procs = append(procs, g.envoy)
	}
	if err := rig.WaitHealthy(ctx, g.url+"/health", procs...); err != nil {
		g.t.Fatalf("%v\n%s", err, g.proc.Tail(40))
	}
}

// renderedConfig starts `up` once, takes the Envoy bootstrap it rendered and
// stops it again.
func (g *gateway) renderedConfig() rig.EnvoyConfig {
	g.t.Helper()
	g.runUp()
	config, err := rig.LoadEnvoyConfig(g.socket("envoy.yaml"))
	if err != nil {
		g.t.Fatal(err)
	}
	if code, err := g.proc.Stop(20 * time.Second); err != nil || code != 0 {
		g.t.Fatalf("up after SIGTERM: exit %d, %v", code, err)
	}
	if n := config.MovePipe("envoy-admin.sock", filepath.Join(g.dir, "admin.sock")); n != 1 {
		g.t.Fatalf("the rendered config has %d admin sockets, want 1", n)
	}
	return config
}

// runEnvoy starts an Envoy of the test's own.
func (g *gateway) runEnvoy(name string, config rig.EnvoyConfig, addr string) *rig.Process {
	g.t.Helper()
	if err := config.SetListen(addr); err != nil {
		g.t.Fatal(err)
	}
	p, err := rig.StartEnvoy(g.envoyBinary, g.dir, name, config, 2)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if g.t.Failed() {
			g.t.Log(p.Tail(25))
		}
		p.Kill()
	})
	return p
}

// startApart runs serve behind an Envoy that outlives it.
func startApart(t *testing.T, s setup) *gateway {
	t.Helper()
	g := prepare(t, s)
	config := g.renderedConfig()
	g.runServe()
	g.envoy = g.runEnvoy("envoy", config, g.addr)
	g.ready()
	return g
}

// key makes a key nobody limits, but for the flags.
func (g *gateway) key(flags ...string) rig.NewKey {
	g.t.Helper()
	k, err := g.cli.CreateKey(plenty, flags...)
	if err != nil {
		g.t.Fatal(err)
	}
	g.accepted(k)
	return k
}

// accepted waits until a running gateway knows a key made beside it.
func (g *gateway) accepted(k rig.NewKey) {
	g.t.Helper()
	if g.proc == nil {
		return
	}
	c := g.client(false)
	g.eventually("the new key to be known", func() bool {
		return c.Do(g.context(), rig.Request{Path: "/v1/chat/completions", Key: k.Key, Body: []byte("{")}).Status == 400
	})
}

// context ends with a generous limit of one test step.
func (g *gateway) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	g.t.Cleanup(cancel)
	return ctx
}

func (g *gateway) client(h2c bool) *rig.Client {
	c := rig.NewClient(g.url, h2c)
	g.t.Cleanup(c.Close)
	return c
}

// eventually polls a condition for 20 seconds.
func (g *gateway) eventually(what string, ok func() bool) {
	g.t.Helper()
	g.within(20*time.Second, what, ok)
}

func (g *gateway) within(limit time.Duration, what string, ok func() bool) {
	g.t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("waited %s in vain for %s", limit, what)
		}
	}
}

// balanced waits until no hold is open and fails unless the books balance.
func (g *gateway) balanced() rig.AuditReport {
	g.t.Helper()
	var report rig.AuditReport
	g.eventually("all holds to be resolved", func() bool {
		var err error
		if report, err = g.cli.Audit(); err != nil {
			g.t.Fatal(err)
		}
		return report.OpenHolds == 0
	})
	if !report.Balanced || len(report.Problems) > 0 {
		g.t.Errorf("the books do not balance: %s", report.Problems)
	}
	return report
}

// books waits for balanced books and returns the charges by model.
func (g *gateway) books(flags ...string) map[string]rig.UsageRow {
	g.t.Helper()
	g.balanced()
	rows, err := g.cli.UsageByModel(flags...)
	if err != nil {
		g.t.Fatal(err)
	}
	return rows
}

// envoyPid finds the Envoy that `up` runs.
func (g *gateway) envoyPid() int {
	g.t.Helper()
	kids, err := rig.Children(g.proc.Pid)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, pid := range kids {
		if strings.Contains(rig.Command(pid), "envoy.yaml") {
			return pid
		}
	}
	return 0
}

// wantProblem checks an error answer of the contract.
func wantProblem(t *testing.T, name string, r rig.Received, status int, code string) rig.Problem {
	t.Helper()
	p, ok := r.Problem()
	if r.Status != status || !ok || p.Error.Code != code || p.Detail == "" || p.Error.Type == "" {
		t.Errorf("%s: %d %q (%v), want %d with code %s", name, r.Status, r.Body, r.Err, status, code)
	}
	if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		t.Errorf("%s: content type %q", name, ct)
	}
	if r.Header.Get("X-Request-Id") == "" {
		t.Errorf("%s: no x-request-id", name)
	}
	return p
}

// parallel runs jobs 0..n-1 with so many workers.
func parallel(n, workers int, job func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				job(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

func ptr[T any](v T) *T { return &v }
