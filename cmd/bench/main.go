package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// settings are the knobs of a run.
type settings struct {
	gateway    string
	rounds     int
	requests   int           // JSON requests per round at 64 connections; a fifth of it at one
	events     int           // SSE events per stream
	pause      time.Duration // between the events of a paced stream
	candidates string
	loads      string
}

func run(ctx context.Context, args []string) error {
	var s settings
	var role, at string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&s.gateway, "gateway", "bin/llm-gateway", "the gateway's binary")
	flags.IntVar(&s.rounds, "rounds", 5, "rounds; each runs every candidate")
	flags.IntVar(&s.requests, "requests", 6000, "JSON requests per round at 64 connections")
	flags.IntVar(&s.events, "events", 300, "events per paced stream")
	flags.DurationVar(&s.pause, "pause", 3*time.Millisecond, "time between the events of a paced stream")
	flags.StringVar(&s.candidates, "candidates", "bare,noop,gateway,redis,postgres", "which candidates to run")
	flags.StringVar(&s.loads, "loads", "json64,json1,paced,burst,open", "which loads to run")
	flags.StringVar(&role, "role", "", "internal: run as a child process (model, noop)")
	flags.StringVar(&at, "at", "", "internal: where the child listens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch role {
	case "model":
		return serveModel(at)
	case "noop":
		return serveNoop(at)
	case "":
		return measure(ctx, s)
	}
	return fmt.Errorf("unknown role %q", role)
}

// measure runs all rounds and prints the table.
func measure(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "llmgw-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := newBench(dir, s)
	if err != nil {
		return err
	}
	defer b.close()
	results := make(rounds)
	for round := range s.rounds {
		for _, name := range strings.Split(s.candidates, ",") {
			if err := b.candidate(ctx, filepath.Join(dir, fmt.Sprintf("%d-%s", round, name)), name, results); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, name, err)
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d done\n", round+1, s.rounds)
	}
	results.print(os.Stdout, strings.Split(s.candidates, ","), strings.Split(s.loads, ","))
	return nil
}
