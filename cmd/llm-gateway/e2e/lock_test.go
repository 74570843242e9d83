//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const rbac = "envoy.extensions.filters.http.rbac.v3.RBAC"

// knock sends one request of each kind that could reach the upstream.
func knock(g *gateway, url, key string) map[string]rig.Received {
	out := map[string]rig.Received{}
	for _, h2c := range []bool{false, true} {
		client := rig.NewClient(url, h2c)
		body := rig.Chat{Model: "knock", MaxTokens: 10}.Body()
		do := func(name string, in rig.Request) {
			in.Key = key
			in.Header = http.Header{"X-Llmgw-Admit": {"1"}}
			out[fmt.Sprintf("%s h2c=%v", name, h2c)] = client.Do(g.context(), in)
		}
		do("post", rig.Request{Body: body})
		do("chunked", rig.Request{Body: body, Chunked: true})
		do("get", rig.Request{Method: "GET", Path: "/v1/models"})
		client.Close()
	}
	return out
}

// wantClosed checks that every knock was answered by our own 503.
func wantClosed(t *testing.T, name string, got map[string]rig.Received) {
	t.Helper()
	for kind, r := range got {
		wantProblem(t, name+" "+kind, r, http.StatusServiceUnavailable, "gateway_unavailable")
	}
}

