package billing

import (
	"context"
	"fmt"
	"time"
)

// Stats are figures for metrics and logs.
type Stats struct {
	Keys          int64 // known, revoked ones included
	OpenHolds     int64
	QueueDepth    int64 // operations waiting for the writer
	Spilled       int64 // settles in the spill file that are not committed yet
	SettleLate    int64 // settles that were spilled, since start
	Abandoned     int64 // reserves given up by their caller, since start
	Commits       int64 // since start
	FailedCommits int64 // since start
	LastCommit    time.Time

	Replicas  int64 // gateways that share the books and are alive, this one included; 1 on SQLite
	Recovered int64 // holds of dead replicas that this one ended, since start; 0 on SQLite, which does it at Open
}

// Stats reads the figures; it touches no database.
func (b *Book) Stats() Stats {
	b.mu.Lock()
	open := len(b.holds)
	b.mu.Unlock()
	s := Stats{
		Replicas: 1,
		Keys:     int64(b.keys.size()), OpenHolds: int64(open), QueueDepth: int64(b.writer.q.depth()),
		Spilled: b.spill.depth(), SettleLate: b.spill.late.Load(), Abandoned: b.abandoned.Load(),
		Commits: b.writer.commits.Load(), FailedCommits: b.writer.failed.Load(),
		LastCommit: instant(b.writer.lastCommit.Load()),
	}
	b.engine.figures(&s)
	return s
}

// Balance is a key's account in its current periods, in tokens.
type Balance struct {
	Day, Month               string
	UsedToday, HeldToday     int64
	UsedMonth, HeldMonth     int64
	SpentMonth               Money // charged this month
	ReservedMonth            Money // in open holds of this month
	DayResetIn, MonthResetIn time.Duration
}

// Healthy makes the writer commit something and waits for it, at most
// ReserveWait. ErrUnavailable says that reserves would fail too.
func (b *Book) Healthy(ctx context.Context) error {
	if b.isClosed() {
		return fmt.Errorf("books: %w", ErrClosed)
	}
	ping, err := b.ping()
	if err != nil {
		return err
	}
	timer := time.NewTimer(b.opt.ReserveWait)
	defer timer.Stop()
	select {
	case <-ping.done:
		return ping.err
	case <-timer.C:
		return fmt.Errorf("books: %w: no commit within %s", ErrUnavailable, b.opt.ReserveWait)
	case <-b.writer.ended:
		return fmt.Errorf("books: %w", ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("books: %w: %w", ErrUnavailable, context.Cause(ctx))
	}
}

// ping queues a write of the heartbeat; all who ask at the same time share one.
func (b *Book) ping() (*op, error) {
	b.pingMu.Lock()
	defer b.pingMu.Unlock()
	if last := b.lastPing; last != nil {
		select {
		case <-last.done:
		default:
			return last, nil
		}
	}
	o := newOp(opPing, nil, nil)
	if !b.writer.q.push(o, reserveMax) {
		return nil, fmt.Errorf("books: %w: too many operations wait", ErrUnavailable)
	}
	b.lastPing = o
	return o, nil
}
