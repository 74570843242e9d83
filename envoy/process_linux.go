package envoy

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// childAttributes let Envoy die with us, even when we are killed without a
// chance to say goodbye: a port that answers without its gateway helps nobody.
// Its own process group keeps a Ctrl-C in the terminal from reaching it, which
// would cut the answers that a stop waits for.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// commandLine returns the arguments a process was started with, none when it
// is gone.
func commandLine(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
}
