package billing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
	"gorm.io/gorm"
)

// replicaFile names the replica that a data directory's gateway was last.
const replicaFile = "replica"

// pgBooks keep the books in a database that other gateways write too. So every
// decision is made there, under the lock of the key's row, and what memory
// knows of accounts is a copy to look at.
type pgBooks struct {
	book    *Book
	clock   *dbClock
	replica string // this run's name, new at each Open

	conn *pgx.Conn // the writer's own, nil while there is none

	keeper keeper
	copies accountCopies
}

func newPGBooks(b *Book, clock *dbClock) (*pgBooks, error) {
	id, err := newUUID(clock.now())
	if err != nil {
		return nil, err
	}
	e := &pgBooks{book: b, clock: clock, replica: id.String()}
	e.copies.of = map[string]*accountCopy{}
	e.copies.period = periodOf(clock.now())
	return e, nil
}

func (e *pgBooks) storage() string { return "postgresql" }

// take leaves the decision to commit.
func (e *pgBooks) take(*openHold, *Key) error { return nil }

func (e *pgBooks) permanent(err error) bool {
	return errors.Is(err, errNoPrice) || pgPermanent(err)
}

// housekeeping is the keeper's, on a connection of its own.
func (e *pgBooks) housekeeping() error { return nil }

func (e *pgBooks) transact(ctx context.Context, f func(tx *gorm.DB) error) error {
	err := e.book.store.inTx(ctx, f)
	if err != nil && !pgPermanent(err) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

func (e *pgBooks) figures(s *Stats) {
	s.Replicas, s.Recovered = e.keeper.replicas.Load(), e.keeper.recovered.Load()
}

// recover ends the holds of this directory's last gateway. The lock on the
// directory says that it is dead, whatever its lease says.
func (e *pgBooks) recover() (n int, err error) {
	path := filepath.Join(e.book.opt.DataDir, replicaFile)
	last, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := e.connected(ctx)
	if err != nil {
		return 0, err
	}
	if dead := strings.TrimSpace(string(last)); dead != "" {
		if _, err := conn.Exec(ctx, "DELETE FROM replicas WHERE id = $1", dead); err != nil {
			return 0, err
		}
		for more := sweepMax; more == sweepMax; n += more {
			if more, err = e.endHolds(ctx, conn, "h.replica = $1", dead, "found open at start"); err != nil {
				return n, err
			}
		}
	}
	// Before the first hold of the new name, or nobody would know whose it was.
	if err := writeFile(path, e.replica+"\n"); err != nil {
		return n, err
	}
	_, err = e.renew(ctx, conn)
	return n, err
}

// writeFile replaces a file's content, durably and all at once.
func writeFile(path, content string) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (e *pgBooks) begin() error {
	e.keeper.start(e)
	return nil
}

// connected is the writer's connection; it makes one where there is none.
func (e *pgBooks) connected(ctx context.Context) (*pgx.Conn, error) {
	if e.conn != nil && !e.conn.IsClosed() {
		return e.conn, nil
	}
	pgDrop(e.conn)
	e.conn = nil
	conn, err := pgConnect(ctx, pgWith(e.book.store.pg, pgHotBounds(e.book.opt.ReserveWait)))
	if err != nil {
		return nil, err
	}
	e.conn = conn
	return conn, nil
}

// abandon drops the writer's connection unless err left it in order.
func (e *pgBooks) abandon(ctx context.Context, err error) {
	if e.conn == nil {
		return
	}
	if pgReusable(err) && !e.conn.IsClosed() {
		if _, err := e.conn.Exec(ctx, "ROLLBACK"); err == nil {
			return
		}
	}
	pgDrop(e.conn)
	e.conn = nil
}

// renew prolongs this replica's lease and says whether it had lapsed: others
// may have ended its holds, and those of others may not have been heard of for
// the same reason.
func (e *pgBooks) renew(ctx context.Context, conn *pgx.Conn) (lapsed bool, err error) {
	var before *int64
	var us int64
	err = conn.QueryRow(ctx, pgRenew, e.replica, e.book.opt.Lease.Microseconds()).Scan(&before, &us)
	if err != nil {
		return false, fmt.Errorf("renew lease: %w", err)
	}
	e.clock.learn(us)
	return before == nil || *before < us, nil
}

const pgRenew = `WITH t AS (SELECT ` + pgMicros + ` AS us),
	old AS (SELECT lease_until FROM replicas WHERE id = $1),
	new AS (INSERT INTO replicas (id, started_at, lease_until) SELECT $1, us, us + $2::bigint FROM t
		ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until)
	SELECT (SELECT lease_until FROM old), us FROM t`

// close takes this replica off the list: what it leaves open is everybody's.
func (e *pgBooks) close() error {
	e.keeper.stop()
	ctx, cancel := context.WithTimeout(context.Background(), pgAnswerWait)
	defer cancel()
	if conn, err := e.connected(ctx); err == nil {
		if _, err := conn.Exec(ctx, "DELETE FROM replicas WHERE id = $1", e.replica); err != nil {
			e.book.log.Warn("books: not signed off; the lease will run out", zap.Error(err))
		}
	}
	pgDrop(e.conn)
	return nil
}

// keeper is the replica's second goroutine: it listens for changes of keys,
// keeps the lease, and ends the holds of replicas that have lost theirs.
type keeper struct {
	quit, ended chan struct{}
	once        sync.Once

	replicas, recovered atomic.Int64
}

func (k *keeper) start(e *pgBooks) {
	k.quit, k.ended = make(chan struct{}), make(chan struct{})
	k.replicas.Store(1)
	go func() {
		defer close(k.ended)
		e.keep()
	}()
}

func (k *keeper) stop() {
	if k.quit == nil {
		return
	}
	k.once.Do(func() { close(k.quit) })
	<-k.ended
}

// rest waits; false when the keeper has to end.
func (k *keeper) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-k.quit:
		return false
	}
}
