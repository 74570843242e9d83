package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
	"github.com/MaksimVF/llm-gateway/envoy"
)

// bench holds what all candidates share: the model server and the ports.
type bench struct {
	s     settings
	dir   string
	self  string
	envoy string
	model *rig.Process
	at    string // the model server's address
	ports rig.Ports
}

func newBench(dir string, s settings) (*bench, error) {
	b := &bench{s: s, dir: dir}
	var err error
	if b.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if b.envoy, err = rig.FindEnvoy(); err != nil {
		return nil, err
	}
	if b.s.gateway, err = filepath.Abs(s.gateway); err != nil {
		return nil, err
	}
	if b.at, err = b.ports.Next(); err != nil {
		return nil, err
	}
	b.model, err = rig.Start(rig.Spec{Name: "model", Path: b.self, Args: []string{"-role", "model", "-at", b.at}, Logs: dir})
	return b, err
}

func (b *bench) close() { b.model.Kill() }

// candidate starts one candidate fresh, runs every load on it and ends it.
func (b *bench) candidate(ctx context.Context, dir, name string, results rounds) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	r := &running{dir: dir, envoySocket: filepath.Join(dir, "g.sock"), apiSocket: filepath.Join(dir, "a.sock")}
	defer r.end()
	if err := b.sidecar(r, name); err != nil {
		return err
	}
	if err := b.startEnvoy(ctx, r, name); err != nil {
		return err
	}
	l := loader{addr: r.addr, secret: r.secret, pids: r.pids(), storePids: r.storePids()}
	if err := l.warm(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, r.tail())
	}
	idle, err := l.rss()
	if err != nil {
		return err
	}
	results.add(name, "rss", "idle MB", float64(idle)/1e6)
	for _, load := range b.loads() {
		if len(r.storeProcesses) > 0 && !strings.HasPrefix(load.name, "json") {
			continue // a store elsewhere is asked at the admission; events do not know it
		}
		figures, err := load.run(ctx, l)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", load.name, err, r.tail())
		}
		for what, v := range figures {
			results.add(name, load.name, what, v)
		}
	}
	loaded, err := l.rss()
	if err != nil {
		return err
	}
	results.add(name, "rss", "loaded MB", float64(loaded)/1e6)
	return nil
}

// running is one started candidate.
type running struct {
	dir, addr, secret      string
	envoySocket, apiSocket string
	processes              []*rig.Process

	host           *host
	storeProcesses []*rig.Process // Redis and PostgreSQL, where the candidate uses them
}

func (r *running) pids() []int {
	var pids []int
	for _, p := range r.processes {
		pids = append(pids, p.Pid)
	}
	return pids
}

func (r *running) storePids() []int {
	var pids []int
	for _, p := range r.storeProcesses {
		pids = append(pids, p.Pid)
	}
	return pids
}

func (r *running) end() {
	for _, p := range r.processes {
		p.Kill()
	}
	if r.host != nil {
		r.host.end()
	}
}

func (r *running) tail() string {
	out := ""
	for _, p := range r.processes {
		out += p.Tail(10)
	}
	return out
}

func (b *bench) sidecar(r *running, name string) error {
	switch name {
	case "bare":
		return nil
	case "noop":
		p, err := rig.Start(rig.Spec{Name: "noop", Path: b.self, Args: []string{"-role", "noop", "-at", r.envoySocket}, Logs: r.dir})
		if err != nil {
			return err
		}
		r.processes = append(r.processes, p)
		return nil
	case "gateway", "redis", "postgres":
	default:
		return fmt.Errorf("unknown candidate %q", name)
	}
	// Everything is on: key look-up, window, budgets, holds and charges on
	// disk. Only the limits are too high to be reached.
	stores, err := r.stores(name)
	if err != nil {
		return err
	}
	env := rig.MinimalEnv(append(stores, "RATE_LIMIT_REQUESTS=100000000", "LOG_LEVEL=warn")...)
	data := filepath.Join(r.dir, "data")
	key, err := rig.CLI{Binary: b.s.gateway, Data: data, Env: env, Dir: r.dir}.CreateKey(1e15, "--daily", "1000000000000000", "--monthly", "1000000000000000")
	if err != nil {
		return err
	}
	r.secret = key.Key
	p, err := rig.Start(rig.Spec{
		Name: "gateway", Path: b.s.gateway, Logs: r.dir, Dir: r.dir, Env: env,
		Args: []string{"serve", "--grpc", "unix://" + r.envoySocket, "--http", "unix://" + r.apiSocket, "--data", data},
	})
	if err != nil {
		return err
	}
	r.processes = append(r.processes, p)
	return nil
}

// startEnvoy runs the product's own Envoy configuration; bare Envoy is without
// ext_proc and lock, the no-op without the lock (it admits nobody).
func (b *bench) startEnvoy(ctx context.Context, r *running, name string) error {
	addr, err := b.ports.Next()
	if err != nil {
		return err
	}
	r.addr = addr
	gate, err := envoy.ParseEndpoints("unix://" + r.envoySocket)
	if err != nil {
		return err
	}
	info, err := envoy.ParseEndpoints("unix://" + r.apiSocket)
	if err != nil {
		return err
	}
	upstream, err := envoy.ParseUpstream("http://" + b.at)
	if err != nil {
		return err
	}
	bootstrap, err := envoy.Bootstrap(envoy.Options{
		Listen: addr, ExtProc: gate, API: info, Upstream: upstream, AdminSocket: filepath.Join(r.dir, "admin.sock"),
	})
	if err != nil {
		return err
	}
	yaml, err := envoy.RenderYAML(bootstrap)
	if err != nil {
		return err
	}
	path := filepath.Join(r.dir, "product.yaml")
	if err := os.WriteFile(path, yaml, 0o600); err != nil {
		return err
	}
	config, err := rig.LoadEnvoyConfig(path)
	if err != nil {
		return err
	}
	if name == "bare" || name == "noop" {
		config.RemoveHTTPFilter("envoy.extensions.filters.http.rbac.v3.RBAC")
	}
	if name == "bare" {
		config.RemoveHTTPFilter("envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor")
	}
	p, err := rig.StartEnvoy(b.envoy, r.dir, "envoy", config, 1)
	if err != nil {
		return err
	}
	r.processes = append(r.processes, p)
	return waitListening(ctx, addr, 20*time.Second)
}
