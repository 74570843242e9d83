package ratelimit

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	callBudget  = 50 * time.Millisecond  // for one decision, connecting and waiting for a connection included
	probeBudget = 500 * time.Millisecond // for one call in the background
	leaseFor    = 60 * time.Second       // a concurrent place whose gateway is silent this long is free again
	connections = 64
)

//go:embed redis.lua
var luaSource string

// RedisOptions say where Redis is.
type RedisOptions struct {
	Address            string // host:port
	Username, Password string
	DB                 int
	TLS                *tls.Config // nil = no TLS
	Prefix             string      // of all keys; "" = "llmgw"
}

// ParseRedisURL reads redis://user:password@host:port/db, or rediss:// for TLS. Its errors do not
// repeat the URL, which may hold a password.
func ParseRedisURL(url string) (RedisOptions, error) {
	o, err := redis.ParseURL(url)
	if err != nil || o.Network != "tcp" {
		return RedisOptions{}, errors.New("not a Redis URL: want redis://[user:password@]host[:port][/db] or rediss://")
	}
	return RedisOptions{Address: o.Addr, Username: o.Username, Password: o.Password, DB: o.DB, TLS: o.TLSConfig}, nil
}

// Classes of Redis errors, as Status counts them.
const (
	classRefused  = "refused"
	classTimeout  = "timeout"
	classReadonly = "readonly"
	classLoading  = "loading"
	classOOM      = "oom"
	classNoscript = "noscript"
	classEmpty    = "empty"
	classAuth     = "auth"
	classOther    = "other"
)

// errCold: the windows in Redis are not those that this process knows; errMoved: the connection leads
// to another instance than the windows were built in.
var (
	errCold  = errors.New("the windows in Redis are not there or were built anew")
	errMoved = errors.New("another Redis instance answers")
)

// class is the error in one word.
func class(err error) string {
	text := err.Error()
	var wire net.Error
	switch {
	case errors.Is(err, errCold), errors.Is(err, errMoved):
		return classEmpty
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout), errors.As(err, &wire) && wire.Timeout():
		return classTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return classRefused
	}
	for _, known := range []struct{ prefix, class string }{
		{"READONLY", classReadonly},
		{"LOADING", classLoading},
		{"OOM", classOOM},
		{"NOSCRIPT", classNoscript},
		{"NOAUTH", classAuth},
		{"WRONGPASS", classAuth},
		{"NOPERM", classAuth},
		{"ERR AUTH", classAuth},
	} {
		if strings.HasPrefix(text, known.prefix) {
			return known.class
		}
	}
	return classOther
}

// put is one admission as Redis is told: its state now, whatever Redis was told before.
type put struct {
	id     string
	age    int64 // nanoseconds
	gone   bool
	limits Limits
	tokens int64
	lease  lease
}

// lease is what to do about a concurrent place.
type lease int

const (
	leaseEnd  lease = iota // free it
	leaseHold              // hold or renew it
	leaseKeep              // nothing is known of it here
)

func (o *op) put(now int64) put {
	p := put{id: o.id, age: now - o.at, gone: o.gone, limits: o.limits, tokens: o.tokens}
	if o.live {
		p.lease = leaseHold
	}
	return p
}

// answered is a Decision of Redis with what all gateways have used.
type answered struct {
	Decision
	requests, tokens int64
}

// remote speaks to one Redis.
type remote struct {
	client *redis.Client // for decisions: 50 ms
	probe  *redis.Client // for the background: more patient, on a few connections of its own
	script *redis.Script
	prefix string
	me     string                 // a word that no other gateway calls itself
	runID  atomic.Pointer[string] // of the instance that decisions may come from; nil = any
}

func newRemote(o RedisOptions) *remote {
	// One hash tag for all: in a Redis Cluster the keys of one script must be in one slot, and the
	// marker is read with every subject's keys.
	prefix := "{" + o.Prefix + "}:"
	if o.Prefix == "" {
		prefix = "{llmgw}:"
	}
	r := &remote{prefix: prefix, me: strings.ToLower(rand.Text()[:12]), script: redis.NewScript(luaSource)}
	options := func(budget time.Duration, size int) *redis.Options {
		ro := &redis.Options{
			Addr: o.Address, Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLS,
			DialTimeout: budget, ReadTimeout: budget, WriteTimeout: budget, PoolTimeout: budget,
			ContextTimeoutEnabled: true,
			MaxRetries:            -1, // a call whose answer was lost may have been applied
			DialerRetries:         1,
			PoolSize:              size,
			MaxConcurrentDials:    size,
			Protocol:              2, // no HELLO, no CLIENT SETINFO: a new connection costs no round trip
			DisableIdentity:       true,
			MaintNotificationsConfig: &maintnotifications.Config{
				Mode: maintnotifications.ModeDisabled,
			},
		}
		ro.Dialer = dialer(ro)
		return ro
	}
	calls := options(callBudget, connections)
	calls.OnConnect = func(ctx context.Context, c *redis.Conn) error {
		want := r.runID.Load()
		if want == nil {
			return nil
		}
		got, err := runID(ctx, c)
		if err == nil && got != *want {
			err = errMoved
		}
		return err
	}
	r.client, r.probe = redis.NewClient(calls), redis.NewClient(options(probeBudget, 2))
	return r
}

func (r *remote) close() error { return errors.Join(r.client.Close(), r.probe.Close()) }

