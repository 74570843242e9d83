//go:build !linux

package envoy

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// childAttributes give Envoy a process group of its own, so that a Ctrl-C in
// the terminal does not cut the answers a stop waits for. There is no parent
// death signal here: an Envoy that outlives us is ended by [EndStale].
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// commandLine returns the words of a process's command line, none when it is
// gone.
func commandLine(pid int) []string {
	out, err := exec.Command("/bin/ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil
	}
	return strings.Fields(string(out))
}
