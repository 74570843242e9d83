package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is what fits into a Unix socket's address on every system we
// run on (104 bytes on BSD, 108 on Linux), less room for a temporary suffix.
const maxSocketPath = 90

// runFolder is where sockets and Envoy's run files are: DATA/run.
type runFolder struct{ path string }

// runFolderOf is DATA/run. Where the data directory's path is too long for a
// socket's address, it is a short one of our own.
func runFolderOf(data string) (runFolder, error) {
	abs, err := filepath.Abs(data)
	if err != nil {
		return runFolder{}, fmt.Errorf("find the data directory: %w", err)
	}
	run := filepath.Join(abs, "run")
	if len(filepath.Join(run, adminSocket)) <= maxSocketPath {
		return runFolder{run}, nil
	}
	sum := sha256.Sum256([]byte(abs))
	return runFolder{filepath.Join(os.TempDir(), fmt.Sprintf("llm-gateway-%d-%s", os.Getuid(), hex.EncodeToString(sum[:6])))}, nil
}

// newRunFolder makes the run folder; DATA/run is a link to it where it is
// elsewhere.
func newRunFolder(data string) (runFolder, error) {
	abs, err := filepath.Abs(data)
	if err != nil {
		return runFolder{}, fmt.Errorf("find the data directory: %w", err)
	}
	folder, err := runFolderOf(data)
	if err != nil {
		return runFolder{}, err
	}
	run, short := filepath.Join(abs, "run"), folder.path
	if run == short {
		return folder, ownFolder(run)
	}
	if err := ownFolder(short); err != nil {
		return runFolder{}, err
	}
	if err := ownFolder(abs); err != nil {
		return runFolder{}, err
	}
	if to, err := os.Readlink(run); err == nil && to == short {
		return runFolder{short}, nil
	}
	_ = os.Remove(run) // a link elsewhere; a folder with files in it stays and is reported
	if err := os.Symlink(short, run); err != nil {
		return runFolder{}, fmt.Errorf("make %s: %w", run, err)
	}
	return runFolder{short}, nil
}

// ownFolder makes a folder that only we may enter, and refuses somebody
// else's: in a shared place such as /tmp it could be a trap.
func ownFolder(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("own %s: %w", path, err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() {
		return fmt.Errorf("%s is not a folder of this user: move it away, or choose another data directory", path)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("own %s: %w", path, err)
	}
	return nil
}

func (f runFolder) file(name string) string   { return filepath.Join(f.path, name) }
func (f runFolder) socket(name string) string { return "unix://" + f.file(name) }
