package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

var (
	// ErrDies says that Envoy ends as soon as it is started.
	ErrDies = errors.New("envoy cannot run")
	// ErrAddressInUse says that something else has the listener's address.
	ErrAddressInUse = errors.New("address already in use")
)

const (
	killAfter = 5 * time.Second        // between SIGTERM and SIGKILL
	drainPoll = 20 * time.Millisecond  // pace of asking, no protocol
	pipeGrace = 500 * time.Millisecond // for output that is still in a pipe
)

// RunOptions is how [Supervise] runs an Envoy.
type RunOptions struct {
	Binary     string // path of the program
	ConfigPath string // the rendered bootstrap, a file in RunDir
	// RunDir gets envoy.pid and envoy.lock (0600) and is made (0700) when it is
	// not there. Two supervisors cannot share one.
	RunDir         string
	Stdout, Stderr io.Writer // get whole lines of JSON; nil discards
	// AdminSocket or AdminAddress is the admin interface of the bootstrap. With
	// neither, Envoy is stopped without draining, and is not replaced.
	AdminSocket, AdminAddress string
	Concurrency               int // worker threads; 0 means one per core
	// DrainTime is how long a stop or a hot restart waits for running answers;
	// 0 cuts them.
	DrainTime time.Duration
	LogLevel  string // Envoy's own; default "warning"
	Log       *zap.Logger
	// Revisions asks for hot restarts; nil runs Envoy without that ability. The
	// last of several that come during a hot restart is taken up after it.
	Revisions <-chan Revision
}

// Revision is an Envoy that is to take over from the one that runs.
type Revision struct {
	Binary    string        // path of the program
	Config    []byte        // a bootstrap that [Validate] accepts, with the same admin interface
	DrainTime time.Duration // as in [RunOptions]
}

// Supervise runs Envoy and starts it again when it dies, until ctx ends. Then
// it takes no new connections, waits for running answers up to DrainTime, and
// ends Envoy by SIGTERM and, 5 s later, SIGKILL. An orderly stop returns nil;
// an Envoy that ends five times in a row within a second of its start returns
// an error with Envoy's reason, wrapping [ErrDies], and [ErrAddressInUse] where
// that is the reason. [ErrRunning] says that RunDir has a supervisor.
//
// A [Revision] is started beside the Envoy that runs and takes over its
// listening sockets, so that no connection is refused; the former one has
// DrainTime to end its answers, and as much again where it is asked for more on
// the connections that it still has. A successor that does not come to serve changes
// nothing. ConfigPath is the configuration that serves.
func Supervise(ctx context.Context, o RunOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.RunDir, 0o700); err != nil {
		return fmt.Errorf("make Envoy's run folder: %w", err)
	}
	unlock, err := lockRunDir(o.RunDir)
	if err != nil {
		return err
	}
	defer unlock()
	s := newSupervisor(o)
	defer s.close()
	return s.run(ctx)
}

func (o *RunOptions) check() error {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.LogLevel == "" {
		o.LogLevel = "warning"
	}
	if filepath.Dir(filepath.Clean(o.ConfigPath)) != filepath.Clean(o.RunDir) {
		return fmt.Errorf("%w: the configuration %q must be a file in the run folder %q, by which a stale Envoy is recognised", ErrOptions, o.ConfigPath, o.RunDir)
	}
	return nil
}

// supervisor is the shell around [succession]: it starts, watches and ends
// processes. One goroutine owns it.
type supervisor struct {
	RunOptions
	succession
	admin Admin
	noHot error // why there is no hot restart, nil where there can be one

	program string   // the one that serves, or served
	wanted  Revision // of the last request

	current, follower, leaving *child
	follows                    chan error      // how the follower's start ended
	idle                       <-chan struct{} // the leaving one has nothing more to do, or no more time
	ready                      <-chan struct{} // the current one serves, since its start
	pause                      *time.Timer
	again                      <-chan time.Time // its end, when a dead Envoy is started again
	deaths                     deathCount
}

func newSupervisor(o RunOptions) *supervisor {
	s := &supervisor{RunOptions: o, admin: Admin{Socket: o.AdminSocket, Address: o.AdminAddress}, program: o.Binary}
	switch {
	case o.Revisions == nil:
		s.noHot = ErrNoHotRestart
	case s.admin == (Admin{}):
		s.noHot = fmt.Errorf("%w: no admin interface", ErrNoHotRestart)
	default:
		if s.noHot = canShareMemory(sharedMemoryDir); s.noHot != nil {
			o.Log.Warn("envoy cannot be replaced while it serves", zap.Error(s.noHot))
		}
	}
	return s
}

