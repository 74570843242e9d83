//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// fleet is several gateways behind one Envoy, with their books in one
// PostgreSQL and their rate limits in one Redis.
type fleet struct {
	*gateway // its url is Envoy's, its cli works on the shared books
	nodes    []*node
	redis    *rig.Redis
	postgres *rig.Postgres
}

// node is one gateway of a fleet, with a data directory of its own.
type node struct {
	proc       *rig.Process
	name, data string
	grpc, http string
}

// lease is how long a dead node's requests stay open in these tests.
const lease = 3 * time.Second

// startFleet runs n gateways. More environment beats the defaults.
func startFleet(t *testing.T, n int, env ...string) *fleet {
	t.Helper()
	redis, postgres := rig.StartRedis(t), rig.StartPostgres(t)
	f := &fleet{redis: redis, postgres: postgres}
	f.gateway = prepare(t, setup{env: append([]string{
		"DATABASE_URL=" + postgres.NewDatabase(), "REDIS_URL=redis://" + redis.Addr,
		fmt.Sprintf("LLMGW_RATELIMIT__REPLICAS=%d", n), "LLMGW_DATABASE__LEASE=" + lease.String(),
	}, env...)})
	var gates, infos []string
	for i := range n {
		name := fmt.Sprintf("node%d", i)
		nd := &node{name: name, data: filepath.Join(f.dir, name), grpc: f.port(), http: f.port()}
		f.nodes = append(f.nodes, nd)
		gates, infos = append(gates, nd.grpc), append(infos, nd.http)
		f.run(nd)
	}
	config := filepath.Join(f.dir, "fleet.yaml")
	r, err := f.cli.Run("envoy-config", "--for", "bootstrap", "--grpc", strings.Join(gates, ","), "--http", strings.Join(infos, ","),
		"--listen", f.addr, "--upstream", f.up.URL, "--admin", "unix://"+filepath.Join(f.dir, "admin.sock"), "--output", config)
	if err != nil || r.Code != 0 {
		t.Fatalf("envoy-config: exit %d, %v\n%s", r.Code, err, r.Stderr)
	}
	loaded, err := rig.LoadEnvoyConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, nd := range f.nodes {
		f.nodeReady(nd)
	}
	f.envoy = f.runEnvoy("envoy", loaded, f.addr)
	f.eventually("Envoy to listen", func() bool {
		return f.client(false).Do(f.context(), rig.Request{Method: http.MethodGet, Path: "/health"}).Status == 200
	})
	return f
}

func (f *fleet) port() string {
	f.t.Helper()
	addr, err := ports.Next()
	if err != nil {
		f.t.Fatal(err)
	}
	return addr
}

// run starts a node, for the first time or again on the same data.
func (f *fleet) run(n *node) {
	f.t.Helper()
	p, err := rig.Start(rig.Spec{
		Name: n.name, Path: f.cli.Binary, Env: f.environment(), Dir: f.dir, Logs: f.dir,
		Args: []string{"serve", "--replica", "--grpc", n.grpc, "--http", n.http, "--data", n.data, "--upstream", f.up.URL},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	n.proc = p
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Log(p.Tail(40))
		}
		p.Resume()
		p.Kill()
	})
}

func (f *fleet) nodeReady(n *node) {
	f.t.Helper()
	if err := rig.WaitHealthy(f.context(), "http://"+n.http+"/health", n.proc); err != nil {
		f.t.Fatalf("%s: %v", n.name, err)
	}
}

// key makes a key that every node knows.
func (f *fleet) key(limit int64, flags ...string) rig.NewKey {
	f.t.Helper()
	k, err := f.cli.CreateKey(limit, flags...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.known(k)
	return k
}

func (f *fleet) known(k rig.NewKey) {
	f.t.Helper()
	for _, n := range f.nodes {
		f.eventually(n.name+" to know the new key", func() bool { return f.standing(n, k).Status == 200 })
	}
}

// standing asks one node for a key's GET /rate-limit.
func (f *fleet) standing(n *node, k rig.NewKey) rig.Received {
	c := rig.NewClient("http://"+n.http, false)
	defer c.Close()
	return c.Do(f.context(), rig.Request{Method: http.MethodGet, Path: "/rate-limit", Key: k.Key})
}
