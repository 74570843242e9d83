package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"
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

// hangups are the SIGHUPs of a program that reads its configuration again.
type hangups struct {
	signals chan os.Signal
	at      terminal
}

// newHangups begins to listen for SIGHUP, which would end the process otherwise:
// also one that comes while the program still starts is obeyed. The terminal is
// looked at first: whoever listens has undone what nohup did.
func newHangups() hangups {
	h := hangups{at: openTerminal(), signals: make(chan os.Signal, 1)}
	signal.Notify(h.signals, syscall.SIGHUP)
	return h
}

// obey calls asked for each SIGHUP and look every [lookEvery], until ctx ends. When
// the terminal is closed it calls stop, which ends the program, and returns.
func (h hangups) obey(ctx context.Context, log *zap.Logger, stop context.CancelFunc, asked, look func()) {
	defer signal.Stop(h.signals)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.signals:
			if h.at.gone() {
				log.Info("the terminal was closed")
				stop()
				return
			}
			asked()
		case <-ticker.C:
			look()
		}
	}
}
