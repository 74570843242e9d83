//go:build e2e

package rig

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// behindEnvoy runs a real Envoy between a bad sidecar and a mock upstream.
func behindEnvoy(t *testing.T, side *BadSidecar, locked bool) (*Upstream, string) {
	t.Helper()
	binary, err := FindEnvoy()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	u := upstream(t)
	socket := filepath.Join(dir, "side.sock")
	if err := side.Listen(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(side.Close)
	c, err := LoadEnvoyConfig(filepath.Join("testdata", "envoy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.MovePipe("extproc.sock", socket)
	c.MovePipe("envoy-admin.sock", filepath.Join(dir, "admin.sock"))
	if !locked {
		c.RemoveHTTPFilter("envoy.extensions.filters.http.rbac.v3.RBAC")
	}
	_, port, _ := net.SplitHostPort(u.Addr())
	walk(map[string]any(c), func(m map[string]any) {
		if _, ok := m["port_value"]; ok {
			m["port_value"], _ = strconv.Atoi(port)
		}
	})
	var ports Ports
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetListen(addr); err != nil {
		t.Fatal(err)
	}
	p, err := StartEnvoy(binary, dir, "envoy", c, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	for {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
			return u, "http://" + addr
		}
		select {
		case <-p.Done():
			t.Fatal(p.Tail(20))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestBadSidecarsBehindEnvoy shows what each misdeed does to Envoy, so that a
// test that uses one knows that it bites.
func TestBadSidecarsBehindEnvoy(t *testing.T) {
	for _, c := range []struct {
		side   *BadSidecar
		locked bool
		hits   bool // the upstream is reached
		end    bool // the client sees a whole answer
	}{
		{&BadSidecar{}, true, true, true},
		{&BadSidecar{At: RequestHeaders, Do: CloseCleanly}, true, false, false},
		{&BadSidecar{At: RequestHeaders, Do: CloseCleanly}, false, true, true},
		{&BadSidecar{At: RequestBody, Do: CloseCleanly}, true, false, false},
		{&BadSidecar{At: RequestBody, Do: CloseCleanly}, false, true, true},
		{&BadSidecar{At: RequestBody, Do: Fail}, false, false, false},
		{&BadSidecar{At: RequestHeaders, Do: Hang}, false, false, false},
		{&BadSidecar{Do: NeverAdmit}, true, false, false},
		{&BadSidecar{Do: NeverAdmit}, false, true, true},
		{&BadSidecar{At: ResponseHeaders, Do: Panic}, true, true, false},
		{&BadSidecar{At: ResponseBody, Count: 2, Do: Fail}, true, true, false},
		{&BadSidecar{At: ResponseBody, Count: 2, Do: CloseCleanly}, true, true, true},
		{&BadSidecar{At: ResponseBody, Count: 2, Do: AnswerTwice}, true, true, false},
	} {
		t.Run(string(c.side.Do)+" at "+string(c.side.At)+" locked="+strconv.FormatBool(c.locked), func(t *testing.T) {
			side := c.side
			u, url := behindEnvoy(t, side, c.locked)
			client := NewClient(url, false)
			defer client.Close()
			s := Script{Prompt: 1, Completion: 2, ChunkDelayMS: 20}
			r := client.Do(soon(t), Request{Body: Chat{Model: "m", Stream: true, Script: s}.Body()})
			if hits := u.Hits() > 0; hits != c.hits || r.SawEnd() != c.end {
				t.Errorf("hits=%v, want %v; end=%v, want %v; status %d %v", hits, c.hits, r.SawEnd(), c.end, r.Status, r.Err)
			}
			if c.end && !bytes.Equal(r.Body, s.Answer(Ask{Path: "/v1/chat/completions", Model: "m", Stream: true}).Body()) {
				t.Errorf("body %q", r.Body)
			}
			if c.side.At != "" && side.Seen(c.side.At) == 0 {
				t.Error("the sidecar was never asked")
			}
		})
	}
}
