//go:build e2e

package envoy_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// replicaEnv makes this test binary a sidecar: its name, where its gRPC
// listens and where its HTTP does. A process of its own can be stopped and
// killed as a machine would.
const replicaEnv = "LLMGW_TEST_REPLICA"

// servedBy is the request header in which a replica says that it admitted.
const servedBy = "x-served-by"

func runReplica(name, grpcAt, httpAt string) error {
	gate, err := net.Listen("tcp", grpcAt)
	if err != nil {
		return err
	}
	info, err := net.Listen("tcp", httpAt)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(server, &sidecar{behave: func(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
		reply, err := admit(m)
		if h := reply.GetRequestHeaders(); h != nil {
			h.Response = &extprocv3.CommonResponse{HeaderMutation: &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{{
				Header: &corev3.HeaderValue{Key: servedBy, RawValue: []byte(name)},
			}}}}
		}
		return reply, err
	}})
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() {
		_ = http.Serve(info, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	}()
	return server.Serve(gate)
}

// replica is such a process.
type replica struct {
	t              *testing.T
	name           string
	grpcAt, httpAt string
	cmd            *exec.Cmd
}

func (r *replica) start() {
	r.t.Helper()
	r.cmd = exec.Command(os.Args[0])
	r.cmd.Env = append(os.Environ(), replicaEnv+"="+strings.Join([]string{r.name, r.grpcAt, r.httpAt}, " "))
	r.cmd.Stderr = os.Stderr
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	eventually(r.t, "replica "+r.name, func() bool {
		c, err := net.Dial("tcp", r.httpAt)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

func (r *replica) kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
}

func (r *replica) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// startReplicas starts three sidecars behind one Envoy, which finds them under
// a name or by their addresses.
func startReplicas(t *testing.T, host string) (*gateway, []*replica) {
	t.Helper()
	var list []*replica
	var grpcList, httpList []string
	for _, name := range []string{"a", "b", "c"} {
		r := &replica{t: t, name: name, grpcAt: freeAddress(t), httpAt: freeAddress(t)}
		r.start()
		t.Cleanup(r.kill)
		list = append(list, r)
		grpcList = append(grpcList, strings.Replace(r.grpcAt, "127.0.0.1", host, 1))
		httpList = append(httpList, strings.Replace(r.httpAt, "127.0.0.1", host, 1))
	}
	g := start(t, func(o *envoy.Options) {
		var err error
		if o.ExtProc, err = envoy.ParseEndpoints(strings.Join(grpcList, ",")); err != nil {
			t.Fatal(err)
		}
		if o.API, err = envoy.ParseEndpoints(strings.Join(httpList, ",")); err != nil {
			t.Fatal(err)
		}
	})
	return g, list
}

// ask sends n requests, some at a time, and returns how many got which status
// and which replica admitted how many.
func ask(g *gateway, client *http.Client, n int) (statuses map[int]int, by map[string]int) {
	g.t.Helper()
	g.upstream.set(echo)
	statuses, by = map[int]int{}, map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 10)
	for range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			slots <- struct{}{}
			defer func() { <-slots }()
			status := 0
			if response, err := client.Post(g.url+"/v1/chat/completions", "application/json", strings.NewReader(`{}`)); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
				status = response.StatusCode
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		}()
	}
	wg.Wait()
	for _, r := range g.upstream.requests() {
		by[r.header.Get(servedBy)]++
	}
	return statuses, by
}

func TestE2EReplicas(t *testing.T) {
	for _, host := range []string{"localhost", "127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			g, list := startReplicas(t, host)
			for protocol, client := range clients {
				statuses, by := ask(g, client, 120)
				if statuses[200] != 120 || by["a"] < 15 || by["b"] < 15 || by["c"] < 15 {
					t.Errorf("%s: statuses %v, admitted by %v; want all, by all", protocol, statuses, by)
				}
			}

			// Nothing is lost when one dies, from the first request on.
			list[0].kill()
			statuses, by := ask(g, clients["h2c"], 120)
			if statuses[200] != 120 || by["a"] != 0 || by["b"] < 15 || by["c"] < 15 {
				t.Errorf("one dead: statuses %v, admitted by %v", statuses, by)
			}
			if a := g.do(clients["h1"], "/health", nil); a.status != 200 {
				t.Errorf("/health with one dead: %d %s", a.status, a.body)
			}

			// One that hangs costs requests until the probes have found out.
			list[1].signal(syscall.SIGSTOP)
			out := since(t, 8*time.Second, "the hung replica to be taken out", func() bool {
				statuses, by := ask(g, clients["h2c"], 10)
				return statuses[200] == 10 && by["c"] == 10
			})
			statuses, by = ask(g, clients["h2c"], 60)
			if statuses[200] != 60 || by["c"] != 60 {
				t.Errorf("one dead, one hung: statuses %v, admitted by %v", statuses, by)
			}

			// Both come back without a hand.
			list[1].signal(syscall.SIGCONT)
			list[0].start()
			back := since(t, 8*time.Second, "both to be used again", func() bool {
				_, by := ask(g, clients["h2c"], 30)
				return by["a"] > 0 && by["b"] > 0 && by["c"] > 0
			})
			t.Logf("taken out after %v, back after %v", out, back)

			// Nobody admits: nobody gets in.
			for _, r := range list {
				r.kill()
			}
			statuses, by = ask(g, clients["h1"], 20)
			if statuses[503] != 20 || len(by) != 0 {
				t.Errorf("all dead: statuses %v, admitted by %v", statuses, by)
			}
			wantError(t, g.do(clients["h1"], "/v1/chat/completions", strings.NewReader(`{}`)), 503, "gateway_unavailable", "api_error")
			list[2].start()
			since(t, 8*time.Second, "one that is back", func() bool {
				statuses, by := ask(g, clients["h1"], 10)
				return statuses[200] == 10 && by["c"] == 10
			})
		})
	}
}

// since waits until done says so, for at most the given time, and says how
// long it took.
func since(t *testing.T, most time.Duration, what string, done func() bool) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if done() {
			return time.Since(begin)
		}
		if ctx.Err() != nil {
			t.Fatalf("waited %v for %s", most, what)
		}
	}
}
