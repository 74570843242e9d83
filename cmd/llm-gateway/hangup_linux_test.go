package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openPTY gives both ends of a new terminal.
func openPTY(t *testing.T) (window, terminal *os.File) {
	t.Helper()
	window, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(window.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(window.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return window, terminal
}

// inTerminal is a gateway that runs in a terminal.
type inTerminal struct {
	t       *testing.T
	window  *os.File // closes the terminal
	process *os.Process
	ended   chan error
	log     string // path
}

// startInTerminal runs a shell's command line, with $1 for the gateway's socket.
func startInTerminal(t *testing.T, line string) inTerminal {
	t.Helper()
	dir := t.TempDir()
	window, terminal := openPTY(t)
	g := inTerminal{t: t, window: window, ended: make(chan error, 1), log: filepath.Join(dir, "log")}
	logFile, err := os.Create(g.log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command("/bin/sh", "-c", line, "sh", "unix://"+filepath.Join(dir, "g"))
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stderr = dir, []string{"PATH=" + os.Getenv("PATH")}, terminal, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g.process = cmd.Process
	go func() { g.ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, or the test has failed
	_ = terminal.Close()
	g.logged("gateway serves")
	return g
}

func (g inTerminal) logged(text string) {
	g.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if log, _ := os.ReadFile(g.log); bytes.Contains(log, []byte(text)) {
			return
		} else if time.Now().After(end) {
			g.t.Fatalf("%q did not come:\n%s", text, log)
		}
	}
}

func (g inTerminal) signal(s os.Signal) {
	g.t.Helper()
	if err := g.process.Signal(s); err != nil {
		g.t.Fatal(err)
	}
}

func (g inTerminal) ends() {
	g.t.Helper()
	select {
	case err := <-g.ended:
		if err != nil {
			g.t.Errorf("the end: %v", err)
		}
	case <-time.After(20 * time.Second):
		g.t.Fatal("the gateway works on")
	}
	g.logged("gateway stops")
}

// TestHangup: in a terminal, SIGHUP reloads as anywhere; when the terminal is
// closed the gateway drains and ends, as with Ctrl-C.
func TestHangup(t *testing.T) {
	g := startInTerminal(t, `exec llm-gateway serve --grpc "$1"`)
	g.signal(syscall.SIGHUP)
	g.logged("configuration reloaded")
	_ = g.window.Close()
	g.logged("the terminal was closed")
	g.ends()
}

// TestHangup_nohup: whoever had SIGHUP ignored wants the gateway to outlive its
// terminal. The kernel's SIGHUP then reloads, as an operator's does.
func TestHangup_nohup(t *testing.T) {
	g := startInTerminal(t, `trap "" HUP; exec llm-gateway serve --grpc "$1"`)
	_ = g.window.Close()
	g.logged("configuration reloaded")
	g.signal(syscall.SIGTERM)
	g.ends()
}
