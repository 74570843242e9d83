package envoy

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a started child.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
}

// startProcess starts cmd on a thread of its own that lives as long as the
// child. The kernel ties the child to the thread that made it, not to the
// process (PR_SET_PDEATHSIG): on a thread of Go's pool, Envoy would be killed
// whenever the runtime retires that thread.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in cmd.ProcessState
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// Signal is without effect on a process that has ended.
func (p *process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// state describes the end; only after done.
func (p *process) state() string {
	if s := p.cmd.ProcessState; s != nil {
		return s.String()
	}
	return "unknown end"
}

// end asks, then insists.
func (p *process) end() {
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(killAfter)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Signal(syscall.SIGKILL)
		<-p.done
	}
}
