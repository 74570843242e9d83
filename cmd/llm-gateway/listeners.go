package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// listen takes an endpoint. A Unix socket is made under another name and moved
// into place, so that there is no moment without one when a successor takes
// over; its folder and file are ours alone.
func listen(ctx context.Context, e envoy.Endpoint) (net.Listener, error) {
	var config net.ListenConfig
	path, ok := e.Socket()
	if !ok {
		l, err := config.Listen(ctx, "tcp", e.Address())
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", e.Address(), err)
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of a socket: %w", err)
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(fresh) // left by a process with our id that was killed
	l, err := config.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

func dialTarget(e envoy.Endpoint) string {
	if path, ok := e.Socket(); ok {
		return "unix:" + path
	}
	return "passthrough:///" + e.Address()
}
