package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// load is one kind of traffic; run returns its figures by name.
type load struct {
	name string
	run  func(context.Context, loader) (map[string]float64, error)
}

// loader sends requests to one candidate.
type loader struct {
	addr, secret string
	pids         []int // whose CPU and memory count
	storePids    []int // Redis and PostgreSQL, whose CPU is told apart
}

func (b *bench) loads() []load {
	s := b.s
	all := []load{
		{"json64", func(ctx context.Context, l loader) (map[string]float64, error) { return l.json(ctx, 64, s.requests) }},
		{"json1", func(ctx context.Context, l loader) (map[string]float64, error) { return l.json(ctx, 1, s.requests/5) }},
		{"paced", func(ctx context.Context, l loader) (map[string]float64, error) {
			return l.streams(ctx, 16, 16, s.events, s.pause)
		}},
		{"burst", func(ctx context.Context, l loader) (map[string]float64, error) {
			return l.streams(ctx, 8, 400, 50, 0)
		}},
		{"open", func(ctx context.Context, l loader) (map[string]float64, error) {
			return l.streams(ctx, 500, 500, 30, 80*time.Millisecond)
		}},
	}
	return slices.DeleteFunc(all, func(l load) bool { return !slices.Contains(strings.Split(s.loads, ","), l.name) })
}

// spent is the CPU time of a candidate's processes so far.
type spent struct{ all, envoy, store time.Duration }

// cpu reads the CPU time; Envoy is the process that was started last.
func (l loader) cpu() (spent, error) {
	var s spent
	for _, pid := range l.pids {
		load, err := rig.Tree(pid)
		if err != nil {
			return s, err
		}
		s.all += load.CPU
		s.envoy = load.CPU
	}
	for _, pid := range l.storePids {
		load, err := rig.Tree(pid)
		if err != nil {
			return s, err
		}
		s.store += load.CPU
	}
	return s, nil
}

// per is the time since before, in microseconds for each of n.
func (s spent) per(before spent, n int) (all, envoy float64) {
	return float64((s.all - before.all).Microseconds()) / float64(n), float64((s.envoy - before.envoy).Microseconds()) / float64(n)
}

func (l loader) rss() (int64, error) {
	var total int64
	for _, pid := range l.pids {
		load, err := rig.Tree(pid)
		if err != nil {
			return 0, err
		}
		total += load.RSS
	}
	return total, nil
}

// request is the bytes of one request.
func (l loader) request(spec string) []byte {
	body := requestBody(spec)
	head := "POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\naccept: application/json\r\nuser-agent: bench\r\ncontent-length: " + strconv.Itoa(len(body)) + "\r\n"
	if l.secret != "" {
		head += "authorization: Bearer " + l.secret + "\r\n"
	}
	return []byte(head + "\r\n" + body)
}

// warm sends requests until every part answers: a candidate's first requests
// open connections and fill caches.
func (l loader) warm(ctx context.Context) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := l.workers(ctx, 8, 200, "", nil)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("candidate does not answer: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// json runs n requests over c connections, each waiting for its answer.
func (l loader) json(ctx context.Context, c, n int) (map[string]float64, error) {
	before, err := l.cpu()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	took, err := l.workers(ctx, c, n, "", nil)
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	after, err := l.cpu()
	if err != nil {
		return nil, err
	}
	slices.Sort(took)
	all, envoy := after.per(before, n)
	out := map[string]float64{
		"CPU µs/request": all,
		"of it Envoy":    envoy,
		"requests/s":     float64(n) / elapsed.Seconds(),
		"p50 ms":         ms(took[len(took)/2]),
		"p99 ms":         ms(took[len(took)*99/100]),
	}
	if len(l.storePids) > 0 {
		out["store CPU µs/request"] = float64((after.store - before.store).Microseconds()) / float64(n)
	}
	return out, nil
}

// streams runs n streams of some events over c connections and counts per
// event, as most of a stream's cost is its events.
func (l loader) streams(ctx context.Context, c, n, events int, pause time.Duration) (map[string]float64, error) {
	before, err := l.cpu()
	if err != nil {
		return nil, err
	}
	var peak atomic.Int64
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-done:
				tick.Stop()
				return
			case <-tick.C:
				if now, err := l.rss(); err == nil && now > peak.Load() {
					peak.Store(now)
				}
			}
		}
	})
	var delays delayLog
	_, err = l.workers(ctx, c, n, streamSpec(events, pause), &delays)
	close(done)
	watch.Wait()
	if err != nil {
		return nil, err
	}
	after, err := l.cpu()
	if err != nil {
		return nil, err
	}
	all, envoy := after.per(before, n*events)
	out := map[string]float64{"CPU µs/event": all, "of it Envoy": envoy}
	if pause > 0 {
		out["event p50 ms"], out["event p99 ms"] = delays.late(pause)
		out["peak MB"] = float64(peak.Load()) / 1e6
	}
	return out, nil
}

// delayLog keeps the times between events of all streams.
type delayLog struct {
	mu   sync.Mutex
	gaps []time.Duration
}

func (d *delayLog) add(gaps []time.Duration) {
	d.mu.Lock()
	d.gaps = append(d.gaps, gaps...)
	d.mu.Unlock()
}

// late is how far the gaps between events stray from the upstream's pace.
func (d *delayLog) late(pause time.Duration) (p50, p99 float64) {
	if len(d.gaps) == 0 {
		return 0, 0
	}
	off := make([]time.Duration, len(d.gaps))
	for i, g := range d.gaps {
		off[i] = max(g-pause, pause-g)
	}
	slices.Sort(off)
	return ms(off[len(off)/2]), ms(off[len(off)*99/100])
}

// workers sends n requests over c connections and returns how long each took.
func (l loader) workers(ctx context.Context, c, n int, spec string, delays *delayLog) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var next atomic.Int64
	took := make([]time.Duration, n)
	errs := make(chan error, c)
	for range c {
		go func() { errs <- l.worker(ctx, &next, took, l.request(spec), delays) }()
	}
	var all []error
	for range c {
		all = append(all, <-errs)
	}
	return took, errors.Join(all...)
}

func (l loader) worker(ctx context.Context, next *atomic.Int64, took []time.Duration, request []byte, delays *delayLog) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		i := int(next.Add(1)) - 1
		if i >= len(took) {
			return nil
		}
		start := time.Now()
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := readAnswer(in, delays); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
}

// readAnswer reads one answer whole; of a stream it notes the time between
// its events.
func readAnswer(in *bufio.Reader, delays *delayLog) error {
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("status %d: %s", answer.StatusCode, text)
	}
	if delays == nil {
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	}
	var gaps []time.Duration
	var last time.Time
	lines := bufio.NewReader(answer.Body)
	ended := false
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte("data:")) {
			continue
		}
		ended = bytes.Contains(line, []byte("[DONE]"))
		now := time.Now()
		if !last.IsZero() {
			gaps = append(gaps, now.Sub(last))
		}
		last = now
	}
	if !ended {
		return errors.New("stream without its end")
	}
	if n := len(gaps); n > 3 {
		delays.add(gaps[:n-2]) // the last events come without a pause
	}
	return nil
}

func waitListening(ctx context.Context, addr string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", addr, err)
		case <-ticker.C:
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
