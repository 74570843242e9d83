package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/billing"
)

// limitOptions are the limits of a key or a tariff on the command line.
type limitOptions struct {
	flags *pflag.FlagSet

	limit, daily, monthly, rpm, tpm, concurrent wholeNumber
	budget                                      moneyAmount
	clear                                       []string
}

// limitNames are the options, in the order of billing.LimitNames.
func limitNames() []string {
	return []string{"limit", "daily", "monthly", "rpm", "tpm", "concurrent", "budget"}
}

// add defines the options.
func (l *limitOptions) add(f *pflag.FlagSet) {
	l.flags = f
	f.Var(&l.limit, "limit", "tokens per calendar month by tariff")
	f.Var(&l.daily, "daily", "tokens per day (default: API_DAILY_LIMIT)")
	f.Var(&l.monthly, "monthly", "tokens per month (default: API_MONTHLY_LIMIT)")
	f.Var(&l.rpm, "rpm", "requests per minute (default: RATE_LIMIT_REQUESTS per window)")
	f.Var(&l.tpm, "tpm", "tokens per minute (default: LLMGW_LIMITS__TOKENS_PER_MINUTE)")
	f.Var(&l.concurrent, "concurrent", "requests that run at once (default: LLMGW_LIMITS__CONCURRENT)")
	f.Var(&l.budget, "budget", "money per calendar month, in units of the books' currency (default: none)")
}

// addClear defines --clear for the limits that may be taken away.
func (l *limitOptions) addClear(f *pflag.FlagSet, names []string) {
	f.StringSliceVar(&l.clear, "clear", nil, "`limits` to take away, separated by commas: "+strings.Join(names, ", "))
}

// check refuses limits that would let nothing through; nobody means them.
func (l *limitOptions) check() error {
	for i, n := range l.values() {
		if name := limitNames()[i]; l.flags.Changed(name) && n <= 0 {
			return fmt.Errorf("--%s must be above 0; to stop a key use block-key or revoke-key", name)
		}
	}
	return nil
}

func (l *limitOptions) values() []int64 {
	return []int64{int64(l.limit), int64(l.daily), int64(l.monthly), int64(l.rpm), int64(l.tpm), int64(l.concurrent), int64(l.budget)}
}

// given says whether any limit is to be set or cleared.
func (l *limitOptions) given() bool {
	return len(l.clear) > 0 || slices.ContainsFunc(limitNames(), l.flags.Changed)
}

// touched says whether a limit is to be set or cleared.
func (l *limitOptions) touched(name string) bool {
	return l.flags.Changed(name) || slices.Contains(l.clear, name)
}

// change is what the books are asked for. What is cleared must be one of may.
func (l *limitOptions) change(may []string) (c billing.LimitChange, err error) {
	for i, name := range l.clear {
		if name = strings.TrimSpace(name); !slices.Contains(may, name) {
			return c, usagef("--clear: write one or more of %s, separated by commas", strings.Join(may, ", "))
		}
		if l.flags.Changed(name) {
			return c, usagef("--%s and --clear %s contradict each other: choose one", name, name)
		}
		l.clear[i] = name
		c.Clear = append(c.Clear, billing.LimitNames()[slices.Index(limitNames(), name)])
	}
	if err := l.check(); err != nil {
		return c, err
	}
	set := []**int64{&c.Tariff, &c.Daily, &c.Monthly, &c.RPM, &c.TPM, &c.Concurrent, &c.Money}
	for i, n := range l.values() {
		if l.flags.Changed(limitNames()[i]) {
			*set[i] = &n
		}
	}
	return c, nil
}

// limitStep writes a change of a limit with its size in per cent; 0 is none.
func limitStep(old, now int64) string {
	text := numberOr(old, "default") + " -> " + numberOr(now, "default")
	if old > 0 && now > 0 {
		text += fmt.Sprintf(" (%+.1f%%)", (float64(now)/float64(old)-1)*100)
	}
	return text
}

func numberOr(n int64, none string) string {
	if n <= 0 {
		return none
	}
	return thousands(n)
}

func textStep(old, now *string, none string) string {
	return textOr(old, none) + " -> " + textOr(now, none)
}

func textOr(text *string, none string) string {
	if text == nil {
		return none
	}
	return *text
}