// runID is the id that a Redis instance gives itself at its start.
func runID(ctx context.Context, c redis.Cmdable) (string, error) {
	info, err := c.Info(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "run_id:"); ok {
			return id, nil
		}
	}
	return "", errors.New("INFO without a run_id")
}

func (r *remote) marker() string            { return r.prefix + "marker" }
func (r *remote) key(kind, s string) string { return r.prefix + kind + ":" + s }

// call is one run of the script under way.
type call struct {
	keys []string
	args []any
}

func (r *remote) call(mode, epoch, subject string, replace bool, puts []put) call {
	c := call{
		keys: make([]string, 0, 6+len(puts)),
		args: make([]any, 0, 16+8*len(puts)),
	}
	c.keys = append(c.keys, r.marker(), r.key("requests", subject), r.key("pieces", subject), r.key("tokens", subject), r.key("concurrent", subject))
	first := ""
	if replace {
		first = "replace"
	}
	c.args = append(c.args, mode, epoch, leaseFor.Microseconds(), first, len(puts))
	for _, p := range puts {
		c.keys = append(c.keys, r.key("op", p.id))
		state, tokens := "is", int64(-1)
		if p.gone {
			state = "gone"
		}
		if p.limits.Tokens.Max > 0 {
			tokens = sane(p.tokens)
		}
		c.args = append(c.args, p.id, p.age/1000, state, sane(p.limits.Requests.Max), micros(p.limits.Requests.Window), tokens, micros(p.limits.Tokens.Window), int(p.lease))
	}
	return c
}

// sane keeps a number within what Lua counts exactly.
func sane(n int64) int64 { return min(n, 1<<52) }

// micros rounds up: a window is never shorter than it was asked for.
func micros(d time.Duration) int64 {
	return sane(int64(d/time.Microsecond) + min(1, int64(d%time.Microsecond)))
}

// decide asks Redis: mode "take" or "peek".
func (r *remote) decide(ctx context.Context, mode, epoch string, a *Ask, puts []put) (answered, error) {
	c := r.call(mode, epoch, a.Subject, false, puts)
	c.keys = append(c.keys, r.key("op", a.ID))
	l := a.Limits
	c.args = append(c.args, a.ID, sane(l.Requests.Max), micros(l.Requests.Window), sane(l.Tokens.Max), micros(l.Tokens.Window),
		sane(max(0, a.Tokens)), sane(a.least()), sane(l.Concurrent))
	out, err := r.run(ctx, r.client, c)
	if err != nil {
		return answered{}, err
	}
	return read(out, a)
}

// read makes a decision of what the script returns.
func read(out []any, a *Ask) (answered, error) {
	if len(out) != 13 {
		return answered{}, fmt.Errorf("the script returned %d words", len(out))
	}
	var n [13]int64
	for i, x := range out[1:] {
		switch v := x.(type) {
		case int64:
			n[i+1] = v
		case string:
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return answered{}, fmt.Errorf("the script returned no number: %w", err)
			}
			n[i+1] = int64(f)
		}
	}
	state := func(l Limit, ok, used, wait, reset int64) State {
		s := State{Limit: l, Remaining: max(0, l.Max-used), ResetIn: nanos(reset)}
		if ok == 0 {
			s.RetryIn = max(nanos(wait), time.Microsecond)
		}
		return s
	}
	l := a.Limits
	d := Decision{Granted: n[2], Storage: StorageRedis, Requests: state(l.Requests, n[3], n[4], n[5], n[6])}
	if l.Tokens.Max > 0 {
		d.Tokens = state(l.Tokens, n[7], n[8], n[9], n[10])
	}
	if l.Concurrent > 0 {
		d.Concurrent = state(Limit{Max: l.Concurrent}, n[11], n[12], retryConcurrent.Microseconds(), 0)
	}
	d.settle()
	return answered{Decision: d, requests: n[4], tokens: n[8]}, nil
}

func nanos(micros int64) time.Duration {
	if micros > math.MaxInt64/4/1000 {
		return Never
	}
	return time.Duration(max(0, micros)) * time.Microsecond
}

// put tells Redis about admissions of one subject. With replace, all that Redis has of it goes first;
// requests and tokens are more of it that has no id: ages and amounts.
func (r *remote) put(ctx context.Context, epoch string, p parcel, replace bool, requests, tokens loose) error {
	c := r.call("put", epoch, p.s.name, replace, p.puts)
	for _, l := range []loose{requests, tokens} {
		c.args = append(c.args, micros(l.window), len(l.pieces))
		for _, x := range l.pieces {
			c.args = append(c.args, x.at/1000, x.n)
		}
	}
	_, err := r.run(ctx, r.probe, c)
	return err
}

// loose are amounts by age: the at of a piece is how long ago it was, in nanoseconds.
type loose struct {
	window time.Duration
	pieces []piece
}

// run runs the script, and loads it only when Redis says that it does not have it.
func (r *remote) run(ctx context.Context, client *redis.Client, c call) ([]any, error) {
	out, err := r.script.EvalSha(ctx, client, c.keys, c.args...).Slice()
	if err != nil && class(err) == classNoscript {
		out, err = r.script.Eval(ctx, client, c.keys, c.args...).Slice()
	}
	if err != nil {
		return nil, err
	}
	if len(out) > 0 && out[0] == "cold" {
		return nil, errCold
	}
	return out, nil
}
