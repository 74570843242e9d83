package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ErrNoEnvoy reports that no Envoy was found.
var ErrNoEnvoy = errors.New("no Envoy: set ENVOY_PATH, put envoy on PATH, or run deploy/install-envoy.sh")

// FindEnvoy looks where the product looks: ENVOY_PATH, PATH, the cache.
func FindEnvoy() (string, error) {
	if p := os.Getenv("ENVOY_PATH"); p != "" {
		return executable(p)
	}
	if p, err := exec.LookPath("envoy"); err == nil {
		return p, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoEnvoy, err)
	}
	p, err := executable(filepath.Join(cache, "llm-gateway", "envoy-1.40.0", "envoy"))
	if err != nil {
		return "", fmt.Errorf("%w (%w)", ErrNoEnvoy, err)
	}
	return p, nil
}

// FindGateway returns the binary under test: LLMGW_BIN, else fallback.
func FindGateway(fallback string) (string, error) {
	p := os.Getenv("LLMGW_BIN")
	if p == "" {
		p = fallback
	}
	p, err := filepath.Abs(p)
	if err != nil {
		return "", err
	}
	return executable(p)
}

func executable(p string) (string, error) {
	info, err := os.Stat(p) //nolint:gosec // whoever runs the tests names the program
	switch {
	case err != nil:
		return "", err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return "", fmt.Errorf("%s is not executable", p)
	}
	return p, nil
}
