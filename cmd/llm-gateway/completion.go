package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
)

// newCompletionCommand stands in the place of cobra's own, which repeats stray
// arguments in its errors.
func newCompletionCommand(a *app) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the script that completes commands in a shell",
		Long: `Print the script that lets a shell complete commands, options and their values;
--key completes to the ids of the keys in the books. It needs neither books nor a
configuration.`,
		Example: `  source <(llm-gateway completion bash)
  llm-gateway completion bash > /etc/bash_completion.d/llm-gateway
  llm-gateway completion zsh > "${fpath[1]}/_llm-gateway"
  llm-gateway completion fish > ~/.config/fish/completions/llm-gateway.fish
  llm-gateway completion powershell | Out-String | Invoke-Expression`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return shells, cobra.ShellCompDirectiveNoFileComp
		},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return usagef("completion: name one shell: bash, zsh, fish or powershell")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var script bytes.Buffer
			if err := writeCompletion(cmd.Root(), args[0], &script); err != nil {
				return fmt.Errorf("make the script: %w", err)
			}
			if a.json {
				return a.printJSON(map[string]string{"shell": args[0], "script": script.String()})
			}
			return a.printf("%s", script.String())
		},
	}
}

func writeCompletion(root *cobra.Command, shell string, to io.Writer) error {
	switch shell {
	case "bash":
		return root.GenBashCompletionV2(to, true)
	case "zsh":
		return root.GenZshCompletion(to)
	case "fish":
		return root.GenFishCompletion(to, true)
	}
	return root.GenPowerShellCompletionWithDesc(to)
}

// completeValues says what the values of options can be. What the help calls a
// file or a directory is completed as one, and nothing else is: a shell that
// proposes files for a limit is of no help.
func (a *app) completeValues(root *cobra.Command) error {
	values := map[string]cobra.CompletionFunc{
		"by":  completeColumns,
		"for": cobra.FixedCompletions(envoyConfigKinds(), cobra.ShellCompDirectiveNoFileComp),
		"key": a.completeKeys,
	}
	var failed error
	for _, cmd := range append(root.Commands(), root) {
		if cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = cobra.NoFileCompletions // commands take options only
		}
		register := func(f *pflag.Flag) {
			kind, _ := pflag.UnquoteUsage(f)
			complete := values[f.Name]
			switch {
			case complete != nil:
			case f.Value.Type() == "bool", kind == "file":
				return
			case kind == "directory":
				complete = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
					return nil, cobra.ShellCompDirectiveFilterDirs
				}
			default:
				complete = cobra.NoFileCompletions
			}
			if err := cmd.RegisterFlagCompletionFunc(f.Name, complete); err != nil {
				failed = err
			}
		}
		cmd.LocalNonPersistentFlags().VisitAll(register)
		cmd.PersistentFlags().VisitAll(register)
	}
	return failed
}

// completeColumns completes a list of columns, separated by commas.
func completeColumns(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	done := ""
	if at := strings.LastIndexByte(typed, ','); at >= 0 {
		done = typed[:at+1]
	}
	var lists []cobra.Completion
	for _, column := range api.UsageColumns() {
		if !slices.Contains(strings.Split(done, ","), column) {
			lists = append(lists, done+column)
		}
	}
	return lists, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completionWait is how long somebody who pressed tab waits for the books.
const completionWait = time.Second

// completeKeys completes to the ids of keys. Whatever is wrong, it proposes
// nothing and says nothing: the command itself will.
func (a *app) completeKeys(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := a.config(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionWait)
	defer cancel()
	keys, err := billing.KeyNames(ctx, c.billingOptions(zap.NewNop()))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []cobra.Completion
	for _, k := range keys {
		name := printable(k.Name)
		if k.Revoked {
			name = strings.TrimSpace(name + " (revoked)")
		}
		if strings.HasPrefix(k.ID, typed) {
			ids = append(ids, cobra.CompletionWithDesc(k.ID, name))
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