// run returns nil when ctx has ended and Envoy with it.
func (s *supervisor) run(ctx context.Context) error {
	err := s.start(ctx)
	for err == nil {
		select {
		case <-ctx.Done():
			s.stop(ctx)
			return nil
		default: // an end that was asked for is none to be mended
		}
		select {
		case <-ctx.Done():
		case r := <-s.Revisions:
			s.ask(ctx, r)
		case <-s.current.ended():
			err = s.died(ctx, s.current.reason())
		case <-s.ready:
			s.ready = nil
			s.take(ctx, currentRuns)
		case failure := <-s.follows:
			err = s.followed(ctx, failure)
		case <-s.leaving.ended():
			err = s.gone(ctx)
		case <-s.idle:
			s.dismiss()
		case <-s.again:
			s.again = nil
			err = s.start(ctx)
		}
	}
	return err
}

// start starts an Envoy that has nobody to take over from.
func (s *supervisor) start(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	var l *lineage
	if s.noHot == nil {
		sweepLineages(s.RunDir, sharedMemoryDir)
		fresh := newLineage()
		l = &fresh
	}
	if err := addressFree(ctx, s.ConfigPath, nil); err != nil {
		return s.died(ctx, err)
	}
	c, err := s.startChild(s.program, s.ConfigPath, l, s.DrainTime)
	if err != nil {
		return s.died(ctx, err)
	}
	s.current = c
	if err := s.writePids(); err != nil {
		return err
	}
	s.Log.Info("envoy started", zap.Int("pid", c.pid()), zap.String("binary", s.program))
	if s.noHot == nil {
		ready := make(chan struct{})
		s.ready = ready
		go s.awaitReady(ctx, c, ready)
	}
	return nil
}

// awaitReady closes ready when a child serves, never when it ends before.
func (s *supervisor) awaitReady(ctx context.Context, c *child, ready chan<- struct{}) {
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for s.admin.Ready(ctx) != nil {
		select {
		case <-c.done:
			return
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
	close(ready)
}

// died is told why the current Envoy ended, or did not start. It returns an
// error when there is no use in going on.
func (s *supervisor) died(ctx context.Context, why error) error {
	var lived time.Duration
	if s.current != nil {
		lived = time.Since(s.current.began)
		s.current.finish()
		s.current, s.ready = nil, nil
		if err := s.writePids(); err != nil {
			return err
		}
	}
	wait, giveUp := s.deaths.next(lived)
	if giveUp {
		return fmt.Errorf("%w: %w", ErrDies, why)
	}
	if ctx.Err() == nil {
		s.Log.Error("envoy ended, starting it again", zap.Error(why), zap.Duration("wait", wait))
	}
	pause := time.NewTimer(wait)
	s.pause, s.again = pause, pause.C
	s.take(ctx, currentDied)
	return nil
}

// take lets an event have its consequences, but for the pause before a new
// start, which died has begun.
func (s *supervisor) take(ctx context.Context, e event) {
	switch s.on(e) {
	case startNext:
		if err := s.startFollower(ctx); err != nil {
			s.Log.Error("envoy not replaced, the one that runs goes on", zap.Error(err))
			s.take(ctx, nextFailed)
		}
	case replaceDead:
		s.dropFollower()
	case promote:
		s.promote()
	case nothing, startAgain:
	}
}

// stop ends all of them, the current one after the answers that are under way.
func (s *supervisor) stop(ctx context.Context) {
	if s.follower != nil {
		s.dropFollower()
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.DrainTime)
	defer cancel()
	if s.current != nil {
		s.drain(limit, s.current)
		s.current.end()
	}
	if s.leaving != nil {
		if s.idle != nil {
			select {
			case <-s.idle:
			case <-limit.Done():
			}
			go s.leaving.end()
		}
		<-s.leaving.done
	}
	s.Log.Info("envoy stopped")
}

func (s *supervisor) drain(ctx context.Context, c *child) {
	if s.admin == (Admin{}) || s.DrainTime <= 0 {
		return
	}
	admin := s.admin.once()
	if c.link != nil { // a follower that failed has cut the way to the others
		admin = c.link.adminClient
	}
	if err := admin.drain(ctx); err != nil {
		s.Log.Warn("envoy does not drain, stopping it at once", zap.Error(err))
		return
	}
	if left, idle := waitIdle(ctx, c, admin, "downstream_rq_active"); !idle {
		s.Log.Warn("envoy still has running answers, stopping it", zap.Int64("active", left))
	}
}

// waitIdle waits until a gauge of the listener's connection manager is 0, or
// the process has ended.
func waitIdle(ctx context.Context, c *child, admin adminClient, gauge string) (left int64, idle bool) {
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for {
		left, err := admin.stat(ctx, "http."+statPrefix+"."+gauge)
		if err == nil && left == 0 {
			return 0, true
		}
		select {
		case <-c.done:
			return 0, true
		case <-ctx.Done():
			return left, false
		case <-ticker.C:
		}
	}
}

// close leaves nothing behind, however the run ended.
func (s *supervisor) close() {
	if s.pause != nil {
		s.pause.Stop()
	}
	for _, c := range []*child{s.follower, s.current, s.leaving} {
		if c != nil {
			c.end()
			c.finish()
		}
	}
	sweepLineages(s.RunDir, sharedMemoryDir)
	_ = os.Remove(pidPath(s.RunDir)) // one that stays names processes that are gone
}
