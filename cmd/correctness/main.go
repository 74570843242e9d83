// Command correctness asks a gateway for OpenAI-shaped APIs how far its books can
// be trusted: whether a budget holds under parallel requests, what becomes of
// streams that clients leave or that state no usage, what a SIGKILL loses, and what
// a request costs.
//
// It plays the model server (so it knows what was delivered) and the clients, and
// compares with what the gateway's own books say. It knows nothing of any gateway:
// three shell commands tell how to run it, make a key and read its books. They get
// PATH, HOME and LANG of the environment and nothing else. Every request goes to the
// addresses given, is bounded in number, and ends by itself.
//
//	correctness -gateway http://127.0.0.1:12000 -upstream 127.0.0.1:4100 \
//	    -run 'llm-gateway up --data /tmp/d --listen 127.0.0.1:12000 --upstream http://127.0.0.1:4100' \
//	    -new-key 'prints a new key with a budget of $BUDGET tokens' \
//	    -used 'prints the number of tokens that the books have for $KEY'
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "correctness:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "correctness:", err)
		os.Exit(1)
	}
}

// errUsage is an argument that cannot be meant.
var errUsage = errors.New("wrong arguments; -help lists them")

// settings are the arguments of a run.
type settings struct {
	gateway, upstream    string
	run, ready           string
	newKey, used         string
	model                string
	scenarios, fits      string
	settle               time.Duration // how long the books may take
	seconds              int           // of each load of "cost"
	parallel, streams, n int
	asJSON               bool
}

const plenty = 1_000_000_000 // a budget that nobody reaches

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("correctness", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.gateway, "gateway", "", "base URL of the gateway under test, without /v1")
	flags.StringVar(&s.upstream, "upstream", "", "host:port where the scripted model server listens; the gateway must use it as its upstream")
	flags.StringVar(&s.run, "run", "", "command that runs the gateway in the foreground; kill and cost need it. Empty: the gateway runs already")
	flags.StringVar(&s.ready, "ready", "/health", "path that answers 200 when the gateway is ready")
	flags.StringVar(&s.newKey, "new-key", "", "command that prints a new key with a budget of $BUDGET tokens")
	flags.StringVar(&s.used, "used", "", "command that prints the number of tokens that the books have for $KEY")
	flags.StringVar(&s.model, "model", "gpt-4o", "model name of the requests")
	flags.StringVar(&s.scenarios, "scenarios", "overspend,aborts,unstated,kill", "which to run, also: cost")
	flags.StringVar(&s.fits, "fits", "1,3,7", "overspend: budgets, in requests that fit")
	flags.DurationVar(&s.settle, "settle", 15*time.Second, "how long the books may take to catch up")
	flags.IntVar(&s.parallel, "parallel", 50, "overspend: requests at once")
	flags.IntVar(&s.streams, "streams", 8, "aborts, unstated, kill: streams at once")
	flags.IntVar(&s.n, "answers", 200, "kill: answered requests before it")
	flags.IntVar(&s.seconds, "seconds", 4, "cost: length of each load")
	flags.BoolVar(&s.asJSON, "json", false, "print one JSON document")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, err
		}
		return s, fmt.Errorf("%w: %w", errUsage, err)
	}
	for name, v := range map[string]string{"gateway": s.gateway, "upstream": s.upstream, "new-key": s.newKey, "used": s.used} {
		if v == "" {
			return s, fmt.Errorf("%w: -%s is missing", errUsage, name)
		}
	}
	for name, n := range map[string]int{"parallel": s.parallel, "streams": s.streams, "answers": s.n, "seconds": s.seconds} {
		if n < 1 || n > 1000 {
			return s, fmt.Errorf("%w: -%s %d, want 1 to 1000", errUsage, name, n)
		}
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("%w: %q", errUsage, flags.Arg(0))
	}
	return s, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	s, err := parse(args, stderr)
	if err != nil {
		return err
	}
	steps, err := steps(s)
	if err != nil {
		return err
	}
	t, err := newTarget(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	var all report
	for _, step := range steps {
		fmt.Fprintln(stderr, "running", step.name)
		if err := step.run(t, ctx, &all); err != nil {
			return fmt.Errorf("%s: %w%s", step.name, err, t.tail())
		}
	}
	if s.asJSON {
		return json.NewEncoder(stdout).Encode(all)
	}
	return all.print(stdout)
}

type step struct {
	name string
	run  func(*target, context.Context, *report) error
}

// steps reads the list of scenarios, in the order given.
func steps(s settings) ([]step, error) {
	var out []step
	for _, name := range strings.Split(s.scenarios, ",") {
		switch name {
		case "overspend":
			for _, word := range strings.Split(s.fits, ",") {
				fits, err := strconv.ParseInt(word, 10, 32)
				if err != nil || fits < 1 || fits > 20 {
					return nil, fmt.Errorf("%w: -fits %q, want numbers from 1 to 20", errUsage, word)
				}
				out = append(out, step{name, func(t *target, ctx context.Context, r *report) error {
					return t.overspend(ctx, fits, r)
				}})
			}
		case "aborts":
			out = append(out, step{name, (*target).aborts})
		case "unstated":
			out = append(out, step{name, (*target).unstated})
		case "kill", "cost":
			if s.run == "" {
				return nil, fmt.Errorf("%w: %s needs -run", errUsage, name)
			}
			scenario := (*target).kills
			if name == "cost" {
				scenario = (*target).costs
			}
			out = append(out, step{name, scenario})
		default:
			return nil, fmt.Errorf("%w: no scenario %q", errUsage, name)
		}
	}
	return out, nil
}
