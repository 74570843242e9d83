package ratelimit

import (
	"context"
	"net"

	"github.com/redis/go-redis/v9"
)

// dialer connects as go-redis does by itself, except that a connection that failed fails when it is
// first used: go-redis would print a line of its own for every failure to connect, once a second for
// as long as Redis is away.
func dialer(o *redis.Options) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := redis.NewDialer(o)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return newFailed(err), nil
		}
		return c, nil
	}
}

// failed is a connection that could not be made: one to nobody, that says why when it is used.
type failed struct {
	net.Conn
	err error
}

func newFailed(err error) failed {
	c, _ := net.Pipe() // open at both ends: a closed one would name itself as the reason
	return failed{Conn: c, err: err}
}

func (f failed) Read([]byte) (int, error)  { return 0, f.err }
func (f failed) Write([]byte) (int, error) { return 0, f.err }
