package billing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"
)

// KeyUsage is a key with its figures, in tokens of the current UTC periods.
type KeyUsage struct {
	Key
	UsedToday, UsedMonth int64
	SpentMonth           Money // charged this month
	Reserved             Money // in open holds, whatever their period
	Held                 int64 // in open holds, whatever their period
	RequestsToday        int64
	RequestsMonth        int64
	LastUsed             time.Time // when the newest charge was posted; zero = never
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
		Spent, Reserved                        int64
	}
	err = db.Raw(`SELECT key_id, CAST(sum(CASE WHEN day = ? THEN used ELSE 0 END) AS BIGINT) AS today,
			CAST(sum(CASE WHEN day LIKE ? THEN used ELSE 0 END) AS BIGINT) AS month,
			CAST(sum(held) AS BIGINT) AS held, CAST(sum(reserved) AS BIGINT) AS reserved,
			CAST(sum(CASE WHEN day LIKE ? THEN spent ELSE 0 END) AS BIGINT) AS spent,
			CAST(sum(CASE WHEN day = ? THEN requests ELSE 0 END) AS BIGINT) AS reqs_day,
			CAST(sum(CASE WHEN day LIKE ? THEN requests ELSE 0 END) AS BIGINT) AS reqs_month
		FROM accounts GROUP BY key_id`, p.day, p.month+"-%", p.month+"-%", p.day, p.month+"-%").Scan(&figures).Error
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
			u.SpentMonth, u.Reserved = Money(f.Spent), Money(f.Reserved)
		}
	}
	var used []struct {
		KeyID string
		Last  int64
	}
	err = db.Raw(lastUses).Scan(&used).Error
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	for _, u := range used {
		if i, ok := at[u.KeyID]; ok {
			list[i].LastUsed = instant(u.Last)
		}
	}
	return list, nil
}

// lastUses reads when the newest charge of each key was posted. A charge is of the
// day of its admission, and no request lasts a day: the newest is among those of
// the last two days that have any, at the end of their entries in the index.
const lastUses = `SELECT keys.id AS key_id, (SELECT max(last) FROM (SELECT
			(SELECT max(settled_at) FROM charges WHERE charges.key_id = newest.key_id AND charges.day = newest.day) AS last
		FROM (SELECT key_id, day FROM accounts WHERE accounts.key_id = keys.id AND requests > 0 ORDER BY day DESC LIMIT 2) AS newest) AS lasts) AS last
	FROM keys WHERE EXISTS (SELECT 1 FROM accounts WHERE accounts.key_id = keys.id AND requests > 0)`

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
