//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestClusterLock_otherWays: the lock in the cluster that envoy-config prints
// closes what no filter of our listener sees: another listener, and an upgrade with
// filters of its own. (Copies of request_mirror_policies pass it: Envoy has no
// filters of a cluster for them.)
func TestClusterLock_otherWays(t *testing.T) {
	s := prepareExisting(t)
	s.runServe()
	config := s.merged("--upstream", s.up.URL)
	text, err := os.ReadFile("testdata/other-listener.yaml")
	if err != nil {
		t.Fatal(err)
	}
	other, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	var listener map[string]any
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(string(text), "PORT", portOf(t, other))), &listener); err != nil {
		t.Fatal(err)
	}
	if err := config.SetListen(s.addr); err != nil {
		t.Fatal(err)
	}
	static := config["static_resources"].(map[string]any)
	static["listeners"] = append(static["listeners"].([]any), listener)

	open := config.Clone()
	if n := open.RemoveHTTPFilter(rbac, "llmgw.lock"); n != 2 {
		t.Fatalf("the config has %d locks of ours, want the listener's and the cluster's", n)
	}
	for name, want := range map[string]int{"closed": 0, "open": 2} {
		c := config
		if name == "open" {
			c = open
		}
		if s.envoy, err = rig.StartEnvoy(s.envoyBinary, s.dir, name, c, 2); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.envoy.Kill)
		s.ready()
		hits := s.up.Hits()
		client := rig.NewClient("http://"+other, false)
		t.Cleanup(client.Close)
		upgrade := fmt.Sprintf("GET /v1/models HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", other)
		if w, err := rig.SendH1(other, []byte(upgrade), 3*time.Second); want == 0 && w.Status != 403 {
			t.Errorf("%s: a WebSocket: %d %v", name, w.Status, err)
		}
		r := client.Do(s.context(), rig.Request{Key: "sk-anybody", Body: rig.Chat{Model: "intruder"}.Body()})
		if want == 0 && r.Status != 403 {
			t.Errorf("%s: another listener: %d %q", name, r.Status, r.Body)
		}
		if want > 0 { // so that the ways are ways
			s.eventually("all of them to arrive", func() bool { return s.up.Hits() == hits+want })
		} else if s.up.Hits() != hits {
			t.Errorf("%s: %d requests reached the models, the last %+v", name, s.up.Hits()-hits, s.up.Records()[s.up.Hits()-1])
		}
		s.envoy.Kill()
	}
}
