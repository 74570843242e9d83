package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a running child of the test. Its output goes to files that are
// shown only when somebody asks.
type Process struct {
	Name string
	Pid  int

	dir  string
	done chan struct{} // closed when the child has been waited for
	err  error         // of Wait, valid after done
}

// Spec says what to run.
type Spec struct {
	Name string // for messages and log files
	Path string // binary
	Args []string
	Env  []string // complete environment, nil = a minimal one without the tester's settings
	Dir  string   // working directory
	Logs string   // folder for NAME.stdout and NAME.stderr, appended to
	// Owner is the user the child runs as, nil = the tester.
	Owner *syscall.Credential
}

// MinimalEnv is an environment that carries nothing of the tester's own
// settings into the product.
func MinimalEnv(more ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LANG=C.UTF-8"}
	for _, name := range []string{"XDG_CACHE_HOME", "ENVOY_PATH"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return append(env, more...)
}

// Start runs a child that the kernel kills when the test dies. Parent death is
// delivered when the thread that started the child ends, so one thread is kept
// for the child's whole life.
func Start(s Spec) (*Process, error) {
	stdout, err := appendTo(s.Logs, s.Name+".stdout")
	if err != nil {
		return nil, err
	}
	defer func() { _ = stdout.Close() }()
	stderr, err := appendTo(s.Logs, s.Name+".stderr")
	if err != nil {
		return nil, err
	}
	defer func() { _ = stderr.Close() }()
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.Dir, s.Env, stdout, stderr
	if cmd.Env == nil {
		cmd.Env = MinimalEnv()
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Credential: s.Owner}
	p := &Process{Name: s.Name, dir: s.Logs, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p.Pid = cmd.Process.Pid
	return p, nil
}

func appendTo(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// Signal sends a signal to the child alone. A child that has ended is not an
// error, and no other process can be hit: the pid is ours until Wait.
func (p *Process) Signal(s syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(p.Pid, s)
	}
}

// Kill ends the child by SIGKILL and waits for its end.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// KillGroup ends the child and every process that it started, those aside that
// moved to a group of their own, by SIGKILL at once, and waits for the child's end.
func (p *Process) KillGroup() {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
	<-p.done
}

// Pause stops the child in its tracks and returns when it stands still;
// Resume lets it go on.
func (p *Process) Pause() {
	p.Signal(syscall.SIGSTOP)
	for !stopped(p.Pid) {
		select {
		case <-p.done:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// Resume ends a Pause.
func (p *Process) Resume() { p.Signal(syscall.SIGCONT) }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait returns the child's exit code (-1 when a signal ended it), or an error
// when it has not ended within the time.
func (p *Process) Wait(limit time.Duration) (int, error) {
	select {
	case <-p.done:
	case <-time.After(limit):
		return 0, fmt.Errorf("%s (pid %d) still runs after %s", p.Name, p.Pid, limit)
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0, nil
	case errors.As(p.err, &exit):
		return exit.ExitCode(), nil
	default:
		return 0, p.err
	}
}

// Stop asks by SIGTERM and, after the limit, ends the child by SIGKILL.
func (p *Process) Stop(limit time.Duration) (int, error) {
	p.Signal(syscall.SIGTERM)
	code, err := p.Wait(limit)
	if err != nil {
		p.Kill()
	}
	return code, err
}

// Stdout is everything the child (and its predecessors of the same name and
// folder) wrote to standard output.
func (p *Process) Stdout() string { return p.log("stdout") }

// Stderr is like Stdout for standard error.
func (p *Process) Stderr() string { return p.log("stderr") }

func (p *Process) log(kind string) string {
	b, err := os.ReadFile(filepath.Join(p.dir, p.Name+"."+kind))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Tail is the last n lines of both outputs, for a failure message.
func (p *Process) Tail(n int) string {
	var b strings.Builder
	for _, kind := range []string{"stdout", "stderr"} {
		lines := strings.Split(strings.TrimRight(p.log(kind), "\n"), "\n")
		if len(lines) > n {
			lines = lines[len(lines)-n:]
		}
		fmt.Fprintf(&b, "--- %s %s\n%s\n", p.Name, kind, strings.Join(lines, "\n"))
	}
	return b.String()
}

// ErrEnded reports that a child ended before it was ready.
var ErrEnded = errors.New("the process ended before it was ready")

// WaitHealthy asks GET url until it answers 200. It gives up when ctx ends or
// one of the processes does.
func WaitHealthy(ctx context.Context, url string, procs ...*Process) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for {
		for _, p := range procs {
			select {
			case <-p.Done():
				return fmt.Errorf("%w: %s\n%s", ErrEnded, p.Name, p.Tail(20))
			default:
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := client.Do(req); err != nil {
			last = err
		} else {
			body, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
			last = fmt.Errorf("status %d: %s", res.StatusCode, bytes.TrimSpace(body))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w; last: %w", ctx.Err(), last)
		}
	}
}

// Ports hands out loopback addresses that were free a moment ago and never the
// same twice in one run.
type Ports struct {
	mu   sync.Mutex
	used map[string]bool
}

// Next returns a free "127.0.0.1:port".
func (p *Ports) Next() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == nil {
		p.used = map[string]bool{}
	}
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("free port: %w", err)
		}
		addr := l.Addr().String()
		_ = l.Close()
		if !p.used[addr] {
			p.used[addr] = true
			return addr, nil
		}
	}
}
