package envoy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ErrConfig says that Envoy does not accept a configuration.
var ErrConfig = errors.New("envoy refuses the configuration")

// validateTimeout is generous: the first start of a binary of 100 MB reads it
// from disk.
const validateTimeout = 60 * time.Second

// Validate has Envoy itself read a configuration without starting it. The
// error wraps [ErrConfig] and carries Envoy's reason.
func Validate(ctx context.Context, binary string, configYAML []byte) error {
	dir, err := os.MkdirTemp("", "llm-gateway-validate-") // 0700
	if err != nil {
		return fmt.Errorf("validate Envoy configuration: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, configYAML, 0o600); err != nil {
		return fmt.Errorf("validate Envoy configuration: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--mode", "validate", "--disable-hot-restart", "--log-level", "warning", "--config-path", file)
	cmd.Env = childEnv()
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("validate Envoy configuration: %w", ctx.Err())
	case errors.As(err, &exit):
		reason := reasonOf(strings.Split(string(out), "\n"))
		return fmt.Errorf("%w: %s", ErrConfig, strings.ReplaceAll(reason, file, "envoy.yaml"))
	case err != nil:
		return fmt.Errorf("validate Envoy configuration: %w", err)
	}
	return nil
}
