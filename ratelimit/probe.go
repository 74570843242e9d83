package ratelimit

import (
	"context"
	"errors"
	"fmt"
)

// Probe asks a Redis once whether a gateway could use it: it connects, logs in
// and pings. The error names the kind of failure, never a password.
func Probe(ctx context.Context, o RedisOptions) (err error) {
	r := newRemote(o)
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.probe.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis: %s", class(err))
	}
	return nil
}
