package envoy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// ErrRunning says that another process supervises an Envoy in this run folder.
var ErrRunning = errors.New("a gateway is already running with this data directory")

func pidPath(runDir string) string { return filepath.Join(runDir, "envoy.pid") }

// EndStale ends an Envoy that outlived its supervisor: the processes
// in the pid file in runDir, when they are Envoys that were started with a
// configuration in runDir. Process ids are reused: any other process is left
// alone. Nothing to do is no error; a living supervisor is [ErrRunning].
func EndStale(runDir string, log *zap.Logger) error {
	if _, err := os.Stat(runDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := lockRunDir(runDir)
	if err != nil {
		return err
	}
	defer unlock()
	defer sweepLineages(runDir, sharedMemoryDir)
	text, err := os.ReadFile(pidPath(runDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Envoy's pid file: %w", err)
	}
	for _, word := range strings.Fields(string(text)) { // two in the middle of a hot restart
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			if err := endStale(pid, runDir, log); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(pidPath(runDir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove Envoy's pid file: %w", err)
	}
	return nil
}

func endStale(pid int, runDir string, log *zap.Logger) error {
	// The handle is taken before the look: where the kernel has pidfds, it
	// cannot come to mean another process in between.
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil // gone
	}
	defer func() { _ = p.Release() }()
	if !isOurEnvoy(commandLine(pid), runDir) {
		return nil
	}
	if log != nil {
		log.Warn("ending an Envoy that outlived its gateway", zap.Int("pid", pid))
	}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = p.Signal(s)
		for deadline := time.Now().Add(killAfter); time.Now().Before(deadline); time.Sleep(drainPoll) {
			if !isOurEnvoy(commandLine(pid), runDir) { // a zombie has no command line
				return nil
			}
		}
	}
	return fmt.Errorf("an Envoy (process %d) of an earlier run does not end; end it by hand", pid)
}

// isOurEnvoy recognises what [RunOptions] starts: a program called envoy with
// a configuration in runDir.
func isOurEnvoy(args []string, runDir string) bool {
	programs := args[:min(2, len(args))] // an interpreter may stand before it
	named := false
	for _, a := range programs {
		named = named || strings.Contains(filepath.Base(a), "envoy")
	}
	for i, a := range args {
		if a == "--config-path" && i+1 < len(args) && filepath.Dir(args[i+1]) == filepath.Clean(runDir) {
			return named
		}
	}
	return false
}

// lockRunDir makes its caller the only supervisor of a run folder. The kernel
// releases the lock with its process, however that ends.
func lockRunDir(runDir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(runDir, "envoy.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock Envoy's run folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrRunning
		}
		return nil, fmt.Errorf("lock Envoy's run folder: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
