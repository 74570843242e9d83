package main

import (
	"context"
	"errors"
	"net"
	"net/url"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

// databaseWait is how long a start waits for a database server that is being
// started at the same time. After that the attempt itself says what is wrong.
const databaseWait = 60 * time.Second

// sharedBooks says whether several gateways can keep the configured books.
func sharedBooks(c Config) bool { return isPostgres(c.Database.URL.Reveal()) }

// waitForDatabase returns when the database server takes connections, when
// there is none to wait for, or when it has waited long enough. Its error is
// that of an ended ctx.
func waitForDatabase(ctx context.Context, c Config, log *zap.Logger) error {
	address := databaseAddress(c)
	if address == "" {
		return nil
	}
	waited, cancel := context.WithTimeout(ctx, databaseWait)
	defer cancel()
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for told := false; ; {
		err := databaseServes(waited, c, address)
		if err == nil {
			return nil
		}
		if !told {
			log.Info("waiting for the database server", zap.String("address", address), zap.Error(err))
			told = true
		}
		select {
		case <-ctx.Done():
			return errors.New("stopped while waiting for the database server")
		case <-waited.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// databaseServes is an error while the server is not there, or is there and says
// that it is starting. Any other answer is one, even a refusal.
func databaseServes(ctx context.Context, c Config, address string) error {
	conn, err := (&net.Dialer{Timeout: probeWait}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_ = conn.Close() // that it was made is the answer
	if billing.StartsUp(ctx, c.Database.URL.Reveal()) {
		return errors.New("it is starting")
	}
	return nil
}

// databaseAddress is host:port of a database server, "" for everything else: a
// file, a Unix socket, a list of hosts.
func databaseAddress(c Config) string {
	if !sharedBooks(c) {
		return ""
	}
	u, err := url.Parse(c.Database.URL.Reveal())
	if err != nil || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
