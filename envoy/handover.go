package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// followTime bounds the start of a successor. It looks up names and reads a
// program of 100 MB from disk; the Envoy that serves has no hurry.
const followTime = 30 * time.Second

var errTooSlow = fmt.Errorf("the new Envoy did not serve within %v", followTime)

// ask notes a request. Where it cannot be met, that is said at once.
func (s *supervisor) ask(ctx context.Context, r Revision) {
	if s.noHot != nil {
		s.Log.Error("envoy not replaced, the one that runs goes on: restart the service", zap.Error(s.noHot))
		return
	}
	s.wanted = r
	if s.next || s.former {
		s.Log.Info("envoy is replaced as soon as its predecessor has ended")
	}
	s.take(ctx, restartAsked)
}

// nextConfig is where the configuration of a successor is until it serves.
func (s *supervisor) nextConfig() string { return filepath.Join(s.RunDir, "envoy-next.yaml") }

// startFollower starts the Envoy of the wanted revision beside the current one.
func (s *supervisor) startFollower(ctx context.Context) error {
	if err := s.holdLink(ctx); err != nil {
		return err
	}
	if err := s.sameHotRestart(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(s.nextConfig(), s.wanted.Config, 0o600); err != nil {
		return fmt.Errorf("write Envoy's configuration: %w", err)
	}
	// The current one listens at some of its addresses, but not for strangers.
	if err := addressFree(ctx, s.nextConfig(), listeningIn(s.ConfigPath)); err != nil {
		return err
	}
	l := s.current.lineage.next()
	c, err := s.startChild(s.wanted.Binary, s.nextConfig(), &l, s.wanted.DrainTime)
	if err != nil {
		return err
	}
	s.follower, s.follows = c, make(chan error, 1)
	s.notePids()
	s.Log.Info("envoy's successor started", zap.Int("pid", c.pid()), zap.String("binary", c.program))
	go func(current *child, result chan<- error) { result <- s.awaitFollower(ctx, current, c) }(s.current, s.follows)
	return nil
}

// holdLink keeps a connection to the current Envoy's admin interface: its
// successor takes the address away, whether it comes to serve or not.
func (s *supervisor) holdLink(ctx context.Context) error {
	if s.current.link != nil {
		if s.current.link.ready(ctx) == nil {
			return nil
		}
		s.current.link.close()
		s.current.link = nil
	}
	link, err := s.admin.link(ctx)
	if err != nil {
		return err
	}
	if err := link.ready(ctx); err != nil {
		link.close()
		return err
	}
	s.current.link = link
	return nil
}

func (s *supervisor) sameHotRestart(ctx context.Context) (err error) {
	if s.current.restartVersion == "" {
		if s.current.restartVersion, err = hotRestartVersion(ctx, fmt.Sprintf("/proc/%d/exe", s.current.pid())); err != nil {
			return err
		}
	}
	theirs, err := hotRestartVersion(ctx, s.wanted.Binary)
	if err != nil {
		return err
	}
	if ours := s.current.restartVersion; theirs != ours {
		return fmt.Errorf("%w: %s cannot take over from the Envoy that runs (hot restart version %s, not %s): restart the service", ErrNoHotRestart, s.wanted.Binary, theirs, ours)
	}
	return nil
}

// awaitFollower returns nil when the successor has the sockets and serves.
func (s *supervisor) awaitFollower(ctx context.Context, current, c *child) error {
	ctx, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for {
		epoch, err := s.admin.Stat(ctx, "server.hot_restart_epoch")
		if err == nil && epoch == int64(c.lineage.epoch) && s.admin.Ready(ctx) == nil {
			if over, err := handedOver(ctx, current); over && err == nil {
				return nil
			}
		}
		select {
		case <-c.done:
			return c.reason()
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err() // it is not wanted any more
			}
			return errTooSlow
		case <-ticker.C:
		}
	}
}

// handedOver says whether an Envoy has left its listening sockets to a successor.
func handedOver(ctx context.Context, c *child) (bool, error) {
	stopped, err := c.link.stat(ctx, "listener_manager.listener_stopped")
	return stopped > 0, err
}

