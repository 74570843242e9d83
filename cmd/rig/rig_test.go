package rig

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

func upstream(t *testing.T) *Upstream {
	t.Helper()
	u, err := StartUpstream()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ended waits until every exchange has ended and returns the records.
func ended(t *testing.T, u *Upstream, n int) []Record {
	t.Helper()
	if err := u.Wait(soon(t), func(rs []Record) bool {
		for _, r := range rs {
			if r.Ended == Running {
				return false
			}
		}
		return len(rs) >= n
	}); err != nil {
		t.Fatal(err)
	}
	return u.Records()
}

func TestAnswersAreTheRenderedBytes(t *testing.T) {
	yes := true
	scripts := map[string]Script{
		"plain": {Prompt: 3, Completion: 4}, "none": {Usage: UsageNone}, "null": {Usage: UsageNull},
		"negative": {Usage: UsageNegative}, "string": {Usage: UsageString}, "float": {Usage: UsageFloat},
		"huge": {Usage: UsageHuge}, "zero": {Usage: UsageZero}, "no done": {End: EndNoDone},
		"crlf split": {CRLF: true, Split: 7, Chunks: 5, ChunkBytes: 40}, "gzip": {Gzip: true}, "error": {Status: 429},
	}
	for _, h2c := range []bool{false, true} {
		u := upstream(t)
		client := NewClient(u.URL, h2c)
		defer client.Close()
		n := 0
		for name, s := range scripts {
			for _, stream := range []bool{false, true} {
				chat := Chat{Model: "m", Stream: stream, Script: s}
				if stream {
					chat.IncludeUsage = &yes
				}
				got := client.Do(soon(t), Request{Body: chat.Body()})
				want := s.Answer(Ask{Path: "/v1/chat/completions", Model: "m", Stream: stream, IncludeUsage: stream})
				if !got.Complete || got.Status != want.Status || !bytes.Equal(got.Body, want.Body()) {
					t.Errorf("h2c=%v %s stream=%v: %d complete=%v %v\ngot  %q\nwant %q", h2c, name, stream, got.Status, got.Complete, got.Err, got.Body, want.Body())
				}
				plain := stream && s.Status == 0 && !s.Gzip
				if done := plain && s.End == EndNormal; got.Done != done {
					t.Errorf("%s: done = %v, want %v", name, got.Done, done)
				}
				n++
			}
		}
		for _, r := range ended(t, u, n) {
			if r.Ended != Finished || (r.Proto == "HTTP/2.0") != h2c {
				t.Errorf("record %d: %s over %s", r.Seq, r.Ended, r.Proto)
			}
		}
	}
}

func TestUsageChunkIsTheOnlyDifference(t *testing.T) {
	a := Script{Prompt: 7, Completion: 9}.Answer(Ask{Path: "/v1/chat/completions", Stream: true, IncludeUsage: true})
	with, without := string(a.Body()), string(a.BodyWithoutUsage())
	if strings.Count(with, `"total_tokens":16`) != 1 || strings.Contains(without, "total_tokens") || !strings.HasSuffix(without, "data: [DONE]\n\n") {
		t.Errorf("with:\n%s\nwithout:\n%s", with, without)
	}
	g := Script{Gzip: true}.Answer(Ask{Path: "/v1/chat/completions"})
	z, err := gzip.NewReader(bytes.NewReader(g.Body()))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(plain, Script{}.Answer(Ask{Path: "/v1/chat/completions"}).Body()) {
		t.Errorf("gzip body: %v %q", err, plain)
	}
}

func TestCutsAndAbortsAreSeenOnBothSides(t *testing.T) {
	for _, h2c := range []bool{false, true} {
		u := upstream(t)
		client := NewClient(u.URL, h2c)
		defer client.Close()
		ask := func(s Script, a Abort) Received {
			return client.Do(soon(t), Request{Body: Chat{Model: "m", Stream: true, Script: s}.Body(), Abort: a})
		}
		for _, end := range []EndKind{EndReset, EndClose} {
			if r := ask(Script{ID: "cut", End: end, EndAfter: 2, ChunkDelayMS: 20}, Abort{}); r.Complete || r.Done || r.Err == nil {
				t.Errorf("h2c=%v %s: complete=%v done=%v err=%v", h2c, end, r.Complete, r.Done, r.Err)
			}
			if r := ask(Script{ID: "cut", End: end}, Abort{}); r.Status != 0 || r.Err == nil {
				t.Errorf("h2c=%v %s before the headers: %d %v", h2c, end, r.Status, r.Err)
			}
		}
		if r := ask(Script{ID: "gone", Chunks: 1000, ChunkDelayMS: 10}, Abort{Events: 2}); !r.Aborted || r.Complete || len(r.Events) < 2 {
			t.Errorf("abort after events: %+v", r)
		}
		if r := ask(Script{ID: "gone", Chunks: 1000, ChunkDelayMS: 10}, Abort{Bytes: 300}); !r.Aborted || len(r.Body) < 300 {
			t.Errorf("abort after bytes: %+v", r)
		}
		signal := make(chan struct{})
		go func() {
			_ = u.Wait(context.Background(), func(rs []Record) bool { return rs[len(rs)-1].Script.FirstDelayMS > 0 })
			close(signal)
		}()
		if r := ask(Script{ID: "gone", FirstDelayMS: 60_000}, Abort{Signal: signal}); !r.Aborted || r.Status != 0 {
			t.Errorf("abort by signal: %+v", r)
		}
		want := map[string]Ending{"cut": Cut, "gone": Gone}
		for _, r := range ended(t, u, 7) {
			if r.Ended != want[r.Script.ID] {
				t.Errorf("h2c=%v: record %d (%s) ended %s", h2c, r.Seq, r.Script.ID, r.Ended)
			}
		}
	}
}

func TestRawRequestsGoOutAsWritten(t *testing.T) {
	u := upstream(t)
	w, err := SendH1(u.Addr(), []byte("GET /v1//models;x?q=%2f HTTP/1.1\r\nHost: h\r\nX-Rig: {\"status\":418}\r\n\r\n"), 5*time.Second)
	if err != nil || w.Status != 418 {
		t.Fatalf("h1: %d %v", w.Status, err)
	}
	w, err = SendH2(u.Addr(), []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "h"},
		{Name: ":path", Value: "/v1/../x"},
	}, Chat{Model: "m", Script: Script{Status: 500}}.Body(), 5*time.Second)
	if err != nil || w.Status != 500 || !bytes.Contains(w.Body, []byte("rig_500")) {
		t.Fatalf("h2: %d %q %v", w.Status, w.Body, err)
	}
	rs := ended(t, u, 2)
	if rs[0].Path != "/v1//models;x?q=%2f" || rs[1].Path != "/v1/../x" {
		t.Errorf("paths %q and %q", rs[0].Path, rs[1].Path)
	}
}

