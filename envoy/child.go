package envoy

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
)

// child is an Envoy process of a supervisor.
type child struct {
	*process
	program        string
	drain          time.Duration
	began          time.Time
	stdout, stderr *lineWriter
	lineage        *lineage // nil without hot restart
	restartVersion string   // of hot restart; "" until it is asked for
	link           *adminLink
	silent         io.Closer // stands for its predecessor; nil while that lives, or when there was none
}

func (s *supervisor) startChild(program, config string, l *lineage, drain time.Duration) (*child, error) {
	c := &child{
		program: program, drain: drain, lineage: l, began: time.Now(),
		stdout: &lineWriter{to: s.Stdout, now: time.Now}, stderr: &lineWriter{to: s.Stderr, now: time.Now},
	}
	var err error
	if c.process, err = startProcess(s.command(c, config)); err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	return c, nil
}

func (s *supervisor) command(c *child, config string) *exec.Cmd {
	args := []string{"--config-path", config, "--log-level", s.LogLevel}
	if c.lineage == nil {
		args = append(args, "--disable-hot-restart")
	} else {
		args = append(args, c.lineage.arguments(s.RunDir, c.drain)...)
	}
	if s.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(s.Concurrency))
	}
	cmd := exec.Command(c.program, args...)
	cmd.Env = childEnv()
	cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
	cmd.WaitDelay = pipeGrace
	cmd.SysProcAttr = childAttributes()
	return cmd
}

// ended is closed when the process has ended; nil, which never is, when there
// is none.
func (c *child) ended() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.done
}

// reason says why it ended.
func (c *child) reason() error {
	c.stdout.flush()
	c.stderr.flush()
	err := fmt.Errorf("%v: %s", c.state(), reasonOf(c.stderr.lines()))
	if strings.Contains(err.Error(), "Address already in use") {
		err = fmt.Errorf("%w: %w", ErrAddressInUse, err)
	}
	return err
}

// finish passes on its last words, after its end.
func (c *child) finish() {
	c.stdout.flush()
	c.stderr.flush()
	if c.link != nil {
		c.link.close()
	}
	if c.silent != nil {
		_ = c.silent.Close() // nobody writes to it any more
	}
}

// writePids notes all that run, the current one first, for whoever has to end
// them when this process is gone.
func (s *supervisor) writePids() error {
	var text strings.Builder
	for _, c := range []*child{s.current, s.follower, s.leaving} {
		if c != nil {
			fmt.Fprintln(&text, c.pid())
		}
	}
	if text.Len() == 0 {
		_ = os.Remove(pidPath(s.RunDir))
		return nil
	}
	// Whoever reads it meanwhile, or after this process was killed, finds a whole one.
	fresh := pidPath(s.RunDir) + ".new"
	err := os.WriteFile(fresh, []byte(text.String()), 0o600)
	if err == nil {
		err = os.Rename(fresh, pidPath(s.RunDir))
	}
	if err != nil {
		return fmt.Errorf("write Envoy's pid file: %w", err)
	}
	return nil
}

// notePids is writePids where Envoys that serve are worth more than the note.
func (s *supervisor) notePids() {
	if err := s.writePids(); err != nil {
		s.Log.Warn("envoy's pid file", zap.Error(err))
	}
}
