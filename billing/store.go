package billing

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
	_ "modernc.org/sqlite" // registers the pure Go driver "sqlite"
)

//go:embed migrations
var migrations embed.FS

const (
	databaseFile = "billing.db"
	spillFile    = "spill.jsonl"
	lockFile     = "gateway.lock"
	migrateFile  = "migrate.lock"
	instanceFile = "instance"
	booksFormat  = "llm-gateway books"
)

// store is the open database: one connection that writes, a pool that cannot.
type store struct {
	path     string // the SQLite file
	instance string
	write    *gorm.DB
	read     *gorm.DB        // with PostgreSQL the same as write
	pg       *pgx.ConnConfig // nil = SQLite
}

// openStore opens the books' database, making and migrating it where it is
// new. busy is how long a statement waits for another process's lock.
func openStore(ctx context.Context, o Options, busy time.Duration) (*store, error) {
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, filepath.Join(o.DataDir, migrateFile))
	if err != nil {
		return nil, err
	}
	defer unlock()

	fresh, err := inspect(o.DataDir, path)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := createFile(path); err != nil {
			return nil, err
		}
	}
	s := &store{path: path}
	if err := s.open(ctx, busy, fresh); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := claim(o.DataDir, s.instance); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *store) open(ctx context.Context, busy time.Duration, fresh bool) (err error) {
	if s.write, err = connect(dsn(s.path, busy, "&_pragma=wal_autocheckpoint(4000)&_txlock=immediate"), 1); err != nil {
		return err
	}
	if err = s.migrate(ctx, fresh); err != nil {
		return fmt.Errorf("migrate %s: %w", s.path, err)
	}
	if s.read, err = connect(dsn(s.path, busy, "&_pragma=query_only(1)"), 4); err != nil {
		return err
	}
	if err = s.assertPragmas(); err != nil {
		return err
	}
	return s.read.Raw("SELECT v FROM meta WHERE k = 'instance'").Scan(&s.instance).Error
}

// dsn spells the pragmas so that they hold on every pooled connection.
func dsn(path string, busy time.Duration, more string) string {
	return fileURL(path) + fmt.Sprintf("?_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)"+
		"&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=journal_size_limit(67108864)"+
		"&_time_format=sqlite", busy.Milliseconds()) + more
}

func fileURL(path string) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}).String()
}

func connect(dsn string, conns int) (*gorm.DB, error) {
	db, err := gorm.Open(sqlite.New(sqlite.Config{DriverName: "sqlite", DSN: dsn}), &gorm.Config{
		Logger:                 logger.Discard, // statements carry digests
		SkipDefaultTransaction: true,
	})
	if err != nil {
		return nil, err
	}
	pool, err := db.DB()
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(conns)
	pool.SetMaxIdleConns(conns)
	return db, nil
}

// assertPragmas reads back what the DSN asked for: a typo in a DSN is silent.
func (s *store) assertPragmas() error {
	for _, p := range []struct {
		db         *gorm.DB
		name, want string
	}{
		{s.write, "journal_mode", "wal"},
		{s.write, "synchronous", "2"},
		{s.write, "foreign_keys", "1"},
		{s.write, "wal_autocheckpoint", "4000"},
		{s.write, "journal_size_limit", "67108864"},
		{s.read, "query_only", "1"},
		{s.read, "journal_mode", "wal"},
	} {
		var got string
		if err := p.db.Raw("PRAGMA " + p.name).Scan(&got).Error; err != nil {
			return err
		}
		if got != p.want {
			return fmt.Errorf("pragma %s is %q, want %q", p.name, got, p.want)
		}
	}
	return nil
}

func (s *store) migrate(ctx context.Context, fresh bool) error {
	pool, err := s.write.DB()
	if err != nil {
		return err
	}
	all, err := steps(goose.DialectSQLite3, pool)
	if err != nil {
		return err
	}
	if err := migrateUp(ctx, all); err != nil {
		return err
	}
	if fresh {
		// The schema goes to the main file at once: inspect reads that file alone.
		_, err = pool.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	}
	return err
}

// errNewerSchema: a newer program made the database.
var errNewerSchema = errors.New("newer than this program's")

