package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
)

// NewKey describes a key to create. Limits are > 0 where given; 0 is the
// gateway's default for Limits and RPM, none for TPM and Concurrent.
type NewKey struct {
	Name, Description string
	Limits            Limits
	RPM               int64     // requests per minute
	TPM               int64     // tokens per minute
	Concurrent        int64     // requests at once
	ExpiresAt         time.Time // zero = never
	Models            []string  // patterns of ModelMatches; empty = all
	Plan              string    // name of a tariff, "" = none
	Origin            string    // "" = "created"
}

// LimitChange changes what is not nil; values are > 0. Clear takes limits of the
// key's own away, by the names of LimitNames: then the gateway's default applies,
// or none where it has none.
type LimitChange struct {
	Tariff, Daily, Monthly, RPM, TPM, Concurrent *int64
	Clear                                        []string
}

// LimitNames are the limits that a key can have of its own.
func LimitNames() []string {
	return []string{"tariff", "daily", "monthly", "rpm", "tpm", "concurrent"}
}

// columns are what changes, by the names of LimitNames. ErrInvalid.
func (c LimitChange) columns() (map[string]any, error) {
	set := map[string]any{}
	for i, v := range []*int64{c.Tariff, c.Daily, c.Monthly, c.RPM, c.TPM, c.Concurrent} {
		if v == nil {
			continue
		}
		if *v <= 0 {
			return nil, fmt.Errorf("%w: a limit must be > 0", ErrInvalid)
		}
		set[LimitNames()[i]] = *v
	}
	for _, name := range c.Clear {
		if !slices.Contains(LimitNames(), name) {
			return nil, fmt.Errorf("%w: no limit has this name", ErrInvalid)
		}
		if _, both := set[name]; both {
			return nil, fmt.Errorf("%w: set %s or clear it", ErrInvalid, name)
		}
		set[name] = int64(0) // "none of its own"
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: nothing to change", ErrInvalid)
	}
	return set, nil
}

// KeyUsage is a key with its figures, in tokens of the current UTC periods.
type KeyUsage struct {
	Key
	UsedToday, UsedMonth int64
	Held                 int64 // in open holds, whatever their period
	RequestsToday        int64
	RequestsMonth        int64
}

// Admin is the operator's side of the books. It works on the database beside a
// running gateway, which sees its changes within a second.
type Admin struct {
	opt     Options
	store   *store
	digests *digester
}

// adminBusy is how long an operator's command waits for the gateway's writer.
const adminBusy = 5 * time.Second

// OpenAdmin opens the books for an operator; it makes them where there are
// none. Errors: ErrForeignDatabase, ErrMissingDatabase, ErrPepper, ErrInvalid.
func OpenAdmin(ctx context.Context, o Options) (*Admin, error) {
	o, err := o.prepare()
	if err != nil {
		return nil, fmt.Errorf("open books: %w", err)
	}
	a := &Admin{opt: o, digests: newDigester(o.Pepper)}
	if o.URL == "" {
		a.store, err = openStore(ctx, o, adminBusy)
		a.opt.Now = o.clock()
	} else {
		var clock *dbClock
		if a.store, clock, err = openPostgres(ctx, o, 0); err == nil {
			a.opt.Now = clock.now
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open books: %w", err)
	}
	if err := a.store.checkPepper(a.digests); err != nil {
		return nil, errors.Join(fmt.Errorf("open books: %w", err), a.store.close())
	}
	return a, nil
}

// Close closes the database.
func (a *Admin) Close() error { return a.store.close() }

// CreateKey makes a key and returns its secret, which is stored nowhere and
// cannot be shown again. ErrInvalid: a negative limit, an expiry in the past,
// or a text that cannot be stored.
func (a *Admin) CreateKey(ctx context.Context, n NewKey) (Key, string, error) {
	k, secret, _, err := a.create(ctx, n, false)
	return k, secret, err
}

// CreateFirstKey makes a key when there has never been any, and says whether it
// did; of all that try at the same time, in any process, one does. Errors as of
// CreateKey.
func (a *Admin) CreateFirstKey(ctx context.Context, n NewKey) (k Key, secret string, made bool, err error) {
	return a.create(ctx, n, true)
}

func (a *Admin) create(ctx context.Context, n NewKey, first bool) (k Key, secret string, made bool, err error) {
	defer func() {
		if err != nil {
			k, secret, made, err = Key{}, "", false, fmt.Errorf("create key: %w", err)
		}
	}()
	now := a.opt.Now()
	if err := n.validate(now); err != nil {
		return k, "", false, err
	}
	if secret, err = NewSecret(); err != nil {
		return k, "", false, err
	}
	if k, err = newKey(n, secret, now); err != nil {
		return k, "", false, err
	}
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		if err := lockKeys(tx); err != nil {
			return err
		}
		if first {
			var keys int64
			if err := tx.Model(&keyRow{}).Count(&keys).Error; err != nil || keys > 0 {
				return err
			}
		}
		made = true
		if n.Plan != "" {
			plans, err := loadTariffs(tx)
			if err != nil {
				return err
			}
			if k.Plan = plans[n.Plan]; k.Plan == nil {
				return ErrUnknownTariff
			}
		}
		return addKey(tx, k, a.digests, secret)
	})
	if err == nil && !made {
		return Key{}, "", false, nil
	}
	return k, secret, made, err
}

