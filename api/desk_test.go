package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// clock is a clock that moves only when told.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(t *testing.T, s string) {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = at
}

// desk is the info routes over real books and real rate limits, with two keys.
type desk struct {
	clock   *clock
	options billing.Options
	book    *billing.Book
	limiter *ratelimit.Limiter
	away    atomic.Bool // the rate limits cannot tell
	handler http.Handler
	keys    []billing.Key
	secrets []string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{clock: &clock{}}
	d.clock.set(t, "2026-11-24T12:00:00Z")
	d.options = billing.Options{
		DataDir: t.TempDir(), Now: d.clock.Now, ReserveWait: 30 * time.Second, SettleWait: 30 * time.Second,
		Defaults: billing.Limits{Tariff: 50_000, Daily: 50_000, Monthly: 1_000_000},
	}
	admin, err := billing.OpenAdmin(t.Context(), d.options)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []billing.NewKey{
		{Name: "Test Basic", Description: "the first", Limits: billing.Limits{Tariff: 10_000, Daily: 1_000}},
		{Name: "two"},
	} {
		k, secret, err := admin.CreateKey(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		d.keys, d.secrets = append(d.keys, k), append(d.secrets, secret)
	}
	if err := admin.Close(); err != nil {
		t.Fatal(err)
	}
	if d.book, err = billing.Open(t.Context(), d.options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.book.Close(context.WithoutCancel(t.Context())) })
	if d.limiter, err = ratelimit.New(ratelimit.Options{Now: d.clock.Now}); err != nil {
		t.Fatal(err)
	}
	limits := ratelimit.Limits{Requests: ratelimit.Limit{Max: 30, Window: time.Minute}}
	d.handler = Handler(Options{
		Version: "v1.2.3", Book: d.book, Limits: d, Defaults: func() ratelimit.Limits { return limits }, Docs: func() bool { return true }, Log: zap.NewNop(),
		LimitsOf:     func(billing.Key) ratelimit.Limits { return limits },
		Authenticate: d.authenticate,
		Components:   []Component{{Name: "database", Check: d.book.Healthy}},
	})
	return d
}

// Peek is the limiter's, while it can tell.
func (d *desk) Peek(ctx context.Context, subject string, l ratelimit.Limits) (ratelimit.Decision, error) {
	if d.away.Load() {
		return ratelimit.Decision{}, ratelimit.ErrUnavailable
	}
	return d.limiter.Peek(ctx, subject, l)
}

// authenticate is the gate's, reduced to its outcomes.
func (d *desk) authenticate(authorization []string) (billing.Key, *Denied) {
	body := []byte(`{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"x"},"detail":"no"}`)
	switch {
	case len(authorization) > 1:
		return billing.Key{}, &Denied{Status: 400, Body: body}
	case len(authorization) == 1 && len(authorization[0]) > 7 && authorization[0][:7] == "Bearer ":
		key, err := d.book.Lookup(authorization[0][7:])
		if err == nil {
			return key, nil
		}
		return billing.Key{}, &Denied{Status: 403, Headers: [][2]string{{"www-authenticate", "Bearer"}}, Body: body}
	}
	return billing.Key{}, &Denied{Status: 401, Headers: [][2]string{{"www-authenticate", "Bearer"}}, Body: body}
}

// spend is a request of the key with its place in the window, its hold and its
// charge.
func (d *desk) spend(t *testing.T, key int, model string, prompt, completion int64, p billing.Provenance) {
	t.Helper()
	id := d.book.NewHoldID()
	limits := ratelimit.Limits{Requests: ratelimit.Limit{Max: 30, Window: time.Minute}}
	if got, err := d.limiter.Take(t.Context(), ratelimit.Ask{ID: id, Subject: d.keys[key].ID, Limits: limits}); err != nil || !got.Allowed {
		t.Fatalf("%v, %+v", err, got)
	}
	_, err := d.book.Reserve(t.Context(), billing.HoldRequest{ID: id, KeyID: d.keys[key].ID, Model: model, PromptBound: prompt, Ceiling: max(completion, 1), Choices: 1})
	if err == nil {
		err = d.book.Settle(t.Context(), id, billing.Outcome{Prompt: prompt, Completion: completion, Provenance: p})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// breakBooks closes the books under the routes, and takes the limits away.
func (d *desk) breakBooks(t *testing.T) {
	t.Helper()
	d.away.Store(true)
	if err := d.book.Close(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
