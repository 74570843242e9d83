//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// nginx is one of a test's own, with deploy/nginx/llm-gateway.conf.
type nginx struct {
	t          *testing.T
	url, plain string
	client     *http.Client // trusts its certificate
}

// startNginx runs it in front of backend. Only addresses and certificate are
// other than in the file.
func startNginx(t *testing.T, backend string) nginx {
	t.Helper()
	binary := rig.Tool(t, "nginx")
	text, err := os.ReadFile(deployFolder + "nginx/llm-gateway.conf")
	if err != nil {
		t.Fatal(err)
	}
	// The certificate of net/http/httptest, with a client that trusts it.
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	key, err := x509.MarshalPKCS8PrivateKey(tls.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := string(text)
	for _, change := range [][2]string{
		{"server 127.0.0.1:12000;", "server " + backend + ";"},
		{"listen 443 ssl;", "listen " + secure + " ssl;"},
		{"listen 80;", "listen " + plain + ";"},
		{"/etc/nginx/llm-gateway/fullchain.pem", filepath.Join(dir, "fullchain.pem")},
		{"/etc/nginx/llm-gateway/privkey.pem", filepath.Join(dir, "privkey.pem")},
	} {
		if strings.Count(config, change[0]) != 1 {
			t.Fatalf("%q is not in the file once", change[0])
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}
	// One process: it dies with the test.
	around := fmt.Sprintf("daemon off;\nmaster_process off;\npid %s/pid;\nevents {}\nhttp {\n  access_log off;\n", dir)
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		around += fmt.Sprintf("  %s_temp_path %s/%s;\n", kind, dir, kind)
	}
	for name, text := range map[string][]byte{
		"nginx.conf":       []byte(around + "  include llm-gateway.conf;\n}\n"),
		"llm-gateway.conf": []byte(config),
		"fullchain.pem":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw}),
		"privkey.pem":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-p", dir, "-c", "nginx.conf", "-e", "stderr"}
	out, err := exec.CommandContext(t.Context(), binary, append(args, "-t")...).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("[warn]")) {
		t.Fatalf("nginx -t: %v\n%s", err, out)
	}
	proc, err := rig.Start(rig.Spec{Name: "nginx", Path: binary, Args: args, Dir: dir, Logs: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(proc.Tail(20))
		}
		proc.Kill()
	})
	n := nginx{t, "https://" + secure, "http://" + plain, tls.Client()}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := n.client.Get(n.url + "/")
		if err == nil {
			_ = res.Body.Close()
			return n
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// post sends a chat; the answer's body is open.
func (n nginx) post(ctx context.Context, key string, body []byte, header ...string) *http.Response {
	n.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := n.client.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// TestNginxHoldsNothingBack: behind nginx an event is with the client while the
// upstream is silent for a minute, a client that leaves is noticed, and streams
// and documents are the upstream's bytes.
func TestNginxHoldsNothingBack(t *testing.T) {
	g := start(t, setup{})
	n := startNginx(t, g.addr)
	key := g.key().Key

	slow := rig.Chat{Model: "slow", Stream: true, MaxTokens: 10, Script: rig.Script{ID: "slow", Prompt: 3, Completion: 7, ChunkDelayMS: 60_000}}
	ctx, leave := context.WithTimeout(t.Context(), 30*time.Second)
	defer leave()
	line, err := bufio.NewReader(n.post(ctx, key, slow.Body()).Body).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "data: ") {
		t.Fatalf("the first event did not come while the upstream was silent: %q, %v", line, err)
	}
	if r := g.up.ByID("slow"); len(r) != 1 || r[0].Ended != rig.Running {
		t.Errorf("the upstream was not silent any more: %+v", r)
	}
	leave()
	g.eventually("the upstream to see the client leave", func() bool { return g.up.ByID("slow")[0].Ended == rig.Gone })

	for _, stream := range []bool{true, false} {
		c := rig.Chat{Model: fmt.Sprint("whole-", stream), Stream: stream, MaxTokens: 10, Script: rig.Script{Prompt: 3, Completion: 7, ChunkDelayMS: 20, Chunks: 20}}
		got, err := io.ReadAll(n.post(t.Context(), key, c.Body()).Body)
		answer := c.Script.Answer(c.Ask("/v1/chat/completions"))
		want := answer.Body()
		if stream {
			want = answer.BodyWithoutUsage()
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("stream=%v: %v, got %q, want %q", stream, err, got, want)
		}
	}
	books := g.books()
	if !books["slow"].Is("aborted") || books["whole-true"].Total != 10 || books["whole-false"].Total != 10 {
		t.Errorf("%+v", books)
	}
}

// TestNginxTellsTheGateway who asks, and answers for it in its words when it is
// not there.
func TestNginxTellsTheGateway(t *testing.T) {
	seen := make(chan *http.Request, 10)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
	n := startNginx(t, strings.TrimPrefix(backend.URL, "http://"))
	<-seen // the question whether nginx is there
	n.post(t.Context(), "k", []byte("{}"), "X-Real-Ip", "203.0.113.9", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "http")
	r := <-seen
	if r.Proto != "HTTP/1.1" || r.Host != "127.0.0.1" || r.Header.Get("Authorization") != "Bearer k" ||
		r.Header.Get("X-Real-Ip") != "127.0.0.1" || r.Header.Get("X-Forwarded-For") != "127.0.0.1" || r.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("the gateway sees %s %s %v", r.Proto, r.Host, r.Header)
	}
	limit := int64(32 << 20)
	if res := n.post(t.Context(), "k", bytes.Repeat([]byte(" "), int(limit))); res.StatusCode != http.StatusOK {
		t.Errorf("a body of MAX_REQUEST_BYTES: %d", res.StatusCode)
	}
	wantNginxProblem(t, n.post(t.Context(), "k", bytes.Repeat([]byte(" "), int(limit)+1)), 413, "request_too_large")
	if res, err := n.client.Get(n.plain + "/v1/models"); err != nil || res.StatusCode != http.StatusNotFound || len(seen) != 1 {
		t.Errorf("without TLS: %v, %v; it must not reach the gateway", res, err)
	}
	backend.Close()
	wantNginxProblem(t, n.post(t.Context(), "k", []byte("{}")), 503, "gateway_unavailable")
}

func wantNginxProblem(t *testing.T, res *http.Response, status int, code string) {
	t.Helper()
	var p rig.Problem
	err := json.NewDecoder(res.Body).Decode(&p)
	if err != nil || res.StatusCode != status || p.Error.Code != code || p.Detail == "" || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %+v (%v), want %d %s", res.StatusCode, p, err, status, code)
	}
}