func (n *NewKey) validate(now time.Time) error {
	for _, limit := range []int64{n.Limits.Tariff, n.Limits.Daily, n.Limits.Monthly, n.Limits.Money, n.RPM, n.TPM, n.Concurrent} {
		if limit < 0 {
			return fmt.Errorf("%w: a limit must be > 0", ErrInvalid)
		}
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(now) {
		return fmt.Errorf("%w: the expiry is in the past", ErrInvalid)
	}
	for _, text := range append([]string{n.Name, n.Description, n.Origin}, n.Models...) {
		if storable(text) != text {
			return fmt.Errorf("%w: a text is not UTF-8, or has a zero byte", ErrInvalid)
		}
	}
	return nil
}

// Keys lists all keys, oldest first, with their figures of today and this month.
func (a *Admin) Keys(ctx context.Context) ([]KeyUsage, error) {
	var rows []keyRow
	db := a.store.read.WithContext(ctx)
	if err := db.Order("created_at, id").Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	plans, err := loadTariffs(db)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	p := periodOf(a.opt.Now())
	var figures []struct {
		KeyID                                  string
		Today, Month, Held, ReqsDay, ReqsMonth int64
	}
	err = db.Raw(`SELECT key_id, CAST(sum(CASE WHEN day = ? THEN used ELSE 0 END) AS BIGINT) AS today,
			CAST(sum(CASE WHEN day LIKE ? THEN used ELSE 0 END) AS BIGINT) AS month,
			CAST(sum(held) AS BIGINT) AS held,
			CAST(sum(CASE WHEN day = ? THEN requests ELSE 0 END) AS BIGINT) AS reqs_day,
			CAST(sum(CASE WHEN day LIKE ? THEN requests ELSE 0 END) AS BIGINT) AS reqs_month
		FROM accounts GROUP BY key_id`, p.day, p.month+"-%", p.day, p.month+"-%").Scan(&figures).Error
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	at := map[string]int{}
	list := make([]KeyUsage, len(rows))
	for i := range rows {
		if list[i].Key, err = rows[i].key(plans); err != nil {
			return nil, fmt.Errorf("list keys: %w", err)
		}
		at[rows[i].ID] = i
	}
	for _, f := range figures {
		if i, ok := at[f.KeyID]; ok {
			u := &list[i]
			u.UsedToday, u.UsedMonth, u.Held, u.RequestsToday, u.RequestsMonth = f.Today, f.Month, f.Held, f.ReqsDay, f.ReqsMonth
		}
	}
	return list, nil
}

// Find returns a key by its public id or by the secret itself, revoked and
// expired ones included. ErrUnknownKey.
func (a *Admin) Find(ctx context.Context, ref string) (Key, error) {
	row, err := a.row(a.store.read.WithContext(ctx), ref)
	if err != nil {
		return Key{}, fmt.Errorf("find key: %w", err)
	}
	plans, err := loadTariffs(a.store.read.WithContext(ctx))
	if err != nil {
		return Key{}, fmt.Errorf("find key: %w", err)
	}
	return row.key(plans)
}

func (a *Admin) row(tx *gorm.DB, ref string) (*keyRow, error) {
	var rows []keyRow
	var err error
	if strings.HasPrefix(ref, keyIDPrefix) && len(ref) == keyIDLength {
		err = tx.Where("id = ?", ref).Find(&rows).Error
	}
	if err == nil && len(rows) == 0 && plausible(ref) {
		err = tx.Where("digest IN ?", stored(a.digests, ref)).Find(&rows).Error
	}
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, ErrUnknownKey
	}
	return &rows[0], nil
}

