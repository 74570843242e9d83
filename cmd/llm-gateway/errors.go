package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of the program; scripts rely on them.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

var (
	// errNoCommand: help was shown because no command was given.
	errNoCommand = errors.New("no command")
	// errShown: the result itself is the bad news and is already on stdout.
	errShown = errors.New("already shown")
)

// callError is a mistake in the call itself: exit 2 and a pointer to the help.
type callError struct{ text string }

func (e *callError) Error() string { return e.text }

// usageError makes err a mistake in the call.
func usageError(err error) error { return &callError{text: err.Error()} }

func usagef(format string, args ...any) error {
	return &callError{text: fmt.Sprintf(format, args...)}
}

// mistakes are errors in the configuration, each one line; all of them are told
// at once, so that nobody repairs a file one start at a time.
type mistakes []string

func (m mistakes) Error() string { return strings.Join(m, "\n") }

// report writes err to stderr and chooses the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	var usage *callError
	switch {
	case errors.Is(err, errNoCommand):
		return exitUsage
	case errors.Is(err, errShown):
		return exitFailed
	case errors.As(err, &usage), !a.started, strings.HasPrefix(err.Error(), "required flag(s)"):
		a.message(fmt.Sprintf("%v (see %s --help)", err, cmd.CommandPath()))
		return exitUsage
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			a.message(line)
		}
	}
	return exitFailed
}

// wordShape is what a mistyped command or option looks like.
var wordShape = regexp.MustCompile(`^[a-z]{1,12}(-[a-z]{1,12})?$`)

// repeatable says whether a word of the command line may be shown again: not
// when it could be a key that was pasted in the wrong place.
func repeatable(word string) bool {
	return wordShape.MatchString(word) && !strings.HasPrefix(word, "sk-")
}

// knownCommand refuses a word that is no command, and proposes the nearest one.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !repeatable(args[0]) {
		return usagef("unknown command")
	}
	root.SuggestionsMinimumDistance = 2
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("unknown command %q, did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return usagef("unknown command %q", args[0])
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.Flags().Lookup("key") != nil {
		return usagef("%s takes options only; a key is given with --key", cmd.Name())
	}
	return usagef("%s takes options only", cmd.Name())
}

// flagError puts pflag's complaints in our words. pflag repeats the value, which
// may be a key that landed behind the wrong option; these do not.
func flagError(err error) error {
	var (
		unknown *pflag.NotExistError
		missing *pflag.ValueRequiredError
		invalid *pflag.InvalidValueError
	)
	switch {
	case errors.As(err, &unknown):
		if name := unknown.GetSpecifiedName(); unknown.GetSpecifiedShortnames() == "" && repeatable(name) {
			return usagef("unknown option --%s", name)
		}
		return usagef("unknown option")
	case errors.As(err, &missing):
		return usagef("option --%s needs a value", missing.GetFlag().Name)
	case errors.As(err, &invalid):
		return usagef("option --%s: write %s", invalid.GetFlag().Name, flagWants(invalid.GetFlag()))
	}
	return usagef("the options cannot be read")
}

func flagWants(f *pflag.Flag) string {
	switch f.Value.Type() {
	case wholeNumberType:
		return "a whole number, digits only"
	case moneyAmountType:
		return "an amount with at most 9 digits after the point, such as 25.00"
	case "bool":
		return "true or false"
	case "duration":
		return "a duration such as 30s or 5m"
	}
	return "a " + f.Value.Type()
}