// followed is told how the start of the successor ended. Its error is that of
// died.
func (s *supervisor) followed(ctx context.Context, failure error) error {
	s.follows = nil
	if failure == nil {
		s.take(ctx, nextServes)
		return nil
	}
	s.follower.end()
	if over, err := handedOver(ctx, s.current); over || err != nil { // it died too late: nobody listens
		s.take(ctx, nextServes)
		return s.died(ctx, failure)
	}
	s.removeFollower()
	s.Log.Error("envoy not replaced, the one that runs goes on", zap.Error(failure))
	s.take(ctx, nextFailed)
	return nil
}

// dropFollower ends a successor that is not wanted any more.
func (s *supervisor) dropFollower() {
	s.follower.end()
	s.Log.Info("envoy's successor is ended", zap.Int("pid", s.follower.pid()), zap.NamedError("state", <-s.follows))
	s.follows = nil
	s.removeFollower()
}

func (s *supervisor) removeFollower() {
	c := s.follower
	c.finish()
	s.follower = nil
	s.notePids()
	_ = os.Remove(s.nextConfig()) // the next one writes its own
	if s.current == nil {
		return
	}
	err := forgetStart(sharedMemoryPath(sharedMemoryDir, c.lineage.baseID), s.current.restartVersion)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Log.Warn("this Envoy cannot be replaced any more: restart the service", zap.Error(err))
	}
}

// promote makes the successor the current Envoy, and lets the former one end
// its answers.
func (s *supervisor) promote() {
	if err := os.Rename(s.nextConfig(), s.ConfigPath); err != nil {
		s.Log.Error("keep Envoy's configuration", zap.Error(err))
	}
	s.leaving, s.current, s.follower = s.current, s.follower, nil
	s.program, s.DrainTime = s.current.program, s.current.drain
	s.notePids()
	s.Log.Info("envoy replaced", zap.Int("pid", s.current.pid()), zap.Int("former", s.leaving.pid()), zap.Int("epoch", s.current.lineage.epoch))
	idle := make(chan struct{})
	s.idle = idle
	go func(c *child, drain time.Duration) {
		defer close(idle)
		retire(c, drain, s.Log)
	}(s.leaving, s.DrainTime)
}

// retire waits until an Envoy that takes no connections any more has none, or
// its time is over. Clients are told to leave with each answer, so that each of
// its connections has one more request at most; but one on which none is asked
// for stays, and what is asked on it late has the drain time too. So the limit is
// twice that, and after once that connections without a request do not count.
func retire(c *child, drain time.Duration, log *zap.Logger) {
	wait := func(gauge string) (left int64, idle bool) {
		ctx, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		return waitIdle(ctx, c, c.link.adminClient, gauge)
	}
	if _, idle := wait("downstream_cx_active"); idle {
		return
	}
	if left, idle := wait("downstream_rq_active"); !idle {
		log.Warn("envoy's predecessor still has running answers, stopping it", zap.Int64("active", left))
	}
}

// dismiss ends the former Envoy, which has retired.
func (s *supervisor) dismiss() {
	s.idle = nil
	s.standIn()
	go s.leaving.end()
}

// standIn takes the former Envoy's place towards its successor.
func (s *supervisor) standIn() {
	if s.current == nil || s.current.silent != nil || s.current.lineage.baseID != s.leaving.lineage.baseID {
		return
	}
	silent, err := silentSocket(s.leaving.lineage.parentSocket(s.RunDir))
	if err != nil {
		s.Log.Error("envoy may have to be started again", zap.Error(err))
		return
	}
	s.current.silent = silent
}

// gone is called when the former Envoy has ended.
func (s *supervisor) gone(ctx context.Context) error {
	s.standIn() // it may have died
	s.Log.Info("envoy's predecessor ended", zap.Int("pid", s.leaving.pid()))
	s.leaving.finish()
	s.leaving, s.idle = nil, nil
	err := s.writePids()
	s.take(ctx, formerGone)
	return err
}