// stored lists the digests under which a secret may stand in the database.
func stored(d *digester, secret string) [][]byte {
	var sums [][]byte
	for _, sum := range d.all(secret) {
		sums = append(sums, sum[:])
	}
	return sums
}

func knownSecret(tx *gorm.DB, d *digester, secret string) (bool, error) {
	var n int64
	err := tx.Model(&keyRow{}).Where("digest IN ?", stored(d, secret)).Count(&n).Error
	return n > 0, err
}

// SetLimits changes a key's own limits and returns the key before and after.
// Errors: ErrUnknownKey; ErrInvalid for a value <= 0, a limit that is none or is
// both set and cleared, or no change at all.
func (a *Admin) SetLimits(ctx context.Context, ref string, c LimitChange) (old, now Key, err error) {
	set, err := c.columns()
	if err != nil {
		return old, now, fmt.Errorf("set limits: %w", err)
	}
	old, now, err = a.change(ctx, ref, func(Key) map[string]any { return set })
	if err != nil {
		return old, now, fmt.Errorf("set limits: %w", err)
	}
	return old, now, nil
}

// Revoke ends a key for good; the row stays as a tombstone, so that importing
// its secret again does not bring it back. Revoking twice changes nothing.
func (a *Admin) Revoke(ctx context.Context, ref string) (Key, error) {
	_, now, err := a.change(ctx, ref, func(k Key) map[string]any {
		if !k.RevokedAt.IsZero() {
			return nil
		}
		return map[string]any{"revoked_at": micros(a.opt.Now())}
	})
	if err != nil {
		return Key{}, fmt.Errorf("revoke key: %w", err)
	}
	return now, nil
}

// Expire lets a key end at the given time, as a rotation with overlap does.
// Errors: ErrUnknownKey; ErrInvalid for the zero time.
func (a *Admin) Expire(ctx context.Context, ref string, at time.Time) (Key, error) {
	if at.IsZero() {
		return Key{}, fmt.Errorf("expire key: %w: no time", ErrInvalid)
	}
	_, now, err := a.change(ctx, ref, func(Key) map[string]any { return map[string]any{"expires_at": micros(at)} })
	if err != nil {
		return Key{}, fmt.Errorf("expire key: %w", err)
	}
	return now, nil
}

// change updates columns of one key under a new revision; none = leave it.
func (a *Admin) change(ctx context.Context, ref string, columns func(Key) map[string]any) (old, now Key, err error) {
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		row, err := a.row(a.store.locking(tx), ref)
		if err != nil {
			return err
		}
		plans, err := loadTariffs(tx)
		if err != nil {
			return err
		}
		if old, err = row.key(plans); err != nil {
			return err
		}
		set := columns(old)
		if len(set) == 0 {
			now = old
			return nil
		}
		rev, err := nextRev(tx)
		if err != nil {
			return err
		}
		update := map[string]any{"rev": rev}
		for column, v := range set {
			update[column] = v
		}
		if err := tx.Model(&keyRow{}).Where("id = ?", row.ID).Updates(update).Error; err != nil {
			return err
		}
		if row, err = a.row(tx, row.ID); err != nil {
			return err
		}
		now, err = row.key(plans)
		return err
	})
	return old, now, err
}
