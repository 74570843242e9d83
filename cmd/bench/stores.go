package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// host lets the rig's servers, which are made for tests, run in the benchmark.
type host struct {
	testing.TB // never asked: what the rig calls is below

	dir  string
	ends []func()
}

// Helper implements what the rig uses of testing.TB.
func (*host) Helper() {}

// Cleanup implements what the rig uses of testing.TB.
func (h *host) Cleanup(f func()) { h.ends = append(h.ends, f) }

// TempDir implements what the rig uses of testing.TB.
func (h *host) TempDir() string {
	dir, err := os.MkdirTemp(h.dir, "store")
	if err != nil {
		h.Fatal(err)
	}
	return dir
}

// Fatal implements what the rig uses of testing.TB.
func (*host) Fatal(args ...any) { panic(failure{fmt.Errorf("%s", fmt.Sprint(args...))}) }

// Fatalf implements what the rig uses of testing.TB.
func (h *host) Fatalf(format string, args ...any) { h.Fatal(fmt.Sprintf(format, args...)) }

// Skip implements what the rig uses of testing.TB: a benchmark that was asked
// for cannot be skipped.
func (h *host) Skip(args ...any) { h.Fatal(args...) }

func (h *host) end() {
	for i := len(h.ends) - 1; i >= 0; i-- {
		h.ends[i]()
	}
}

// failure carries an error out of the rig's Fatal.
type failure struct{ err error }

// stores starts what a candidate keeps its limits and books in, and returns
// the environment that names it.
func (r *running) stores(name string) (env []string, err error) {
	defer func() {
		if f, ok := recover().(failure); ok {
			err = f.err
		}
	}()
	r.host = &host{dir: r.dir}
	if name == "redis" || name == "postgres" {
		redis := rig.StartRedis(r.host)
		r.storeProcesses = append(r.storeProcesses, redis.Process)
		env = append(env, "REDIS_URL=redis://"+redis.Addr)
	}
	if name == "postgres" {
		postgres := rig.StartPostgres(r.host)
		r.storeProcesses = append(r.storeProcesses, postgres.Process)
		env = append(env, "DATABASE_URL="+postgres.NewDatabase())
	}
	return env, nil
}
