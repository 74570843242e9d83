//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// The users that containers get: the images' own, one of OpenShift's, somebody.
var containerUsers = []struct{ uid, gid int }{{65532, 65532}, {1000720000, 0}, {1000, 1000}}

// TestContainerNeedsNoRights runs what the images run as the users that an
// orchestrator may choose, on a root that cannot be written and without any
// capability: first gateway and Envoy in one box, then each in its own, with one
// volume for both and between restarts. deploy/try-container.sh shows the same of
// the images themselves, on an engine.
func TestContainerNeedsNoRights(t *testing.T) {
	root := newRoot(t, prepare(t, setup{}))
	for _, user := range containerUsers {
		t.Run(fmt.Sprintf("%d:%d", user.uid, user.gid), func(t *testing.T) {
			t.Parallel()
			g := prepare(t, setup{env: []string{"ENVOY_PATH=" + envoyInBox}})
			b := newBox(t, root, user.uid, user.gid)
			g.data, g.cli.Data, g.cli.Binary = "/data", "/data", b.binary

			g.runUp()
			key := g.key().Key
			g.serves(key, "together")
			if n := b.confined(g.proc); n != 2 {
				t.Errorf("%d processes, want the gateway and Envoy", n)
			}
			g.writesNowhereElse()
			b.stop(g.proc)

			// Apart, over TCP, as docker-compose.yaml has them.
			grpc, info := port(t), port(t)
			g.proc = g.launch("serve", "--grpc", grpc, "--http", info)
			beside := newBoxWithoutData(t, root, user.uid, user.gid)
			envoy, err := rig.Start(rig.Spec{
				Name: "envoy", Path: beside.binary, Dir: g.dir, Logs: g.dir,
				Args: []string{"envoy", "--grpc", grpc, "--http", info, "--listen", g.addr, "--upstream", g.up.URL},
				Env:  rig.MinimalEnv("LLMGW_DATA=/tmp/llm-gateway", "ENVOY_PATH="+envoyInBox),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(envoy.Tail(20))
				}
				envoy.Kill()
			})
			g.envoy = envoy
			g.ready()
			g.serves(key, "apart")
			b.confined(g.proc)
			if n := beside.confined(envoy); n != 2 {
				t.Errorf("%d processes, want the program and Envoy", n)
			}
			beside.stop(envoy)
			b.stop(g.proc)
			if books := g.books(); books["together-json"].Total != 8 || books["together-sse"].Total != 8 ||
				books["apart-json"].Total != 8 || books["apart-sse"].Total != 8 {
				t.Errorf("the books after two gateways: %+v", books)
			}
		})
	}
}

// serves asks for a document and a stream, as somebody and as nobody.
func (g *gateway) serves(key, model string) {
	g.t.Helper()
	c := g.client(false)
	for kind, stream := range map[string]bool{"json": false, "sse": true} {
		chat := rig.Chat{Model: model + "-" + kind, Stream: stream, MaxTokens: 5, Script: rig.Script{Prompt: 3, Completion: 5}}
		if r := c.Do(g.context(), rig.Request{Key: key, Body: chat.Body()}); !r.SawEnd() {
			g.t.Errorf("%s: %d %q %v", chat.Model, r.Status, r.Body, r.Err)
		}
		wantProblem(g.t, "a wrong key", c.Do(g.context(), rig.Request{Key: "sk-lgw_wrong", Body: chat.Body()}), http.StatusForbidden, "invalid_api_key")
		wantProblem(g.t, "no key", c.Do(g.context(), rig.Request{Body: chat.Body()}), http.StatusUnauthorized, "missing_api_key")
	}
	books := g.books()
	for _, kind := range []string{"json", "sse"} {
		if row := books[model+"-"+kind]; row.Total != 8 || row.Requests != 1 {
			g.t.Errorf("the books say of %s-%s: %+v", model, kind, row)
		}
	}
}

// writesNowhereElse: a backup beside the program is refused with the reason, one
// into the volume is made.
func (g *gateway) writesNowhereElse() {
	g.t.Helper()
	r, err := g.cli.Run("backup", "--path", "/usr/local/bin/books.zip")
	if err != nil || r.Code != 1 || !strings.Contains(r.Stderr, "read-only file system") {
		g.t.Errorf("a backup into the root: exit %d, %v, %s", r.Code, err, r.Stderr)
	}
	if r, err = g.cli.Run("backup", "--path", "/data/books.zip"); err != nil || r.Code != 0 {
		g.t.Errorf("a backup into the volume: exit %d, %v, %s", r.Code, err, r.Stderr)
	}
}

// TestContainerSaysWhatItLacks: a volume of somebody else is refused in words,
// before anything is made in it.
func TestContainerSaysWhatItLacks(t *testing.T) {
	g := prepare(t, setup{})
	b := newBox(t, newRoot(t, g), 12345, 0)
	if err := os.Chown(b.data, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	cli := rig.CLI{Binary: b.binary, Data: "/data", Dir: g.dir}
	r, err := cli.Run("serve", "--grpc", "127.0.0.1:1", "--http", "127.0.0.1:2")
	if err != nil || r.Code != 1 || !strings.Contains(r.Stderr, "/data") || !strings.Contains(r.Stderr, "not writable") {
		t.Errorf("exit %d, %v, %s", r.Code, err, r.Stderr)
	}
	if left, err := os.ReadDir(b.data); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func port(t *testing.T) string {
	t.Helper()
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
