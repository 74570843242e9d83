package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// target is the gateway under test with the model server behind it and the
// clients in front of it.
type target struct {
	s      settings
	dir    string // the gateway's output
	up     *rig.Upstream
	client *rig.Client
	proc   *rig.Process // nil when the gateway runs on its own
}

func newTarget(ctx context.Context, s settings) (*target, error) {
	up, err := rig.StartUpstreamAt(s.upstream)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "correctness-")
	if err != nil {
		up.Close()
		return nil, err
	}
	t := &target{s: s, dir: dir, up: up, client: rig.NewClient(strings.TrimSuffix(s.gateway, "/"), false)}
	if err := t.start(ctx); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// start runs the gateway, if it is ours to run, and waits until it is ready.
func (t *target) start(ctx context.Context) error {
	if t.s.run == "" {
		return nil
	}
	p, err := rig.Start(rig.Spec{
		Name: "gateway", Path: "/bin/sh", Args: []string{"-c", "exec " + t.s.run}, Logs: t.dir,
	})
	if err != nil {
		return err
	}
	t.proc = p
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // Python programs take their time
	defer cancel()
	return rig.WaitHealthy(ctx, strings.TrimSuffix(t.s.gateway, "/")+t.s.ready, p)
}

func (t *target) close() error {
	t.client.Close()
	if t.proc != nil {
		if _, err := t.proc.Stop(20 * time.Second); err != nil {
			t.proc.KillGroup()
		}
	}
	t.up.Close()
	return os.RemoveAll(t.dir) //nolint:gosec // a folder that newTarget made
}

// tail is the gateway's last words, for an error.
func (t *target) tail() string {
	if t.proc == nil {
		return ""
	}
	return "\n" + t.proc.Tail(20)
}

// hook runs a command of the operator's, which must print one word. Keys reach it by
// the environment, where other users do not see them.
func hook(ctx context.Context, name, command, variable, value string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command) //nolint:gosec // the caller's own command is what is asked for
	cmd.Env = rig.MinimalEnv(variable + "=" + value)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("-%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	words := strings.Fields(stdout.String())
	if len(words) != 1 {
		return "", fmt.Errorf("-%s printed %d words, want one; on standard error: %s", name, len(words), strings.TrimSpace(stderr.String()))
	}
	return words[0], nil
}

// newKey makes a key whose budget is that many tokens, and waits until the gateway
// knows it.
func (t *target) newKey(ctx context.Context, budget int64) (string, error) {
	key, err := hook(ctx, "new-key", t.s.newKey, "BUDGET", strconv.FormatInt(budget, 10))
	if err != nil {
		return "", err
	}
	return key, rest(ctx, 1500*time.Millisecond)
}

// fresh makes a key that nothing limits, and tells what the books have for it now.
func (t *target) fresh(ctx context.Context) (key string, before int64, err error) {
	if key, err = t.newKey(ctx, plenty); err != nil {
		return "", 0, err
	}
	before, err = t.used(ctx, key)
	return key, before, err
}

// used is what the books say now.
func (t *target) used(ctx context.Context, key string) (int64, error) {
	out, err := hook(ctx, "used", t.s.used, "KEY", key)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("-used: its output must be one number of tokens: %w", err)
	}
	return n, nil
}

// settled waits until the books show the tokens that were delivered, or the time is
// over that they may take, and returns what they show more than before.
func (t *target) settled(ctx context.Context, key string, before, delivered int64) (int64, error) {
	deadline := time.Now().Add(t.s.settle)
	for {
		n, err := t.used(ctx, key)
		if err != nil || n-before == delivered || time.Now().After(deadline) {
			return n - before, err
		}
		if err := rest(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// sent is what became of some requests.
type sent struct {
	requests, answered int
	delivered          int64 // tokens of what the clients received, prompts included
	gotUsage           int   // streams with a usage chunk
	statuses           map[int]int
}

// add counts requests that were sent later.
func (s *sent) add(later sent) {
	s.requests, s.answered, s.delivered = s.requests+later.requests, s.answered+later.answered, s.delivered+later.delivered
	for status, n := range later.statuses {
		s.statuses[status] += n
	}
}

// send sends n requests, at most c at a time, and counts what came back. ask makes
// each request, tokens tells how many a client received.
func (t *target) send(ctx context.Context, n, c int, ask func() rig.Request, tokens func(rig.Received) int64) sent {
	out := sent{requests: n, statuses: map[int]int{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan struct{})
	for range c {
		wg.Go(func() {
			for range next {
				one, cancel := context.WithTimeout(ctx, time.Minute)
				r := t.client.Do(one, ask())
				cancel()
				mu.Lock()
				out.statuses[r.Status]++
				if r.Status == http.StatusOK {
					out.answered++
					out.delivered += tokens(r)
				}
				if _, _, usage := read(r.Events); usage {
					out.gotUsage++
				}
				mu.Unlock()
			}
		})
	}
	for range n {
		next <- struct{}{}
	}
	close(next)
	wg.Wait()
	return out
}

func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
