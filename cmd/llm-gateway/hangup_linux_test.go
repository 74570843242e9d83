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

// TestHangup: in a terminal, SIGHUP reloads as anywhere; when the terminal is
// closed the gateway drains and ends, as with Ctrl-C.
func TestHangup(t *testing.T) {
	dir := t.TempDir()
	window, terminal := openPTY(t)
	logPath := filepath.Join(dir, "log")
	logFile, err := os.Create(logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command("llm-gateway", "serve", "--grpc", "unix://"+filepath.Join(dir, "g"))
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.Stderr = dir, []string{}, terminal, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, or the test has failed
	_ = terminal.Close()
	logged := func(text string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if log, _ := os.ReadFile(logPath); bytes.Contains(log, []byte(text)) {
				return
			} else if time.Now().After(end) {
				t.Fatalf("%q did not come:\n%s", text, log)
			}
		}
	}
	logged("gateway serves")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	logged("configuration reloaded")
	_ = window.Close()
	logged("the terminal was closed")
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the end: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway works on")
	}
	logged("gateway stops")
}
