//go:build e2e

package envoy_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// replaceable prepares an Envoy that can be replaced.
func replaceable(t *testing.T, drain time.Duration) (*gateway, chan<- envoy.Revision, envoy.Revision) {
	t.Helper()
	g := prepare(t, nil)
	revisions := make(chan envoy.Revision)
	g.run.Revisions, g.run.DrainTime = revisions, drain
	g.upstream.set(echo)
	config, err := os.ReadFile(g.run.ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	return g, revisions, envoy.Revision{Binary: g.run.Binary, Config: config, DrainTime: drain}
}

// pids are the Envoys that run, the current one first.
func (g *gateway) pids() (list []int) {
	text, _ := os.ReadFile(filepath.Join(g.dir, "envoy.pid"))
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// replaced waits for another current Envoy, and for n to run.
func (g *gateway) replaced(former, n int) int {
	g.t.Helper()
	eventually(g.t, "another Envoy", func() bool {
		p := g.pids()
		return len(p) == n && p[0] != former
	})
	return g.pids()[0]
}

func (g *gateway) works() {
	g.t.Helper()
	for _, h2c := range []bool{false, true} {
		client := httpClient(h2c)
		a := g.do(client, "/v1/x", nil)
		client.CloseIdleConnections()
		if a.status != 200 {
			g.t.Errorf("h2c %v: %d %s", h2c, a.status, a.body)
		}
	}
}

func TestE2EHotRestart(t *testing.T) {
	g, revisions, same := replaceable(t, 20*time.Second)
	g.startEnvoy()
	first := g.pid()
	next := make(chan struct{})
	g.upstream.set(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begin\n")
		w.(http.Flusher).Flush()
		<-next
		_, _ = io.WriteString(w, "end\n")
	})
	client := httpClient(false)
	response, err := client.Get(g.url + "/v1/x")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := bufio.NewReader(response.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "begin\n" {
		t.Fatalf("%q %v", line, err)
	}
	g.upstream.set(echo)
	changed := same
	changed.Config = []byte(strings.ReplaceAll(string(same.Config), "llm-gateway", "llm-changed"))
	revisions <- changed
	second := g.replaced(first, 2)
	g.works()
	if now, err := os.ReadFile(g.run.ConfigPath); err != nil || string(now) != string(changed.Config) {
		t.Errorf("the configuration that serves is not in its place: %v", err)
	}
	// Another one has to wait: Envoy would end the first for it.
	revisions <- same
	g.works()
	if p := g.pids(); len(p) != 2 || p[0] != second || p[1] != first {
		t.Errorf("while an answer runs: processes %v, want %d and %d", p, second, first)
	}
	close(next)
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "end\n" {
		t.Errorf("the rest of the answer: %q %v", rest, err)
	}
	client.CloseIdleConnections()
	third := g.replaced(second, 1)
	g.works()
	if alive(first) || alive(second) || !alive(third) {
		t.Errorf("alive: %v %v %v", alive(first), alive(second), alive(third))
	}
	if err := g.stop(); err != nil {
		t.Errorf("orderly stop: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(g.dir, "hot*"))
	if alive(third) || len(left) > 0 {
		t.Errorf("after the stop: alive %v, files %q", alive(third), left)
	}
}

// A successor that cannot start, and one that dies, leave everything as it was,
// a stop that waits for answers included.
func TestE2EHotRestartFails(t *testing.T) {
	g, revisions, same := replaceable(t, 20*time.Second)
	logged, seen := observer.New(zap.ErrorLevel)
	g.run.Log = zap.New(logged)
	g.startEnvoy()
	first := g.pid()
	broken := same
	broken.Config = []byte("static_resources: {listeners: [{name: x, nonsense: 1}]}")
	for i, bad := range []envoy.Revision{broken, {Binary: "/nowhere/envoy", Config: same.Config}, broken} {
		revisions <- bad
		eventually(t, "the failure", func() bool { return seen.FilterMessageSnippet("envoy not replaced").Len() == i+1 })
		if _, err := os.Stat(filepath.Join(g.dir, "envoy-next.yaml")); len(g.pids()) != 1 || g.pid() != first || !os.IsNotExist(err) {
			t.Errorf("round %d: processes %v, want %d; its configuration: %v", i, g.pids(), first, err)
		}
		g.works()
	}
	revisions <- same
	second := g.replaced(first, 1)
	g.works()
	if err := syscall.Kill(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	third := g.replaced(second, 1)
	eventually(t, "it to serve", func() bool { return g.admin.Ready(t.Context()) == nil })
	revisions <- same
	g.replaced(third, 1)
	g.works()
}

// The former Envoy may die before its time: its successor does not mind.
func TestE2EHotRestartFormerDies(t *testing.T) {
	g, revisions, same := replaceable(t, time.Second)
	g.startEnvoy()
	first := g.pid()
	client := httpClient(false)
	if a := g.do(client, "/v1/x", nil); a.status != 200 { // a connection that stays
		t.Fatal(a.status)
	}
	revisions <- same
	second := g.replaced(first, 2)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the first", func() bool { return len(g.pids()) == 1 })
	client.CloseIdleConnections()
	time.Sleep(8 * time.Second) // the successor tells the former to end after 1 + 5 s
	if p := g.pids(); len(p) != 1 || p[0] != second || g.admin.Ready(t.Context()) != nil {
		t.Errorf("processes %v, want %d: %v", p, second, g.admin.Ready(t.Context()))
	}
	g.works()
}
