package billing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	pgDialWait = time.Second
	// What the server bounds by itself on connections that take locks. A gateway
	// that vanishes between its two messages blocks its keys for idleInTx at most.
	pgStatementWait = time.Second
	pgIdleInTx      = time.Second
	// pgAnswerWait is how long an answer may take before the connection counts as dead.
	pgAnswerWait = 1500 * time.Millisecond
)

// pgConfig reads a database URL. Nothing of the URL is in the error: where it
// cannot be read, nobody knows which part of it is the password.
func pgConfig(url string) (*pgx.ConnConfig, error) {
	if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
		return nil, fmt.Errorf("%w: the database URL does not begin with postgres://", ErrInvalid)
	}
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("%w: the database URL cannot be read", ErrInvalid)
	}
	if c.ConnectTimeout == 0 || c.ConnectTimeout > 5*pgDialWait {
		c.ConnectTimeout = pgDialWait
	}
	keep := net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}
	c.DialFunc = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: keep}).DialContext
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "llm-gateway"
	}
	return c, nil
}

// pgWith is a copy of c with further settings of the session.
func pgWith(c *pgx.ConnConfig, settings map[string]string) *pgx.ConnConfig {
	c = c.Copy()
	maps.Copy(c.RuntimeParams, settings)
	return c
}

// pgLockWait is how long a statement waits for a lock: so much less than a
// reserve waits for its commit that the refusal still comes in time, and less
// than a statement may take.
func pgLockWait(reserve time.Duration) time.Duration {
	return min(max(reserve*4/5, 10*time.Millisecond), pgStatementWait*9/10)
}

// pgBounds are the settings of a connection whose statements must be short.
func pgBounds(reserve time.Duration) map[string]string {
	return map[string]string{
		"lock_timeout":                        fmt.Sprint(pgLockWait(reserve).Milliseconds()),
		"statement_timeout":                   fmt.Sprint(pgStatementWait.Milliseconds()),
		"idle_in_transaction_session_timeout": fmt.Sprint(pgIdleInTx.Milliseconds()),
	}
}

// pgHotBounds are those of the writer. Its statements are few and known: they
// find every row by an index, whatever the planner thinks of young tables, and
// are planned once.
func pgHotBounds(reserve time.Duration) map[string]string {
	s := pgBounds(reserve)
	maps.Copy(s, map[string]string{
		"plan_cache_mode": "force_generic_plan", "jit": "off",
		"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
	})
	return s
}

// pgConnect opens one connection on which commits are durable when they return.
func pgConnect(ctx context.Context, c *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, hide(err, c)
	}
	// A role or a database may be set to lose commits; charges must not be lost.
	_, err = conn.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'")
	if err != nil {
		pgDrop(conn)
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// pgDrop lets a connection go at once. The polite way waits for a server that
// may be gone; the server ends what it was doing when it sees the socket closed.
func pgDrop(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	_ = conn.PgConn().Conn().Close()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = conn.Close(ended)
}

// hide takes the password out of the text of a connection's error.
func hide(err error, c *pgx.ConnConfig) error {
	if err == nil || c.Password == "" || !strings.Contains(err.Error(), c.Password) {
		return err
	}
	return &hidden{err: err, text: strings.ReplaceAll(err.Error(), c.Password, "xxxxx")}
}

type hidden struct {
	err  error
	text string
}

// Error is the text without the password.
func (h *hidden) Error() string { return h.text }

// Is compares with the causes, which are not handed out: their texts are whole.
func (h *hidden) Is(target error) bool { return errors.Is(h.err, target) }

// sqlState is the server's code in err, "" when the server said nothing.
func sqlState(err error) (state string, fatal bool) {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		severity := e.SeverityUnlocalized
		return e.Code, severity == "FATAL" || severity == "PANIC"
	}
	return "", false
}

// pgPermanent says that trying the same again cannot help: the data or the
// statement is wrong, not the moment.
func pgPermanent(err error) bool {
	if errors.Is(err, ErrUnknownHold) {
		return true
	}
	state, fatal := sqlState(err)
	if fatal || len(state) != 5 || state == "42501" { // a missing privilege can be granted
		return false
	}
	switch state[:2] {
	case "22", "23", "42":
		return true
	}
	return state == "XX001" || state == "XX002"
}

// pgReusable says that the connection is as good as before after a rollback.
func pgReusable(err error) bool {
	state, fatal := sqlState(err)
	if fatal || len(state) != 5 {
		return false
	}
	switch state[:2] {
	case "22", "23", "40", "42", "55":
		return true
	}
	return state == "57014" // statement_timeout
}

// dbClock is the database's clock, estimated from this machine's, so that all
// replicas go by one clock. A clock that a test set stays as it is.
type dbClock struct {
	fixed  func() time.Time
	offset atomic.Int64 // nanoseconds to add to this machine's time
}

func (c *dbClock) now() time.Time {
	if c.fixed != nil {
		return c.fixed()
	}
	return time.Now().Add(time.Duration(c.offset.Load()))
}

// learn takes over what the database says its time is, in microseconds UTC,
// and returns the time to go by.
func (c *dbClock) learn(us int64) time.Time {
	if c.fixed != nil {
		return c.fixed()
	}
	t := instant(us)
	c.offset.Store(int64(time.Until(t)))
	return t
}
