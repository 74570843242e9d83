//go:build e2e

package envoy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// binary is the Envoy under test; without one the test fails.
func binary(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		cache = filepath.Join(os.Getenv("HOME"), ".cache")
	}
	b, err := envoy.Find(os.Getenv("ENVOY_PATH"), os.Getenv("PATH"), cache)
	if err != nil {
		t.Fatal(err)
	}
	return b.Path
}

// gateway is a real Envoy with the product's configuration between a fake
// sidecar and a fake model server.
type gateway struct {
	t        *testing.T
	dir      string
	addr     string
	url      string
	sidecar  *sidecar
	upstream *upstream
	api      *http.Server
	apiHangs atomic.Bool
	admin    envoy.Admin
	run      envoy.RunOptions
	log      *lockedBuffer // Envoy's stderr
	cancel   context.CancelFunc
	stopped  chan error // what Supervise returned
}

// start runs a gateway until the test ends.
func start(t *testing.T, change func(*envoy.Options)) *gateway {
	t.Helper()
	g := prepare(t, change)
	g.startEnvoy()
	return g
}

// prepare does everything but running Envoy.
func prepare(t *testing.T, change func(*envoy.Options)) *gateway {
	t.Helper()
	dir, err := os.MkdirTemp("", "llmgw-envoy-") // short enough for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &gateway{t: t, dir: dir, addr: freeAddress(t), log: &lockedBuffer{}}
	g.url = "http://" + g.addr
	g.sidecar = startSidecar(t, g.socket("extproc.sock"))
	g.upstream = startUpstream(t)
	g.startAPI()

	o := envoy.Options{Listen: g.addr, AdminSocket: g.socket("envoy-admin.sock"), MessageTimeout: 500 * time.Millisecond}
	o.ExtProc = []envoy.Endpoint{endpoint(t, g.socket("extproc.sock"))}
	o.API = []envoy.Endpoint{endpoint(t, g.socket("api.sock"))}
	if o.Upstream, err = envoy.ParseUpstream(g.upstream.URL); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	b, err := envoy.Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := envoy.RenderYAML(b)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(config, yaml, 0o600); err != nil {
		t.Fatal(err)
	}
	g.admin = envoy.Admin{Socket: o.AdminSocket}
	g.run = envoy.RunOptions{
		Binary: binary(t), ConfigPath: config, RunDir: dir, Stdout: g.log, Stderr: g.log,
		AdminSocket: o.AdminSocket, Concurrency: 2, DrainTime: 20 * time.Second, LogLevel: "info", Log: zap.NewNop(),
	}
	return g
}

func (g *gateway) startEnvoy() {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel, g.stopped = cancel, make(chan error, 1)
	go func() { g.stopped <- envoy.Supervise(ctx, g.run) }()
	g.t.Cleanup(func() {
		g.sidecar.release()
		g.upstream.release()
		cancel()
		err := <-g.stopped
		if g.t.Failed() {
			g.t.Logf("The supervisor ended with %v, Envoy said:\n%s", err, interesting(g.log.String()))
		}
	})
	g.waitReady()
}

// interesting leaves out the list of extensions that Envoy begins with.
func interesting(log string) string {
	var out strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "source/server/server.cc:467") {
			out.WriteString(line)
		}
	}
	return out.String()
}

func (g *gateway) waitReady() {
	g.t.Helper()
	eventually(g.t, "a ready Envoy", func() bool {
		select {
		case err := <-g.stopped:
			g.stopped <- err
			g.t.Fatalf("Envoy did not start: %v", err)
		default:
		}
		return g.admin.Ready(context.Background()) == nil
	})
}

// stop ends Envoy in order.
func (g *gateway) stop() error {
	g.cancel()
	err := <-g.stopped
	g.stopped <- err
	return err
}

func (g *gateway) socket(name string) string { return filepath.Join(g.dir, name) }

func (g *gateway) pid() int {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "envoy.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func (g *gateway) startAPI() {
	g.t.Helper()
	l, err := net.Listen("unix", g.socket("api.sock"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.api = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.apiHangs.Load() {
			g.upstream.silent(w, r)
			return
		}
		_, _ = io.WriteString(w, "healthy "+r.Method+" "+r.URL.Path)
	})}
	go func() { _ = g.api.Serve(l) }()
	g.t.Cleanup(func() { g.api.Close() })
}

func endpoint(t *testing.T, socket string) envoy.Endpoint {
	t.Helper()
	e, err := envoy.ParseEndpoint("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// eventually polls until done says so, and fails the test when it never does.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// clients are the two protocols that the listener speaks.
var clients = map[string]*http.Client{"h1": httpClient(false), "h2c": httpClient(true)}

func httpClient(h2 bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!h2)
	p.SetUnencryptedHTTP2(h2)
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{Protocols: p, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type answer struct {
	status int
	header http.Header
	body   string
	err    error // of the body
}

// do sends a request; a nil body makes it a GET.
func (g *gateway) do(client *http.Client, path string, body io.Reader, headers ...string) answer {
	g.t.Helper()
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	request, err := http.NewRequest(method, g.url+path, body)
	if err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text), err}
}

// wantError checks one of Envoy's own replies in our shape.
func wantError(t *testing.T, a answer, status int, code, kind string) {
	t.Helper()
	var body struct {
		Error struct {
			Message, Type, Code string
			Param               *string
		}
		Detail string
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Errorf("status %d, body %q: %v", a.status, a.body, err)
		return
	}
	if a.status != status || body.Error.Code != code || body.Error.Type != kind || body.Error.Message == "" ||
		body.Detail != body.Error.Message || !strings.Contains(a.body, `"param":null`) {
		t.Errorf("status %d, body %s; want %d %s %s", a.status, a.body, status, code, kind)
	}
	if got := a.header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	wait := ""
	if code == "gateway_unavailable" {
		wait = "1"
	}
	if got := a.header.Get("Retry-After"); got != wait {
		t.Errorf("%s: retry-after %q, want %q", code, got, wait)
	}
	if a.header.Get("X-Request-Id") == "" || a.header.Get("X-Should-Retry") != "" || a.header.Get("Server") != "llm-gateway" {
		t.Errorf("%s: headers %v", code, a.header)
	}
}

// lockedBuffer collects what another goroutine writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