// migrateUp brings a schema up to date, and refuses one from the future.
func migrateUp(ctx context.Context, steps *goose.Provider) error {
	have, newest, err := steps.GetVersions(ctx)
	if err != nil {
		return err
	}
	if have > newest {
		return fmt.Errorf("schema version %d is %w %d", have, errNewerSchema, newest)
	}
	if have < newest {
		_, err = steps.Up(ctx)
	}
	return err
}

// quickCheck lets SQLite look for damage.
func (s *store) quickCheck() error {
	if err := undamaged(s.read); err != nil {
		return fmt.Errorf("check %s: %w", s.path, err)
	}
	return nil
}

// checkPepper refuses a pepper that is not the one of the stored digests, and
// remembers a first one.
func (s *store) checkPepper(d *digester) error {
	var keyed int64
	if err := s.read.Model(&keyRow{}).Where("digest_kind = ?", kindHMAC).Count(&keyed).Error; err != nil {
		return err
	}
	if len(d.pepper) == 0 {
		if keyed > 0 {
			return fmt.Errorf("%w: none is configured", ErrPepper)
		}
		return nil
	}
	if known, err := pepperCheck(s.read); err != nil || known == d.check() {
		return err
	}
	return s.inTx(context.Background(), func(tx *gorm.DB) error {
		if err := lockKeys(tx); err != nil {
			return err
		}
		known, err := pepperCheck(tx)
		if err != nil || known == d.check() {
			return err
		}
		if keyed > 0 {
			return fmt.Errorf("%w: another one is configured", ErrPepper)
		}
		return tx.Exec("INSERT INTO meta (k, v) VALUES ('pepper_check', ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
			d.check()).Error
	})
}

// pepperCheck is the remembered check of the pepper, "" for none.
func pepperCheck(tx *gorm.DB) (known string, err error) {
	err = tx.Raw("SELECT v FROM meta WHERE k = 'pepper_check'").Scan(&known).Error
	return known, err
}

func (s *store) close() error {
	var errs []error
	pools := []*gorm.DB{s.read, s.write}
	if s.read == s.write {
		pools = pools[:1]
	}
	for _, db := range pools {
		if db == nil {
			continue
		}
		pool, err := db.DB()
		if err == nil {
			err = pool.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// lock waits for an exclusive flock on path; the kernel drops it with the process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		unlock, err = tryLock(path)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
		case <-retry.C:
		}
	}
}

func tryLock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// createFile makes an empty database file with mode 0600, which SQLite gives
// to its own side files too.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// prepare fills the defaults of o in and makes the data directory.
func (o Options) prepare() (Options, error) {
	if o.DataDir == "" {
		return o, fmt.Errorf("%w: no data directory", ErrInvalid)
	}
	d := o.Defaults
	if d.Tariff <= 0 || d.Daily <= 0 || d.Monthly <= 0 {
		return o, fmt.Errorf("%w: default limits must be > 0", ErrInvalid)
	}
	if o.Path == "" {
		o.Path = filepath.Join(o.DataDir, databaseFile)
	}
	if o.ReserveWait <= 0 {
		o.ReserveWait = 250 * time.Millisecond
	}
	if o.SettleWait <= 0 {
		o.SettleWait = time.Second
	}
	if o.Lease <= 0 {
		o.Lease = 10 * time.Second
	}
	return o, os.MkdirAll(o.DataDir, 0o700)
}

// clock is the clock of books that have none of their own.
func (o Options) clock() func() time.Time {
	if o.Now != nil {
		return o.Now
	}
	return time.Now
}

// inTx runs f in one immediate transaction of the write connection.
func (s *store) inTx(ctx context.Context, f func(tx *gorm.DB) error) error {
	return s.write.WithContext(ctx).Transaction(f, &sql.TxOptions{})
}

// locking makes a query of keys keep its rows until the transaction ends. A
// transaction of SQLite has the whole file.
func (s *store) locking(tx *gorm.DB) *gorm.DB {
	if s.pg == nil {
		return tx
	}
	return tx.Clauses(clause.Locking{Strength: "NO KEY UPDATE"}).Session(&gorm.Session{})
}

// still says how a transaction sees one state of the books throughout.
func (s *store) still() *sql.TxOptions {
	if s.pg == nil {
		return &sql.TxOptions{ReadOnly: true}
	}
	return &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
}

// view runs f over one state of the books. It never keeps the writer waiting.
func (s *store) view(ctx context.Context, f func(tx *gorm.DB) error) error {
	return s.read.WithContext(ctx).Transaction(f, s.still())
}
