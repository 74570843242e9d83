package ratelimit

import (
	"context"
	"net"
	"time"

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
			return failed{err}, nil
		}
		return c, nil
	}
}

// failed is a connection that could not be made.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error)         { return 0, f.err }
func (f failed) Write([]byte) (int, error)        { return 0, f.err }
func (f failed) Close() error                     { return nil }
func (f failed) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (f failed) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (f failed) SetDeadline(time.Time) error      { return nil }
func (f failed) SetReadDeadline(time.Time) error  { return nil }
func (f failed) SetWriteDeadline(time.Time) error { return nil }
