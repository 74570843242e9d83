// Command llm-gateway turns Envoy into a gateway for large language models with
// API keys, rate limits and exact token billing.
// It is where the rooms meet: it reads configuration, builds the log and hands
// each room its options; it knows no rule of limiting, metering or billing.
//
// The program is [run]: arguments, environment and streams in, exit code out.
// Nothing else in this package touches os.Args, the environment or the standard
// streams, so that every command is tested the way a person calls it.
//
//   - main.go, run.go, errors.go: the process, the command tree, the exit codes
//   - config.go, settings.go, sources.go, env.go, secret.go: configuration
//   - options.go: configuration as the options of each room
//   - log.go: the log and the names of its fields
//   - key.go, keyview.go, usage.go, audit.go, check.go: the commands
//   - table.go: tables and numbers for people, JSON for programs
package main
