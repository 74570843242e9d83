package rig

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Redis is a redis-server of a test's own: empty, without persistence.
type Redis struct {
	Addr string // "127.0.0.1:port", the same after a Restart
	*Process

	t    testing.TB
	path string
	args []string
	logs string
}

// StartRedis runs redis-server (on PATH) until the test ends. More arguments
// are options such as "--maxmemory", "8mb". Where the machine has none the test
// is skipped, under CI=true it fails.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		Needed(t, "redis-server is not on PATH: deploy/install-test-tools.sh installs it")
	}
	var ports Ports
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	logs := t.TempDir()
	r := &Redis{Addr: addr, t: t, path: path, logs: logs, args: append([]string{
		"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", logs, "--daemonize", "no",
	}, args...)}
	r.Restart()
	t.Cleanup(func() {
		r.Resume()
		r.Kill()
	})
	return r
}

// Restart starts the server again after a Kill: empty, another run id.
func (r *Redis) Restart() {
	r.t.Helper()
	p, err := Start(Spec{Name: "redis", Path: r.path, Args: r.args, Logs: r.logs, Dir: r.logs})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Process = p
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		answer, err := r.Command("PING")
		if err == nil && answer == "PONG" {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("redis-server did not answer: %q, %v\n%s", answer, err, p.Tail(20))
		}
	}
}

// Command sends one inline command, such as "FLUSHALL" or "CONFIG SET
// maxmemory 1mb", on a connection of its own and returns a simple answer; an
// error answer is an error.
func (r *Redis) Command(line string) (string, error) {
	c, err := net.DialTimeout("tcp", r.Addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return "", err
	}
	answer = strings.TrimRight(answer, "\r\n")
	if text, failed := strings.CutPrefix(answer, "-"); failed {
		return "", errors.New(text)
	}
	return strings.TrimLeft(answer, "+:"), nil
}

// Needed ends a test whose machine lacks something real: it is skipped, and under
// CI=true it fails.
func Needed(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}
