package main

import (
	"os"
	"os/signal"
	"syscall"
)

// terminal is the terminal that the program was started from, if it was.
//
// SIGHUP says two things: an operator's "read the configuration again", and the
// kernel's "your terminal is gone". After the latter a gateway that somebody
// runs in a window would work on unseen and keep its port.
type terminal struct{ had bool }

// openTerminal looks whether there is one. Under nohup SIGHUP is ignored:
// whoever did that wants the program to outlive its terminal.
func openTerminal() terminal {
	return terminal{had: !signal.Ignored(syscall.SIGHUP) && hasTerminal()}
}

// gone says whether the terminal was closed since the start.
func (t terminal) gone() bool { return t.had && !hasTerminal() }

func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	_ = f.Close() // nothing was written
	return true
}