// TestClosedWithoutASidecar takes the sidecar away in every way while Envoy
// stays.
func TestClosedWithoutASidecar(t *testing.T) {
	t.Parallel() // Envoy waits 10 s for a sidecar that hangs
	g := startApart(t, setup{})
	key := g.key().Key
	for kind, r := range knock(g, g.url, key) {
		if !r.SawEnd() {
			t.Fatalf("with a sidecar: %s %d %q", kind, r.Status, r.Body)
		}
	}
	open := g.up.Hits()
	none := func(name string) {
		t.Helper()
		if n := g.up.Hits(); n != open {
			t.Errorf("%s: %d requests reached the upstream", name, n-open)
			open = n
		}
	}
	g.proc.Pause()
	wantClosed(t, "hung", knockAtOnce(g, g.url, key))
	none("hung")
	g.proc.Resume()
	g.proc.Kill()
	wantClosed(t, "killed", knock(g, g.url, key))
	none("killed")
	if err := os.Remove(g.socket("extproc.sock")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	wantClosed(t, "socket gone", knock(g, g.url, key))
	none("socket gone")

	g.runServe()
	g.ready()
	g.eventually("the sidecar to be used again", func() bool {
		r := g.client(false).Do(g.context(), rig.Request{Key: key, Body: rig.Chat{Model: "back", MaxTokens: 10}.Body()})
		return r.SawEnd()
	})
	g.balanced()
}

// knockAtOnce is knock for a sidecar that answers late or never: all requests
// wait at the same time.
func knockAtOnce(g *gateway, url, key string) map[string]rig.Received {
	type named struct {
		name string
		r    rig.Received
	}
	body := rig.Chat{Model: "knock", MaxTokens: 10}.Body()
	requests := map[string]rig.Request{
		"post":    {Key: key, Body: body},
		"chunked": {Key: key, Body: body, Chunked: true},
		"get":     {Key: key, Method: "GET", Path: "/v1/models"},
	}
	got := make(chan named)
	for name, in := range requests {
		go func() {
			client := rig.NewClient(url, false)
			defer client.Close()
			got <- named{name, client.Do(g.context(), in)}
		}()
	}
	out := map[string]rig.Received{}
	for range requests {
		n := <-got
		out[n.name] = n.r
	}
	return out
}

// TestDrainingFinishesWhatRuns stops the sidecar while an answer streams: that
// answer is finished and paid, nothing new gets in afterwards.
func TestDrainingFinishesWhatRuns(t *testing.T) {
	t.Parallel() // a slow answer
	g := startApart(t, setup{})
	key := g.key().Key
	chat := rig.Chat{Model: "draining", Stream: true, MaxTokens: 100, Script: rig.Script{ID: "draining", Prompt: 5, Completion: 40, Chunks: 40, ChunkDelayMS: 150}}
	got := make(chan rig.Received, 1)
	go func() { got <- g.client(false).Do(g.context(), rig.Request{Key: key, Body: chat.Body()}) }()
	<-whenHit(g, "draining")
	probe := func(path string) int {
		return g.client(false).Do(g.context(), rig.Request{Method: "GET", Path: path}).Status
	}
	if code := probe("/healthz/ready"); code != 200 {
		t.Errorf("ready before the stop: %d", code)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if code, err := g.proc.Stop(30 * time.Second); err != nil || code != 0 {
			t.Errorf("serve after SIGTERM: exit %d, %v", code, err)
		}
	}()
	// Load balancers hear of it while the answer runs.
	g.eventually("not ready, and alive", func() bool { return probe("/healthz/ready") == 503 && probe("/healthz/live") == 200 })
	<-stopped
	if r := <-got; !r.Done || !r.Complete {
		t.Errorf("the running answer was cut: %v after %d events", r.Err, len(r.Events))
	}
	open := g.up.Hits()
	wantClosed(t, "stopped", knock(g, g.url, key))
	if n := g.up.Hits(); n != open {
		t.Errorf("%d requests reached the upstream after the drain", n-open)
	}
	if row := g.books()["draining"]; row.Total != 45 || !row.Is("reported") {
		t.Errorf("the drained answer: %d tokens, %s", row.Total, row.Words())
	}
}

// TestBadSidecarsAdmitNobody puts sidecars that fail in every way behind the
// product's own Envoy config.
func TestBadSidecarsAdmitNobody(t *testing.T) {
	t.Parallel() // Envoy waits 10 s for a sidecar that hangs
	g := prepare(t, setup{})
	config := g.renderedConfig()
	cases := []rig.BadSidecar{
		{At: rig.RequestHeaders, Do: rig.CloseCleanly},
		{At: rig.RequestHeaders, Do: rig.Fail},
		{At: rig.RequestHeaders, Do: rig.Panic},
		{At: rig.RequestHeaders, Do: rig.Hang},
		{At: rig.RequestHeaders, Do: rig.NeverAdmit},
		{At: rig.RequestBody, Do: rig.CloseCleanly},
		{At: rig.RequestBody, Do: rig.Fail},
		{At: rig.RequestBody, Do: rig.Panic},
		{At: rig.RequestBody, Do: rig.Hang},
		{At: rig.RequestBody, Do: rig.NeverAdmit},
	}
	for i := range cases {
		side := &cases[i]
		t.Run(fmt.Sprintf("%s at %s", side.Do, side.At), func(t *testing.T) {
			t.Parallel()
			url := g.behind(t, config.Clone(), fmt.Sprintf("bad%d", i), side)
			before := len(g.up.ByID(t.Name()))
			// A sidecar that fails at the body only does so for requests with one.
			body := rig.Chat{Model: "knock", Script: rig.Script{ID: t.Name()}}.Body()
			parallel(4, 4, func(i int) {
				h2c, chunked := i&1 == 1, i&2 == 2
				client := rig.NewClient(url, h2c)
				defer client.Close()
				r := client.Do(g.context(), rig.Request{Body: body, Chunked: chunked, Header: http.Header{"X-Llmgw-Admit": {"1"}}})
				wantProblem(t, fmt.Sprintf("h2c=%v chunked=%v", h2c, chunked), r, http.StatusServiceUnavailable, "gateway_unavailable")
			})
			if n := len(g.up.ByID(t.Name())) - before; n != 0 {
				t.Errorf("%d requests reached the upstream", n)
			}
			if side.Seen(side.At) == 0 {
				t.Error("the sidecar was never asked: nothing is proved")
			}
		})
	}
}

// behind runs an Envoy with the config in front of a bad sidecar and returns
// its URL once Envoy talks to the sidecar.
func (g *gateway) behind(t *testing.T, config rig.EnvoyConfig, name string, side *rig.BadSidecar) string {
	t.Helper()
	h := *g // the process belongs to this subtest
	h.t = t
	socket := filepath.Join(g.dir, name+".sock")
	if err := side.Listen(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(side.Close)
	if n := config.MovePipe("extproc.sock", socket); n == 0 {
		t.Fatal("the config has no extproc.sock")
	}
	config.MovePipe("admin.sock", filepath.Join(g.dir, name+"-admin.sock"))
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	h.runEnvoy(name, config, addr)
	client := rig.NewClient("http://"+addr, false)
	defer client.Close()
	h.eventually("Envoy to listen and to ask the sidecar", func() bool {
		client.Do(h.context(), rig.Request{Body: rig.Chat{Model: "warm"}.Body()})
		return side.Seen(rig.RequestHeaders) > 0
	})
	return "http://" + addr
}

// TestTheLockIsWhatCloses shows that the tests above can fail: without the locks
// behind ext_proc a clean close lets requests through. Either of them alone, the
// listener's and the cluster's, lets nobody through.
func TestTheLockIsWhatCloses(t *testing.T) {
	g := prepare(t, setup{})
	config := g.renderedConfig()
	for n, lock := range []string{"envoy.filters.http.rbac", "llmgw.lock"} {
		one := config.Clone()
		if n := one.RemoveHTTPFilter(rbac, lock); n != 1 {
			t.Fatalf("the config has %d filters %s, want 1", n, lock)
		}
		side := &rig.BadSidecar{At: rig.RequestHeaders, Do: rig.CloseCleanly}
		wantClosed(t, "without "+lock, knock(g, g.behind(t, one, fmt.Sprintf("one%d", n), side), ""))
		if hits := g.up.Hits(); hits > 0 {
			t.Errorf("without %s %d requests reached the upstream", lock, hits)
		}
	}
	if n := config.RemoveHTTPFilter(rbac); n != 2 {
		t.Fatalf("the config has %d RBAC filters, want the listener's and the cluster's", n)
	}
	side := &rig.BadSidecar{At: rig.RequestHeaders, Do: rig.CloseCleanly}
	url := g.behind(t, config, "open", side)
	knock(g, url, "")
	if g.up.Hits() == 0 {
		t.Error("no request reached the upstream without the lock: the lock tests prove nothing")
	}
}

// TestFailuresMidAnswerNeverLookWhole lets the sidecar fail while the answer
// passes: the client must not take the rest for a complete answer.
func TestFailuresMidAnswerNeverLookWhole(t *testing.T) {
	t.Parallel() // Envoy waits 10 s for a sidecar that hangs
	g := prepare(t, setup{})
	config := g.renderedConfig()
	for i, side := range []*rig.BadSidecar{
		{At: rig.ResponseHeaders, Do: rig.Fail},
		{At: rig.ResponseBody, Count: 3, Do: rig.Fail},
		{At: rig.ResponseBody, Count: 3, Do: rig.Panic},
		{At: rig.ResponseBody, Count: 3, Do: rig.AnswerTwice},
		{At: rig.ResponseBody, Count: 3, Do: rig.Hang},
	} {
		t.Run(fmt.Sprintf("%s at %s", side.Do, side.At), func(t *testing.T) {
			t.Parallel()
			url := g.behind(t, config.Clone(), fmt.Sprintf("mid%d", i), side)
			for _, h2c := range []bool{false, true} {
				client := rig.NewClient(url, h2c)
				body := rig.Chat{Model: "mid", Stream: true, Script: rig.Script{Chunks: 6, ChunkDelayMS: 30}}.Body()
				r := client.Do(g.context(), rig.Request{Body: body})
				if r.SawEnd() {
					t.Errorf("h2c=%v: status %d, %d events, done=%v, complete=%v", h2c, r.Status, len(r.Events), r.Done, r.Complete)
				}
				client.Close()
			}
			if side.Seen(side.At) == 0 {
				t.Error("the sidecar was never asked: nothing is proved")
			}
		})
	}
}
