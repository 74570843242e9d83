package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker (-X main.version=…); empty means that the build
// information of the module says it.
var version string

// app is one call of the program: what a command may use of the world outside.
type app struct {
	env    []string // NAME=value, as os.Environ gives it
	stdin  io.Reader
	stdout io.Writer // results
	stderr io.Writer // messages and the log
	now    func() time.Time

	data       string // --data
	configFile string // --config
	json       bool   // --json: one JSON document on stdout, nothing else

	// started is set when cobra has accepted the command line. An error before
	// that is a mistake in the call (exit 2), one after it is a failure (exit 1).
	started bool
}

// run is the whole program. It returns the exit code: 0 done, 1 failed or
// refused, 2 wrong usage.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: env, stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	return a.report(cmd, err)
}

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "llm-gateway",
		Short: "Envoy as an LLM gateway with API keys, rate limits and exact token billing",
		Long: `llm-gateway puts API keys, rate limits and exact token billing in front of an
OpenAI-compatible server. Envoy carries the traffic, this program decides.

Start with:   llm-gateway up
Make a key:   llm-gateway create-key --limit 100000

Settings come from a YAML file (--config), .env in the working directory, the
environment, and flags; what comes later wins. Results go to stdout, messages to
stderr. Exit codes: 0 done, 1 failed or refused, 2 wrong usage.`,
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(a.stderr)
			_ = cmd.Help() // the exit code already says that nothing was done
			return errNoCommand
		},
		PersistentPreRun: func(*cobra.Command, []string) { a.started = true },
	}
	root.SetVersionTemplate("llm-gateway {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	flags := root.PersistentFlags()
	flags.StringVar(&a.data, "data", "", "data `directory` (default ./data)")
	flags.StringVar(&a.configFile, "config", "", "YAML configuration `file`")
	flags.BoolVar(&a.json, "json", false, "print one JSON document on stdout, nothing else")
	for _, group := range []cobra.Group{
		{ID: groupGateway, Title: "Gateway:"},
		{ID: groupKeys, Title: "Keys:"},
		{ID: groupTariffs, Title: "Tariffs:"},
		{ID: groupBooks, Title: "Books:"},
		{ID: groupPrices, Title: "Prices:"},
	} {
		root.AddGroup(&group)
	}
	addGroup(root, groupGateway, newUpCommand(a), newServeCommand(a), newEnvoyCommand(a), newEnvoyConfigCommand(a), newCheckCommand(a), newHealthcheckCommand(a))
	addGroup(root, groupKeys, newCreateKeyCommand(a), newListKeysCommand(a), newShowKeyCommand(a),
		newSetLimitCommand(a), newSetModelsCommand(a), newSetKeyCommand(a), newRotateKeyCommand(a),
		newBlockKeyCommand(a), newUnblockKeyCommand(a), newRevokeKeyCommand(a), newImportKeysCommand(a))
	addGroup(root, groupTariffs, newListTariffsCommand(a), newSetTariffCommand(a), newRemoveTariffCommand(a))
	addGroup(root, groupPrices, newListPricesCommand(a), newSetPriceCommand(a), newSimulateTariffCommand(a))
	addGroup(root, groupBooks, newUsageCommand(a), newStatsCommand(a), newHistoryCommand(a), newAuditCommand(a), newReconcileCommand(a),
		newBackupCommand(a), newRestoreCommand(a), newRebuildCountersCommand(a))
	root.AddCommand(newCompletionCommand(a))
	_ = a.completeValues(root) // a test sees to it that it does not fail
	return root
}

const (
	groupGateway = "gateway"
	groupKeys    = "keys"
	groupTariffs = "tariffs"
	groupBooks   = "books"
	groupPrices  = "prices"
)

// addGroup adds commands that take options only. A stray argument may be a key
// that lost its --key, so the refusal does not repeat it.
func addGroup(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = group
		c.Args = noArguments
		root.AddCommand(c)
	}
}

// config reads the configuration for a command.
func (a *app) config(cmd *cobra.Command) (Config, error) { return loadConfig(a.sources(cmd)) }

// sources are where the configuration of a command comes from: YAML file, .env,
// environment, and those flags of cmd that were given.
func (a *app) sources(cmd *cobra.Command) sources {
	given := make(map[string]string)
	for _, s := range settings() {
		if s.flag == "" {
			continue
		}
		if f := cmd.Flags().Lookup(s.flag); f != nil && f.Changed {
			given[s.path] = f.Value.String()
		}
	}
	return sources{file: a.configFile, dir: ".", env: a.env, flags: given}
}

// printJSON writes the one document of a --json call.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// printf writes a line of a result to stdout.
func (a *app) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.stdout, format, args...); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// message writes one line to stderr, under the program's name.
func (a *app) message(text string) {
	_, _ = fmt.Fprintf(a.stderr, "llm-gateway: %s\n", text) // nobody is left to tell
}

// getenv returns a variable of the call's environment, "" when it is not set.
// The last of several wins, as in a shell.
func (a *app) getenv(name string) string {
	value := ""
	for _, kv := range a.env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			value = v
		}
	}
	return value
}

// buildVersion says which build this is: the linker's word, else the module's.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}
