package main

import (
	"bytes"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/billing"
)

// proposals are what a shell would be told for a command line, and the
// directive that ends it.
func proposals(t *testing.T, env []string, line ...string) (lines []string, directive string) {
	t.Helper()
	var out bytes.Buffer
	if code := run(t.Context(), append([]string{cobra.ShellCompRequestCmd}, line...), env, nil, &out, io.Discard); code != 0 {
		t.Fatalf("%q: exit code %d", line, code)
	}
	lines = strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

const (
	files    = ":0"
	noFiles  = ":4"
	moreWord = ":6" // no files, and no space after it
	folders  = ":16"
)

func TestCompletion_valuesOfOptions(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		line      string
		want      []string
		directive string
	}{
		{"usage --by |", []string{"day", "key", "model"}, moreWord},
		{"usage --by day,|", []string{"day,key", "day,model"}, moreWord},
		{"usage --by model,key,|", []string{"model,key,day"}, moreWord},
		{"envoy-config --for |", []string{"bootstrap", "static", "istio", "envoy-gateway"}, noFiles},
		{"backup --path |", nil, files},
		{"reconcile --file |", nil, files},
		{"import-keys --path=|", nil, files},
		{"usage --config |", nil, files},
		{"envoy-config --output |", nil, files},
		{"usage --data |", nil, folders},
		{"--data |", nil, folders},
		{"set-limit --limit |", nil, noFiles},
		{"usage --from |", nil, noFiles},
		{"usage |", nil, noFiles},
		{"completion |", []string{"bash", "zsh", "fish", "powershell"}, noFiles},
		{"completion bash |", nil, noFiles},
	} {
		words := strings.Split(strings.TrimSuffix(c.line, "|"), " ")
		got, directive := proposals(t, nil, words...)
		if diff := cmp.Diff(c.want, got); diff != "" && len(c.want)+len(got) > 0 || directive != c.directive {
			t.Errorf("%q: %s, want %s (-want +got):\n%s", c.line, directive, c.directive, diff)
		}
	}
}

func TestCompletion_keys(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	c := Default()
	c.Data = "books"
	books, err := billing.OpenAdmin(t.Context(), c.billingOptions(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = books.Close() }()
	one, secret, err := books.CreateKey(t.Context(), billing.NewKey{Name: "Team A\nsk-second-line\t\x1b[31m"})
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := books.CreateKey(t.Context(), billing.NewKey{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := books.Revoke(t.Context(), two.ID); err != nil {
		t.Fatal(err)
	}
	want := []string{one.ID + "\tTeam A\uFFFDsk-second-line\uFFFD\uFFFD[31m", two.ID + "\t(revoked)"}
	for _, line := range [][]string{
		{"show-key", "--data", "books", "--key", ""},
		{"set-limit", "--limit", "5", "--data=books", "--key", "key_"},
		{"revoke-key", "--data", "books", "--key="},
		{"rotate-key", "--data", "books", "--key", ""},
		{"usage", "--data", "books", "--key", ""},
	} {
		got, directive := proposals(t, nil, line...)
		if diff := cmp.Diff(want, got); diff != "" || directive != noFiles {
			t.Errorf("%q: %s (-want +got):\n%s", line, directive, diff)
		}
		if strings.Contains(strings.Join(got, ""), secret) {
			t.Errorf("%q gives a key away", line)
		}
	}
	if got, _ := proposals(t, nil, "show-key", "--data", "books", "--key", two.ID); !cmp.Equal(got, want[1:]) {
		t.Errorf("%q for the whole id", got)
	}

	// Nothing and silence where there are no ids to be had; nothing is made.
	for _, c := range []struct {
		env  []string
		data string
		word string
	}{
		{nil, "books", secret},
		{nil, "books", "sk-"},
		{nil, "nowhere", ""},
		{nil, ".", ""},
		{[]string{"RATE_LIMIT_REQUESTS=abc"}, "books", ""},
		{[]string{"DATABASE_URL=postgres://u:canary@127.0.0.1:1/db"}, "books", ""},
		{[]string{"LLMGW_CONFIG=missing.yaml"}, "books", ""},
	} {
		got, directive := proposals(t, c.env, "show-key", "--data", c.data, "--key", c.word)
		if len(got) > 0 || directive != noFiles {
			t.Errorf("%+v: %q, %s", c, got, directive)
		}
	}
	if made, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(made) != 1 {
		t.Errorf("there are %v now, %v", made, err)
	}
}

// Every option is thought of: with a file, a word, or nothing.
func TestCompletion_everyOption(t *testing.T) {
	root := newRootCommand(&app{stdout: io.Discard, stderr: io.Discard})
	for _, cmd := range root.Commands() {
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			kind, _ := pflag.UnquoteUsage(f)
			if _, known := cmd.GetFlagCompletionFunc(f.Name); !known && kind != "file" && f.Value.Type() != "bool" {
				t.Errorf("%s --%s is completed to any file", cmd.Name(), f.Name)
			}
		})
	}
}

// The script asks the program; so it is run, by the shell it is for.
func TestCompletion_bash(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("bash is needed to test its script: install it")
	}
	var script bytes.Buffer
	if code := run(t.Context(), []string{"completion", "bash"}, nil, nil, &script, io.Discard); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	complete := func(words ...string) []string {
		t.Helper()
		// What bash-completion's library does, which need not be there.
		const ask = `
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COLUMNS=80
compopt() { :; }
__start_llm-gateway
printf '%s\n' "${COMPREPLY[@]}"`
		cmd := exec.CommandContext(t.Context(), bash, append([]string{"--norc", "-c", script.String() + ask, "bash"}, words...)...)
		cmd.Dir = t.TempDir()
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", words, err)
		}
		var got []string
		for line := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			got = append(got, word)
		}
		return got
	}
	commands := complete("llm-gateway", "")
	for _, cmd := range newRootCommand(&app{stdout: io.Discard, stderr: io.Discard}).Commands() {
		if !cmd.Hidden && !slices.Contains(commands, cmd.Name()) {
			t.Errorf("%s is not proposed: %q", cmd.Name(), commands)
		}
	}
	if got := complete("llm-gateway", "revo"); !cmp.Equal(got, []string{"revoke-key"}) {
		t.Errorf("revo: %q", got)
	}
	if got := complete("llm-gateway", "set-limit", "--con"); !slices.Contains(got, "--concurrent") || !slices.Contains(got, "--config") {
		t.Errorf("--con: %q", got)
	}
}

func TestCompletion_scripts(t *testing.T) {
	t.Chdir(t.TempDir())
	for shell, mark := range map[string]string{
		"bash": "__start_llm-gateway", "zsh": "#compdef llm-gateway", "fish": "complete -c llm-gateway", "powershell": "Register-ArgumentCompleter",
	} {
		var out, messages bytes.Buffer
		// Neither books nor a configuration that can be read.
		code := run(context.Background(), []string{"completion", shell, "--config", "missing.yaml"}, []string{"LLMGW_NOTHING=x"}, nil, &out, &messages)
		if code != 0 || messages.Len() > 0 || !strings.Contains(out.String(), mark) {
			t.Errorf("%s: exit code %d, %q, no %q in %d bytes", shell, code, messages.String(), mark, out.Len())
		}
	}
}
