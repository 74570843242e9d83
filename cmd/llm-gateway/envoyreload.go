package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// envoyReloader asks for a hot restart of Envoy when somebody sends SIGHUP, and
// when the configuration's files or Envoy's program have changed. What is wrong
// changes nothing.
type envoyReloader struct {
	app      *app
	files    func() fileStates // of the configuration, as they are now
	load     func() (Config, origins, error)
	sidecars *sidecarFlags
	run      envoyRun
	hangups  hangups
	stop     context.CancelFunc // ends Envoy

	asked revision   // last asked for
	good  fileStates // of the files when it was rendered
	tried watched    // at the last attempt
	seen  watched    // at the last look
}

// revision is what makes one Envoy differ from the next.
type revision struct {
	program programState
	config  []byte
	drain   time.Duration
}

// watched is everything that an automatic hot restart may come from.
type watched struct {
	files   fileStates
	program programState
}

func (w watched) equal(v watched) bool {
	return maps.Equal(w.files, v.files) && w.program == v.program
}

// programState tells one build of a program from another without reading it.
type programState struct {
	path     string
	size     int64
	modified int64 // nanoseconds of Unix time
	mode     fs.FileMode
	inode    uint64
}

func lookAtProgram(path string) programState {
	s := programState{path: path}
	if info, err := os.Stat(path); err == nil {
		s.size, s.modified, s.mode = info.Size(), info.ModTime().UnixNano(), info.Mode()
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			s.inode = stat.Ino
		}
	}
	return s
}

// newEnvoyReloader is for an Envoy that starts with config. The files are as they
// were before the configuration was read from them.
func newEnvoyReloader(app *app, src sources, files fileStates, hangups hangups, sidecars *sidecarFlags, run envoyRun, config []byte, stop context.CancelFunc) *envoyReloader {
	now := watched{files, lookAtProgram(run.binary.Path)}
	return &envoyReloader{
		app: app, files: func() fileStates { return lookAtFiles(src) },
		load:     func() (Config, origins, error) { return loadOrigins(src) },
		sidecars: sidecars, run: run, hangups: hangups, stop: stop,
		asked: revision{now.program, config, run.c.Envoy.Drain}, good: files, tried: now, seen: now,
	}
}

func (r *envoyReloader) look() watched {
	return watched{r.files(), lookAtProgram(r.asked.program.path)}
}

// watch sends what is to take over to revisions until ctx ends.
func (r *envoyReloader) watch(ctx context.Context, revisions chan<- envoy.Revision) {
	r.hangups.obey(ctx, r.run.log, r.stop, func() { r.restart(ctx, r.look(), true, revisions) }, func() {
		now := r.look()
		steady := now.equal(r.seen)
		r.seen = now
		if steady && !now.equal(r.tried) {
			r.restart(ctx, now, false, revisions)
		}
	})
}

// restart renders and checks the configuration, and asks for a hot restart when
// that was wanted by a person, or when something differs.
func (r *envoyReloader) restart(ctx context.Context, now watched, wanted bool, revisions chan<- envoy.Revision) {
	r.tried, r.seen = now, now
	next, problems := r.render(ctx, now.files)
	for _, p := range problems {
		r.run.log.Error("envoy not replaced, the one that runs goes on", zap.String("error", p))
	}
	if len(problems) > 0 {
		return
	}
	r.good = now.files
	if !wanted && next.program == r.asked.program && next.drain == r.asked.drain && bytes.Equal(next.config, r.asked.config) {
		return
	}
	r.asked = next
	r.tried.program, r.seen.program = next.program, next.program // it may be at another path
	select {
	case revisions <- envoy.Revision{Binary: next.program.path, Config: next.config, DrainTime: next.drain}:
	case <-ctx.Done():
	}
}

func (r *envoyReloader) render(ctx context.Context, files fileStates) (next revision, problems mistakes) {
	if problems := append(files.lost(r.good), files.unusable()...); len(problems) > 0 {
		return next, problems
	}
	c, from, err := r.load()
	if err != nil {
		return next, mistakesOf(err)
	}
	if err := c.certificates(from, true).asError(); err != nil {
		return next, mistakesOf(err)
	}
	if c.Data != r.run.c.Data {
		return next, mistakes{fmt.Sprintf("%s: another data directory takes a restart of the service", from.of("data"))}
	}
	run := r.run
	run.c = c
	o, err := r.sidecars.options(c)
	if err != nil {
		return next, mistakesOf(err)
	}
	if run.binary, err = findEnvoy(r.app, c); err != nil {
		return next, mistakesOf(err)
	}
	program := lookAtProgram(run.binary.Path)
	config, err := run.bootstrap(o)
	if err != nil {
		return next, mistakesOf(err)
	}
	if err := envoy.Validate(ctx, program.path, config); err != nil {
		return next, mistakesOf(err)
	}
	return revision{program, config, c.Envoy.Drain}, nil
}

// mistakesOf makes a line of each mistake.
func mistakesOf(err error) mistakes {
	if wrong := mistakes(nil); errors.As(err, &wrong) {
		return wrong
	}
	return mistakes{err.Error()}
}
