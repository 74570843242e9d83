package rig

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Postgres is a PostgreSQL server of a test's own, with synchronous commits.
type Postgres struct {
	Addr string // "127.0.0.1:port", the same after a Restart
	*Process

	t         testing.TB
	bin, data string
	owner     *syscall.Credential // nil = the tester
	databases atomic.Int64
}

// StartPostgres makes a cluster and runs it until the test ends. Where the
// machine has no PostgreSQL the test is skipped, under CI=true it fails.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	bin := postgresBin()
	if bin == "" {
		Needed(t, "PostgreSQL is not installed: deploy/install-test-tools.sh installs it")
	}
	var ports Ports
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &Postgres{Addr: addr, t: t, bin: bin, data: filepath.Join(dir, "data")}
	if os.Getuid() == 0 {
		p.lendTo(dir)
	}
	out, err := p.run("initdb", "-D", p.data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
	if err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.Restart()
	t.Cleanup(func() {
		if p.Process != nil {
			p.Signal(syscall.SIGINT) // fast shutdown
			if _, err := p.Wait(10 * time.Second); err != nil {
				p.KillAll()
			}
		}
	})
	return p
}

// postgresBin is the folder of the newest PostgreSQL of this machine.
func postgresBin() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(dirs, func(a, b string) int {
		return version(b) - version(a)
	})
	for _, dir := range dirs {
		if _, err := executable(filepath.Join(dir, "initdb")); err == nil {
			return dir
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(real)
		}
	}
	return ""
}

func version(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// lendTo gives the folder to a user that is not root: PostgreSQL refuses root.
func (p *Postgres) lendTo(dir string) {
	uid, gid := 65534, 65534
	if u, err := user.Lookup("postgres"); err == nil {
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		p.t.Fatal(err)
	}
	p.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (p *Postgres) run(tool string, args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(p.bin, tool), args...)
	cmd.Dir = filepath.Dir(p.data)
	if p.owner != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner}
	}
	return cmd.CombinedOutput()
}

// Restart starts the server again after KillAll; it recovers from its log.
func (p *Postgres) Restart() {
	p.t.Helper()
	_, port, _ := net.SplitHostPort(p.Addr)
	_ = os.Remove(filepath.Join(p.data, "postmaster.pid")) // ours is dead, and its number may be somebody else's by now
	var err error
	p.Process, err = Start(Spec{
		Name: "postgres", Path: filepath.Join(p.bin, "postgres"), Dir: p.data, Logs: filepath.Dir(p.data), Owner: p.owner,
		Args: []string{
			"-D", p.data, "-h", "127.0.0.1", "-p", port, "-k", "",
			"-c", "max_connections=200", "-c", "fsync=on", "-c", "synchronous_commit=on",
		},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.WaitReady()
}

// WaitReady waits until the server takes commands.
func (p *Postgres) WaitReady() {
	p.t.Helper()
	var out []byte
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if out, err = p.SQL("postgres", "SELECT 1"); err == nil {
			return
		}
	}
	p.t.Fatalf("PostgreSQL did not answer: %v\n%s\n%s", err, out, p.Tail(20))
}

// SQL runs one command by psql and returns its bare output.
func (p *Postgres) SQL(database, command string) ([]byte, error) {
	host, port, _ := net.SplitHostPort(p.Addr)
	return p.run("psql", "-X", "-A", "-t", "-q", "-h", host, "-p", port, "-U", "postgres", "-d", database, "-c", command)
}

// KillAll ends every process of the server by SIGKILL at once, as the loss of
// its machine would, and waits until they are gone.
func (p *Postgres) KillAll() {
	kids, _ := Children(p.Pid)
	p.Kill() // first: it must not see its children end and start anew
	for _, pid := range kids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if !slices.ContainsFunc(kids, func(pid int) bool { return strings.HasPrefix(Command(pid), "postgres") }) {
			return
		}
	}
}

// NewDatabase makes an empty database and returns its URL.
func (p *Postgres) NewDatabase() string {
	p.t.Helper()
	name := fmt.Sprintf("books%d", p.databases.Add(1))
	if out, err := p.SQL("postgres", "CREATE DATABASE "+name); err != nil {
		p.t.Fatalf("create database: %v\n%s", err, out)
	}
	return "postgres://postgres@" + p.Addr + "/" + name + "?sslmode=disable"
}
