package main

import (
	"context"
	"maps"
	"time"

	"go.uber.org/zap"
)

const (
	// lookEvery is how often the files of the configuration are looked at. A
	// change is taken up when two looks have found the same, so that a file is
	// not read in the middle of being written.
	lookEvery = 500 * time.Millisecond
	// retryEvery is how long a good configuration that could not be put in force
	// waits: the books may be away.
	retryEvery = 10 * time.Second
	// applyWait bounds what putting a configuration in force waits for the books.
	applyWait = 10 * time.Second
)

// reloader keeps the configuration of a running gateway up to date. A bad one
// changes nothing.
type reloader struct {
	src     sources
	log     *zap.Logger
	control *logControl
	hangups hangups
	stop    context.CancelFunc // ends the gateway

	inForce Config     // what the gateway goes by
	good    fileStates // of the files when inForce was read
	tried   fileStates // when a configuration was last read
	seen    fileStates // at the last look
	retryAt time.Time  // zero = nothing to try again
}

// newReloader begins to listen for SIGHUP.
//
// The files are as they were before c was read from them; stop ends the gateway
// when its terminal is closed.
func newReloader(src sources, files fileStates, c Config, log *zap.Logger, control *logControl, stop context.CancelFunc) *reloader {
	return &reloader{
		src: src, log: log, control: control, hangups: newHangups(), stop: stop,
		inForce: c, good: files, tried: files, seen: files,
	}
}

// run reloads whenever the files change or somebody asks for it by SIGHUP, until
// ctx ends. apply puts a configuration in force, whole or not at all.
func (r *reloader) run(ctx context.Context, apply func(context.Context, Config) error) {
	r.hangups.obey(ctx, r.log, r.stop, func() { r.reload(ctx, apply, lookAtFiles(r.src)) }, func() {
		if now := lookAtFiles(r.src); r.due(now, time.Now()) {
			r.reload(ctx, apply, now)
		}
	})
}

// due says whether what was found now must be read: it was not read yet and is
// steady, or could not be put in force and has waited.
func (r *reloader) due(now fileStates, at time.Time) bool {
	steady := maps.Equal(now, r.seen)
	r.seen = now
	return steady && (!maps.Equal(now, r.tried) || !r.retryAt.IsZero() && !at.Before(r.retryAt))
}

// reload reads the configuration whole and puts it in force, or says why not,
// one line for each mistake.
func (r *reloader) reload(ctx context.Context, apply func(context.Context, Config) error, now fileStates) {
	r.tried, r.seen, r.retryAt = now, now, time.Time{}
	fresh, problems := r.read(now)
	if len(problems) > 0 {
		for _, p := range problems {
			r.refuse(p)
		}
		return
	}
	next, changed, waiting := r.inForce.take(fresh)
	// Both are kept out of the log: requests that run still use the old ones.
	r.control.hide(r.inForce, fresh)
	applying, cancel := context.WithTimeout(ctx, applyWait)
	defer cancel()
	if err := apply(applying, next); err != nil {
		if ctx.Err() == nil {
			r.retryAt = time.Now().Add(retryEvery)
			r.refuse(err.Error())
		}
		return
	}
	before := r.inForce
	r.inForce, r.good = next, now
	// The lines are written at the more talkative of the two levels.
	level := r.control.openFor(next.Log.Level)
	r.log.Info("configuration reloaded", zap.Strings("changed", changed))
	if n := dropped(before, next); n > 0 {
		r.log.Warn("keys that were taken from auth.allowed_keys stay valid: end them with revoke-key", zap.Int("keys", n))
	}
	if len(waiting) > 0 {
		r.log.Warn("changed settings need a restart", zap.Strings("settings", waiting))
	}
	r.control.level.SetLevel(level)
}

func (r *reloader) refuse(why string) {
	r.log.Error("configuration not reloaded", zap.String("error", why))
}

// read loads the configuration and says what is wrong with it, as a whole and
// for a gateway that runs.
func (r *reloader) read(now fileStates) (Config, mistakes) {
	if problems := append(now.lost(r.good), now.unusable()...); len(problems) > 0 {
		return Config{}, problems
	}
	fresh, _, err := loadOrigins(r.src)
	if err != nil {
		return Config{}, mistakesOf(err)
	}
	// What waits for a restart must not contradict what does not.
	next, _, _ := r.inForce.take(fresh)
	return fresh, next.conflicts(nil)
}
