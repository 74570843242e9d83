package billing

import (
	"context"
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
	DataDir  string // made with mode 0700; holds the spill file, the lock and, with SQLite, the database
	Path     string // the SQLite file; "" = DataDir/billing.db
	URL      string // "postgres://…": the books are in PostgreSQL, shared by any number of gateways; "" = SQLite
	Pepper   []byte // secret of the keys' HMAC-SHA256 digests; nil = plain SHA-256
	Defaults Limits // apply where a key sets nothing; all > 0
	Actor    string // who changes things through an Admin, for the record of changes; "" = unknown

	Now         func() time.Time // nil = time.Now, with PostgreSQL the database's clock
	ReserveWait time.Duration    // how long Reserve waits for its commit; 0 = 250 ms
	SettleWait  time.Duration    // how long Settle waits before it spills; 0 = 1 s
	// RefuseUnpriced refuses models that have no price (ErrUnpriced). Otherwise they
	// are metered in tokens only, which the log says once for each.
	RefuseUnpriced bool
	Lease          time.Duration // PostgreSQL: how long a gateway's holds stand when nothing is heard of it; 0 = 10 s
	Log            *zap.Logger   // nil = silent
}

// Book is the gateway's side of the books. It is safe for concurrent use.
type Book struct {
	opt    Options
	log    *zap.Logger
	store  *store
	engine engine
	keys   *keyring
	spill  *spill
	writer *writer
	unlock func()

	defaultLimits atomic.Pointer[Limits] // Options.Defaults, until SetDefaults

	abandoned      atomic.Int64
	refuseUnpriced atomic.Bool
	priceless      priceless
	closing        sync.Once
	closeErr       error

	pingMu   sync.Mutex
	lastPing *op

	mu     sync.Mutex
	closed bool
	holds  map[string]*openHold
}

// writerBusy is how long the writer waits for another process in one go. It is
// short, so that reserves fail in time and Close is not held up.
const writerBusy = 200 * time.Millisecond

// bookQuery is how long a gateway's own query of PostgreSQL may take.
const bookQuery = 30 * time.Second

// Open opens the books for a gateway: it takes the lock, migrates, checks the
// database, posts what the spill file and open holds of a crashed predecessor say,
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
	b = &Book{opt: o, log: o.Log, holds: map[string]*openHold{}}
	b.refuseUnpriced.Store(o.RefuseUnpriced)
	b.defaultLimits.Store(&o.Defaults)
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
	var clock *dbClock
	if b.opt.URL == "" {
		if b.store, err = openStore(ctx, b.opt, writerBusy); err != nil {
			return err
		}
		err = b.store.quickCheck()
		b.opt.Now = b.opt.clock()
	} else {
		if b.store, clock, err = openPostgres(ctx, b.opt, bookQuery); err == nil {
			b.opt.Now = clock.now
		}
	}
	if err != nil {
		return err
	}
	digests := newDigester(b.opt.Pepper)
	if err := b.store.checkPepper(digests); err != nil {
		return err
	}
	b.keys = newKeyring(digests)
	b.writer = &writer{
		book: b, q: newQueue(),
		drain: make(chan struct{}), abort: make(chan struct{}), ended: make(chan struct{}),
	}
	if clock != nil {
		b.engine, err = newPGBooks(b, clock)
	} else {
		b.engine, err = newSQLiteBooks(ctx, b)
	}
	if err != nil {
		return err
	}
	if err := b.keys.load(b.store.read); err != nil { // prices first: recovery reckons with them
		return err
	}
	if err := b.recover(); err != nil {
		return err
	}
	if err := b.engine.begin(); err != nil {
		return err
	}
	go b.writer.run()
	return nil
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
	if b.engine != nil {
		errs = append(errs, b.engine.close())
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
