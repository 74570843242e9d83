package envoy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ErrNoHotRestart says that an Envoy cannot be replaced while it serves.
var ErrNoHotRestart = errors.New("no hot restart")

const (
	// sharedMemoryDir is where Linux keeps shared memory, and Envoy a few bytes
	// of it: without it Envoy ends at once unless hot restart is off.
	sharedMemoryDir = "/dev/shm"
	// hotSocket begins the names of the sockets in the run folder by which the
	// Envoys of a lineage talk.
	hotSocket = "hot"
	// maxBaseID keeps Envoy's own arithmetic (ten times it, plus the epoch) in
	// 31 bits.
	maxBaseID = 200_000_000
)

// lineage is Envoys that follow each other by hot restart. What they share is
// named by the number.
type lineage struct {
	baseID uint32
	epoch  int
}

func newLineage() lineage {
	return lineage{baseID: 1 + rand.Uint32N(maxBaseID)} //nolint:gosec // it keeps apart, it guards nothing
}

func (l lineage) next() lineage { return lineage{baseID: l.baseID, epoch: l.epoch + 1} }

// arguments of the Envoy at this place. It would end its predecessor if the
// supervisor did not do so before. It does not ask it for statistics: an Envoy
// whose predecessor does not answer ends itself.
func (l lineage) arguments(runDir string, drain time.Duration) []string {
	seconds := max(1, int64((drain+time.Second-1)/time.Second))
	return []string{
		"--base-id", strconv.FormatUint(uint64(l.baseID), 10), "--restart-epoch", strconv.Itoa(l.epoch),
		"--socket-path", filepath.Join(runDir, hotSocket), "--socket-mode", "600",
		"--skip-hot-restart-parent-stats", "--drain-strategy", "immediate", "--drain-time-s", strconv.FormatInt(seconds, 10),
		"--parent-shutdown-time-s", strconv.FormatInt(2*seconds+int64(killAfter/time.Second), 10), // see retire
	}
}

// maxEpochs is how many sockets of a lineage there are, one for each Envoy that
// may be there at a time.
const maxEpochs = 3

// parentSocket is where the Envoy at this place is talked to by its successor.
func (l lineage) parentSocket(runDir string) string {
	return filepath.Join(runDir, fmt.Sprintf("%s_parent_%d", hotSocket, uint64(l.baseID)*10+uint64(l.epoch%maxEpochs))) //nolint:gosec // it counts from 0
}

// silentSocket takes the place of the socket of an Envoy that ends, until it is
// closed. The successor will tell that one to end, when its time is over or
// before its own successor starts, and would end itself if nobody were there.
func silentSocket(path string) (io.Closer, error) {
	fresh := path + ".end"
	_ = os.Remove(fresh)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fresh, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("stand in for an Envoy that ends: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, errors.Join(fmt.Errorf("stand in for an Envoy that ends: %w", err), conn.Close())
	}
	return conn, nil
}

func sharedMemoryPath(dir string, baseID uint32) string {
	return filepath.Join(dir, fmt.Sprintf("envoy_shared_memory_%d", uint64(baseID)*10))
}

// canShareMemory says why there can be no hot restart here.
func canShareMemory(dir string) error {
	f, err := os.CreateTemp(dir, "llm-gateway-")
	if err != nil {
		return fmt.Errorf("%w: Envoy needs shared memory: %w", ErrNoHotRestart, err)
	}
	_ = f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("%w: Envoy needs shared memory: %w", ErrNoHotRestart, err)
	}
	return nil
}

// sweepLineages removes what Envoy leaves behind of all lineages of a run
// folder. It is for a moment when none of them will have a successor.
func sweepLineages(runDir, sharedDir string) {
	files, err := os.ReadDir(runDir)
	if err != nil {
		return // nothing was left
	}
	for _, f := range files {
		name := f.Name()
		n, err := strconv.ParseUint(name[strings.LastIndex(name, "_")+1:], 10, 32)
		if err != nil || !strings.HasPrefix(name, hotSocket+"_") {
			continue
		}
		_ = os.Remove(sharedMemoryPath(sharedDir, uint32(n/10))) // the first of several removes it
		_ = os.Remove(filepath.Join(runDir, name))
	}
}

var hotVersion = regexp.MustCompile(`^[0-9]+\.[0-9]+$`)

// hotRestartVersion asks an Envoy which others it can take over from: those
// that say the same.
func hotRestartVersion(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--hot-restart-version")
	cmd.Env = childEnv()
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput() // it is on standard error
	version := strings.TrimSpace(string(out))
	if err == nil && !hotVersion.MatchString(version) {
		err = errors.New("no version")
	}
	if err != nil {
		return "", fmt.Errorf("%w: %s --hot-restart-version: %w", ErrNoHotRestart, program, err)
	}
	return version, nil
}

// What Envoy's shared memory begins and ends with, in the version we know.
const (
	knownHotRestart = "11.104" // version and size
	initializing    = 1        // the flag in the last word: an Envoy is starting
)

// forgetStart lets a lineage be continued whose last Envoy died while it
// started: nobody takes its mark from the shared memory, and until then Envoy
// starts no other ("previous envoy process is still initializing").
func forgetStart(path, version string) error {
	if version != knownHotRestart {
		return fmt.Errorf("%w: hot restart version %q is unknown", ErrNoHotRestart, version)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoHotRestart, err)
	}
	defer f.Close()
	const size, words = 104, 8
	b := make([]byte, size+1)
	n, _ := f.ReadAt(b, 0) // what is too short is seen by n
	if n != size || binary.NativeEndian.Uint64(b) != size || binary.NativeEndian.Uint64(b[words:]) != 11 ||
		binary.NativeEndian.Uint64(b[size-words:])&^initializing != 0 {
		return fmt.Errorf("%w: %s is not as expected", ErrNoHotRestart, path)
	}
	if _, err := f.WriteAt(make([]byte, words), size-words); err != nil {
		return fmt.Errorf("%w: %w", ErrNoHotRestart, err)
	}
	return nil
}
