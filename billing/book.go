package billing

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Options of Open and OpenAdmin.
type Options struct {
	DataDir  string // made with mode 0700; holds the database, the spill file and the lock
	Path     string // the SQLite file; "" = DataDir/billing.db
	Pepper   []byte // secret of the keys' HMAC-SHA256 digests; nil = plain SHA-256
	Defaults Limits // apply where a key sets nothing; all > 0

	Now         func() time.Time // nil = time.Now
	ReserveWait time.Duration    // how long Reserve waits for its commit; 0 = 250 ms
	SettleWait  time.Duration    // how long Settle waits before it spills; 0 = 1 s
	Log         *zap.Logger      // nil = silent
}

// Book is the gateway's side of the books. It is safe for concurrent use.
type Book struct {
	opt    Options
	log    *zap.Logger
	store  *store
	keys   *keyring
	spill  *spill
	writer *writer
	unlock func()

	abandoned atomic.Int64
	closing   sync.Once
	closeErr  error

	pingMu   sync.Mutex
	lastPing *op

	mu       sync.Mutex
	closed   bool
	period   period
	accounts map[string]*account
	holds    map[string]*openHold
}

// writerBusy is how long the writer waits for another process in one go. It is
// short, so that reserves fail in time and Close is not held up.
const writerBusy = 200 * time.Millisecond

// Open opens the books for a gateway: it takes the lock, migrates, checks the
// file, posts what the spill file and open holds of a crashed predecessor say,
// and loads keys and accounts. Errors: ErrInUse, ErrForeignDatabase,
// ErrMissingDatabase, ErrPepper, ErrInvalid, and whatever the disk says.
func Open(ctx context.Context, o Options) (*Book, error) {
	b, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open books: %w", err)
	}
	return b, nil
}

func open(ctx context.Context, o Options) (b *Book, err error) {
	if o, err = o.prepare(); err != nil {
		return nil, err
	}
	b = &Book{opt: o, log: o.Log, accounts: map[string]*account{}, holds: map[string]*openHold{}}
	if b.log == nil {
		b.log = zap.NewNop()
	}
	b.unlock, err = tryLock(filepath.Join(o.DataDir, lockFile))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, err
	}
	if err := b.start(ctx); err != nil {
		return nil, errors.Join(err, b.release())
	}
	return b, nil
}

func (b *Book) start(ctx context.Context) (err error) {
	if b.store, err = openStore(ctx, b.opt, writerBusy); err != nil {
		return err
	}
	if err := b.store.quickCheck(); err != nil {
		return err
	}
	digests := newDigester(b.opt.Pepper)
	if err := b.store.checkPepper(digests); err != nil {
		return err
	}
	pool, err := b.store.write.DB()
	if err != nil {
		return err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		return err
	}
	stmts, err := prepare(ctx, conn)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	b.writer = &writer{
		book: b, q: newQueue(), stmts: stmts,
		drain: make(chan struct{}), abort: make(chan struct{}), ended: make(chan struct{}),
	}
	if err := b.recover(stmts); err != nil {
		return err
	}
	b.keys = newKeyring(digests)
	if err := stmts.dataVersion.QueryRow().Scan(&b.writer.version); err != nil {
		return err
	}
	if err := b.keys.load(b.store.read); err != nil {
		return err
	}
	if err := b.loadAccounts(); err != nil {
		return err
	}
	go b.writer.run()
	return nil
}

// loadAccounts rebuilds the current day and month from the database. The day
// is the newest that the books know, whatever the clock says.
func (b *Book) loadAccounts() error {
	var newest sql.NullString
	if err := b.store.read.Raw("SELECT max(day) FROM accounts").Scan(&newest).Error; err != nil {
		return err
	}
	b.period = periodOf(b.opt.Now())
	if newest.String > b.period.day {
		day, err := parseDay(newest.String)
		if err != nil {
			return fmt.Errorf("accounts: %w", err)
		}
		b.log.Warn("books: the clock is behind the books", zap.String("day", newest.String))
		b.period = periodOf(day)
	}
	var rows []struct {
		KeyID, Day string
		Used, Held int64
	}
	err := b.store.read.Raw("SELECT key_id, day, used, held FROM accounts WHERE day >= ?", b.period.month+"-01").Scan(&rows).Error
	for _, r := range rows {
		a := b.accounts[r.KeyID]
		if a == nil {
			a = &account{}
			b.accounts[r.KeyID] = a
			a.roll(b.period)
		}
		a.add(r.Day, r.Used, r.Held)
	}
	return err
}

// Close ends the books: nothing more is reserved, what is queued is committed
// or, when ctx ends first, spilled. Holds that are still open are recovered at
// the next Open. Close may be called again.
func (b *Book) Close(ctx context.Context) error {
	b.closing.Do(func() { b.closeErr = b.close(ctx) })
	return b.closeErr
}

func (b *Book) close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	close(b.writer.drain)
	select {
	case <-b.writer.ended:
	case <-ctx.Done():
		close(b.writer.abort)
		<-b.writer.ended
	}
	var errs []error
	for ops, _ := b.writer.q.take(); len(ops) > 0; ops, _ = b.writer.q.take() {
		for _, o := range ops {
			err := fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
			if o.kind == opSettle || o.kind == opCorrect {
				err = b.spill.append(o)
				errs = append(errs, err)
			}
			o.finish(err)
		}
	}
	return errors.Join(append(errs, b.release())...)
}

func (b *Book) release() error {
	var errs []error
	if b.writer != nil {
		errs = append(errs, b.writer.stmts.close(), b.writer.stmts.conn.Close())
	}
	if b.store != nil {
		errs = append(errs, b.store.close())
	}
	if b.spill != nil {
		errs = append(errs, b.spill.close())
	}
	b.unlock()
	return errors.Join(errs...)
}

func (b *Book) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}
