package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const (
	systemdFolder = "../../deploy/systemd/"
	installedAt   = "/usr/local/bin/llm-gateway"
	// exposureLimit is what `systemd-analyze security` may say at most, in tenths;
	// 96 is a unit that says nothing.
	exposureLimit = "15"
)

var unitNames = []string{"llm-gateway.service", "llm-gateway-serve.service", "llm-gateway-envoy.service"}

// systemd reads the units, and finds little in them that the services may do
// and need not.
func TestSystemdUnits(t *testing.T) {
	analyze := rig.Tool(t, "systemd-analyze")
	dir := t.TempDir()
	program := filepath.Join(dir, "llm-gateway") // what is not installed is an error to systemd
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range unitNames {
		unit := string(readFile(t, systemdFolder+name))
		for _, problem := range unitProblems(unit) {
			t.Errorf("%s: %s", name, problem)
		}
		paths = append(paths, write(t, dir, name, strings.ReplaceAll(unit, installedAt, program)))
	}
	verify := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), analyze, append([]string{"--no-pager"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(append([]string{"verify"}, paths...)...); err != nil || strings.Contains(out, dir) {
		t.Errorf("%v\n%s", err, out)
	}
	for _, path := range paths {
		if out, err := verify("security", "--offline=true", "--threshold="+exposureLimit, path); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	// The analyzer can tell: a name that is none, a unit that may do more.
	unit := string(readFile(t, paths[0]))
	odd := write(t, dir, "odd.service", strings.Replace(unit, "ProtectHome=", "ProtectHomes=", 1))
	if out, _ := verify("verify", odd); !strings.Contains(out, "ProtectHomes") {
		t.Errorf("an unknown name is not noticed: %s", out)
	}
	weak := write(t, dir, "weak.service", strings.Replace(unit, "CapabilityBoundingSet=\n", "", 1))
	if out, err := verify("security", "--offline=true", "--threshold="+exposureLimit, weak); err == nil {
		t.Errorf("a unit with capabilities passes:\n%s", out)
	}
}

func TestSystemdUnits_problems(t *testing.T) {
	unit := string(readFile(t, systemdFolder+unitNames[1]))
	for _, c := range []struct{ old, fresh, want string }{
		{" serve --data", " server --data", "runs no command of ours"},
		{"--http unix", "--https unix", "runs no command of ours"},
		{"TimeoutStopSec=60s", "TimeoutStopSec=10s", "TimeoutStopSec"},
		{"User=llm-gateway", "User=root", "User=llm-gateway is missing"},
		{"NoNewPrivileges=yes", "NoNewPrivileges=no", "NoNewPrivileges=yes is missing"},
		{"WorkingDirectory=/\n", "", "WorkingDirectory=/ is missing"},
	} {
		changed := strings.Replace(unit, c.old, c.fresh, 1)
		if got := strings.Join(unitProblems(changed), "\n"); changed == unit || !strings.Contains(got, c.want) {
			t.Errorf("%q instead of %q: %q, want %q", c.fresh, c.old, got, c.want)
		}
	}
}

var execStart = regexp.MustCompile(`(?m)^ExecStart=(.*)$`)

// unitProblems is what systemd cannot know.
func unitProblems(unit string) []string {
	var wrong complaints
	start := execStart.FindStringSubmatch(unit)
	if start == nil {
		return []string{"no ExecStart"}
	}
	words := strings.Fields(start[1])
	wrong.when(words[0] != installedAt || !isCommand(words[1:]), "runs no command of ours: %q", words)
	for _, line := range []string{
		"User=llm-gateway", "EnvironmentFile=/etc/llm-gateway/llm-gateway.env", "WorkingDirectory=/",
		"NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "Restart=on-failure",
	} {
		wrong.when(!strings.Contains(unit, "\n"+line+"\n"), "%s is missing", line)
	}
	// The books are closed after the answers have ended.
	wrong.when(!strings.Contains(unit, fmt.Sprintf("\nTimeoutStopSec=%.0fs\n", 2*Default().Envoy.Drain.Seconds())), "TimeoutStopSec must be twice the drain time")
	return wrong
}

// The environment file is read by systemd: names and values, no shell.
func TestSystemdEnvironmentFile(t *testing.T) {
	assignment := regexp.MustCompile(`^#?([A-Z][A-Z0-9_]*)=(\S*)$`)
	for line := range strings.Lines(string(readFile(t, systemdFolder+"llm-gateway.env"))) {
		line = strings.TrimSpace(line)
		match := assignment.FindStringSubmatch(line)
		switch {
		case line == "", match == nil && strings.HasPrefix(line, "# "):
		case match == nil:
			t.Errorf("%q is no assignment", line)
		case !slices.Contains(envNames(), match[1]) && match[1] != "LLMGW_CONFIG":
			t.Errorf("%s is no setting", match[1])
		}
	}
}

func TestSystemdUser(t *testing.T) {
	sysusers := rig.Tool(t, "systemd-sysusers")
	root := t.TempDir() // this machine may have the user
	folder := filepath.Join(root, "etc/sysusers.d")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, folder, "llm-gateway.conf", string(readFile(t, systemdFolder+"llm-gateway.sysusers.conf")))
	out, err := exec.CommandContext(t.Context(), sysusers, "--dry-run", "--root="+root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "user 'llm-gateway'") {
		t.Errorf("%v\n%s", err, out)
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