func TestProcessDiesWhenTold(t *testing.T) {
	dir := t.TempDir()
	p, err := Start(Spec{Name: "sleeper", Path: "/bin/sh", Args: []string{"-c", "echo hello; echo oops >&2; while :; do sleep 0.05; done"}, Logs: dir})
	if err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(p.Stdout(), "hello") || !strings.Contains(p.Stderr(), "oops") {
		time.Sleep(5 * time.Millisecond)
	}
	load, err := Tree(p.Pid)
	if err != nil || load.RSS == 0 || load.Processes == 0 || load.Threads == 0 {
		t.Errorf("load %+v %v", load, err)
	}
	if kids, err := Children(os.Getpid()); err != nil || !contains(kids, p.Pid) {
		t.Errorf("children %v %v", kids, err)
	}
	if c := Command(p.Pid); !strings.Contains(c, "echo hello") {
		t.Errorf("command %q", c)
	}
	p.Pause()
	p.Signal(syscall.SIGTERM)
	if _, err := p.Wait(100 * time.Millisecond); err == nil {
		t.Error("a paused process took a signal")
	}
	p.Resume()
	if code, err := p.Wait(10 * time.Second); err != nil || code != -1 {
		t.Errorf("exit %d %v", code, err)
	}
	if err := WaitHealthy(soon(t), "http://127.0.0.1:1/", p); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("ready of a dead process: %v", err)
	}
}

func contains(list []int, n int) bool {
	for _, m := range list {
		if m == n {
			return true
		}
	}
	return false
}

func TestParseStatTrustsNoName(t *testing.T) {
	p, ok := parseStat("7 (a ) b) S 3 7 7 0 -1 4194560 100 0 0 0 11 22 33 44 20 0 5 0 100 1000 66 18446744073709551615")
	if want := (procStat{parent: 3, threads: 5, ticks: 110, pages: 66}); !ok || p != want {
		t.Errorf("got %+v %v, want %+v", p, ok, want)
	}
}

func TestEnvoyConfigEdits(t *testing.T) {
	path := t.TempDir() + "/envoy.yaml"
	config := `
static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 12000}}
    http_filters:
    - {name: lock, typed_config: {"@type": type.googleapis.com/x.RBAC}}
    - {name: router, typed_config: {"@type": type.googleapis.com/x.Router}}
    routes:
    - typed_per_filter_config: {lock: {a: 1}, router: {b: 2}}
  clusters:
  - {address: {pipe: {path: /old/run/extproc.sock}}}
`
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadEnvoyConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := c.Clone()
	if err := edited.SetListen("127.0.0.1:99"); err != nil {
		t.Fatal(err)
	}
	if n := edited.MovePipe("extproc.sock", "/new/extproc.sock"); n != 1 {
		t.Errorf("moved %d pipes", n)
	}
	if n := edited.RemoveHTTPFilter("x.RBAC"); n != 1 {
		t.Errorf("removed %d filters", n)
	}
	if err := edited.Write(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"RBAC", "lock", "12000", "0.0.0.0", "/old"} {
		if bytes.Contains(b, []byte(gone)) {
			t.Errorf("%s is still there:\n%s", gone, b)
		}
	}
	for _, there := range []string{"Router", "b: 2", "99", "127.0.0.1", "/new/extproc.sock"} {
		if !bytes.Contains(b, []byte(there)) {
			t.Errorf("%s is missing:\n%s", there, b)
		}
	}
}

func TestClientSendsWhatItIsTold(t *testing.T) {
	u := upstream(t)
	client := NewClient(u.URL, false)
	defer client.Close()
	client.Do(soon(t), Request{Method: http.MethodPut, Path: "/v1/a%2fb?q=1", Key: "secret", Header: http.Header{"X-A": {"1", "2"}}, Body: []byte("{}"), Chunked: true})
	r := ended(t, u, 1)[0]
	if r.Method != "PUT" || r.Path != "/v1/a%2fb?q=1" || r.Header.Get("Authorization") != "Bearer secret" || len(r.Header["X-A"]) != 2 || r.Header.Get("Content-Length") != "" || r.BodyLen != 2 {
		t.Errorf("%+v", r)
	}
}
