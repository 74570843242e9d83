//go:build e2e

package envoy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/envoy"
)

func TestE2EEnvoyIsStartedAgain(t *testing.T) {
	g := start(t, nil)
	g.upstream.set(echo)
	first := g.pid()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new Envoy", func() bool {
		return g.pid() != first && g.pid() != 0 && g.admin.Ready(t.Context()) == nil
	})
	clients["h1"].CloseIdleConnections()
	if a := g.do(httpClient(false), "/v1/x", nil); a.status != 200 {
		t.Errorf("after the new start: %d %s", a.status, a.body)
	}
	second := g.pid()
	if err := g.stop(); err != nil {
		t.Errorf("orderly stop: %v", err)
	}
	if alive(second) {
		t.Error("Envoy runs after the stop")
	}
	if _, err := os.Stat(filepath.Join(g.dir, "envoy.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file stays: %v", err)
	}
}

func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && len(text) > 0 // a zombie has none
}

func TestE2EDrainWaitsForAnswers(t *testing.T) {
	g := start(t, nil)
	next := make(chan struct{})
	g.upstream.set(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begin\n")
		w.(http.Flusher).Flush()
		<-next
		_, _ = io.WriteString(w, "end\n")
	})
	response, err := clients["h1"].Get(g.url + "/v1/x")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := bufio.NewReader(response.Body)
	if line, err := body.ReadString('\n'); err != nil || line != "begin\n" {
		t.Fatalf("%q %v", line, err)
	}
	if n, err := g.admin.Stat(t.Context(), "http.llm.downstream_rq_active"); err != nil || n != 1 {
		t.Errorf("active requests: %d %v", n, err)
	}
	g.cancel()
	eventually(t, "a refused connection while the answer runs", func() bool {
		c, err := net.Dial("tcp", g.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-g.stopped:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	close(next)
	if rest, err := io.ReadAll(body); err != nil || string(rest) != "end\n" {
		t.Errorf("the rest of the answer: %q %v", rest, err)
	}
	if err := g.stop(); err != nil {
		t.Errorf("orderly stop: %v", err)
	}
}

func TestE2EDrainHasALimit(t *testing.T) {
	g := prepare(t, nil)
	g.run.DrainTime = 300 * time.Millisecond
	g.startEnvoy()
	g.upstream.set(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begin\n")
		w.(http.Flusher).Flush()
		g.upstream.silent(w, r)
	})
	response, err := clients["h1"].Get(g.url + "/v1/x")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := g.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("a cut answer looks whole")
	}
}

func TestE2EAddressInUse(t *testing.T) {
	first := start(t, nil)
	second := prepare(t, func(o *envoy.Options) { o.Listen = first.addr })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := envoy.Supervise(ctx, second.run)
	if !errors.Is(err, envoy.ErrAddressInUse) || !errors.Is(err, envoy.ErrDies) || !strings.Contains(err.Error(), first.addr) {
		t.Errorf("error %v", err)
	}
}

func TestE2EBrokenConfig(t *testing.T) {
	g := prepare(t, nil)
	if err := os.WriteFile(g.run.ConfigPath, []byte("static_resources: {listeners: [{name: x, nonsense: 1}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := envoy.Supervise(t.Context(), g.run)
	if !errors.Is(err, envoy.ErrDies) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("error %v", err)
	}
}

func TestE2EAdminStates(t *testing.T) {
	g := start(t, nil)
	if _, err := g.admin.Stat(t.Context(), "no.such.name"); err == nil {
		t.Error("an unknown statistic has a value")
	}
	info, err := os.Stat(g.socket("envoy-admin.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v %v", info, err)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	if err := g.admin.Ready(t.Context()); err == nil {
		t.Error("ready without an Envoy")
	}
}

// supervisorEnv makes a copy of this test program a supervisor that is killed.
const supervisorEnv = "LLMGW_TEST_SUPERVISE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(supervisorEnv); dir != "" {
		err := envoy.Supervise(context.Background(), envoy.RunOptions{
			Binary: os.Getenv("LLMGW_TEST_ENVOY"), ConfigPath: filepath.Join(dir, "envoy.yaml"), RunDir: dir,
		})
		println("supervisor ended", err)
		os.Exit(1)
	}
	if words := strings.Fields(os.Getenv(replicaEnv)); len(words) == 3 {
		println("replica ended", runReplica(words[0], words[1], words[2]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestE2EEnvoyDiesWithItsSupervisor(t *testing.T) {
	g := prepare(t, nil)
	for range 3 {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		supervisor := exec.Command(self)
		supervisor.Env = append(os.Environ(), supervisorEnv+"="+g.dir, "LLMGW_TEST_ENVOY="+g.run.Binary)
		if err := supervisor.Start(); err != nil {
			t.Fatal(err)
		}
		g.stopped = make(chan error)
		g.waitReady()
		pid := g.pid()
		if !alive(pid) {
			t.Fatalf("no Envoy at pid %d", pid)
		}
		if err := envoy.EndStale(g.dir, nil); !errors.Is(err, envoy.ErrRunning) {
			t.Errorf("ending a supervised Envoy: %v", err)
		}
		if err := supervisor.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = supervisor.Wait()
		t.Cleanup(func() {
			if t.Failed() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		})
		eventually(t, "Envoy's end", func() bool { return !alive(pid) })
		if err := envoy.EndStale(g.dir, nil); err != nil {
			t.Errorf("nothing to end: %v", err)
		}
	}
}

func TestE2EEndStale(t *testing.T) {
	g := prepare(t, nil)
	orphan := exec.Command(g.run.Binary, "--config-path", g.run.ConfigPath, "--disable-hot-restart")
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = orphan.Wait() // a signal ends it
	}()
	g.stopped = make(chan error)
	g.waitReady()
	pidFile := filepath.Join(g.dir, "envoy.pid")
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(orphan.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(g.dir, "other")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "envoy.pid"), []byte(strconv.Itoa(orphan.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := envoy.EndStale(elsewhere, nil); err != nil || !alive(orphan.Process.Pid) {
		t.Errorf("an Envoy of another folder: %v, alive %v", err, alive(orphan.Process.Pid))
	}
	if err := envoy.EndStale(g.dir, nil); err != nil {
		t.Error(err)
	}
	<-ended
	g.startEnvoy() // its address and its admin socket are free again
}
