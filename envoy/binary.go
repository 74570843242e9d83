package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// Version is the Envoy that deploy/install-envoy.sh installs.
	Version = "1.40.0"
	// MinVersion is the oldest Envoy on PATH that is used; its patch number
	// does not count.
	MinVersion = "1.40.0"
)

// ErrNotFound says that there is no usable Envoy.
var ErrNotFound = errors.New("no Envoy " + MinVersion + " or newer found; run `make build` or deploy/install-envoy.sh, or set ENVOY_PATH")

// versionTimeout bounds a program that is called envoy and is none.
const versionTimeout = 10 * time.Second

// Binary is an Envoy program.
type Binary struct {
	Path    string // absolute
	Version string // major.minor.patch
}

// Find returns an Envoy: explicit when that is not empty (one that cannot be
// used is an error, not passed over), then "envoy" on the search path pathEnv,
// then the cache below cacheDir. Errors wrap [ErrNotFound].
func Find(explicit, pathEnv, cacheDir string) (Binary, error) {
	if explicit != "" {
		b, err := inspect(explicit)
		if err != nil {
			return Binary{}, fmt.Errorf("Envoy at %s: %w (%w)", explicit, err, ErrNotFound) //nolint:staticcheck // Envoy is a name
		}
		return b, nil
	}
	var passedOver []error
	for _, dir := range filepath.SplitList(pathEnv) {
		if dir == "" {
			continue // the working directory is no place for programs
		}
		path := filepath.Join(dir, "envoy")
		if !isProgram(path) {
			continue
		}
		b, err := inspect(path)
		if err == nil {
			return b, nil
		}
		passedOver = append(passedOver, fmt.Errorf("passed over %s: %w", path, err))
	}
	if cacheDir != "" {
		if path := CachePath(cacheDir); isProgram(path) {
			b, err := inspect(path)
			if err == nil {
				return b, nil
			}
			passedOver = append(passedOver, fmt.Errorf("passed over %s: %w", path, err))
		}
	}
	if len(passedOver) > 0 {
		return Binary{}, fmt.Errorf("%w (%w)", ErrNotFound, errors.Join(passedOver...))
	}
	return Binary{}, ErrNotFound
}

// CachePath is where deploy/install-envoy.sh keeps its Envoy below a cache
// directory such as ~/.cache.
func CachePath(cacheDir string) string {
	return filepath.Join(cacheDir, "llm-gateway", "envoy-"+Version, "envoy")
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// versionLine is what `envoy --version` prints: program, "version:", then
// commit/version/state/build/TLS library.
var versionLine = regexp.MustCompile(`version: [^/\s]*/(\d+)\.(\d+)\.(\d+)`)

func inspect(path string) (Binary, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Binary{}, err
	}
	if !isProgram(path) {
		return Binary{}, errors.New("not an executable file")
	}
	ctx, cancel := context.WithTimeout(context.Background(), versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = childEnv()
	cmd.WaitDelay = time.Second // a wrapper's child may keep the pipe open
	out, err := cmd.Output()
	m := versionLine.FindStringSubmatch(string(out))
	switch {
	case err != nil:
		return Binary{}, fmt.Errorf("ask its version: %w", err)
	case m == nil:
		return Binary{}, errors.New("it does not say an Envoy version")
	}
	b := Binary{Path: path, Version: strings.Join(m[1:], ".")}
	if !newEnough(m[1], m[2]) {
		return Binary{}, fmt.Errorf("version %s is older than %s", b.Version, MinVersion)
	}
	return b, nil
}

func newEnough(major, minor string) bool {
	wantMajor, rest, _ := strings.Cut(MinVersion, ".")
	wantMinor, _, _ := strings.Cut(rest, ".")
	have, want := [2]int{number(major), number(minor)}, [2]int{number(wantMajor), number(wantMinor)}
	return have[0] > want[0] || have[0] == want[0] && have[1] >= want[1]
}

// number reads digits; what does not fit is newer than anything we know.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 1 << 30
	}
	return n
}

// childEnv is all an Envoy gets of the environment: nothing of ours, where
// keys may be, but a search path for wrapper scripts and UTC for its logs.
func childEnv() []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "TZ=UTC0"}
}
