package billing

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gorm.io/gorm"
)

// keyring is all keys in memory. Readers never wait for the database: rows
// are read first, and only then does the lock pass to the writer's side.
type keyring struct {
	digests *digester
	loading sync.Mutex // one load at a time

	mu       sync.RWMutex
	byDigest map[digest]*Key
	byID     map[string]*Key
	tariffs  tariffs
	prices   *priceList
	unkeyed  bool  // plain digests exist beside a pepper
	rev      int64 // newest change seen
}

func newKeyring(d *digester) *keyring {
	return &keyring{digests: d, byDigest: map[digest]*Key{}, byID: map[string]*Key{}, prices: newPriceList(nil)}
}

// load takes over what changed since the last load: keys, and all tariffs and
// prices, which are few.
func (r *keyring) load(db *gorm.DB) error {
	r.loading.Lock()
	defer r.loading.Unlock()
	var rows []keyRow
	if err := db.Where("rev > ?", r.rev).Order("rev").Find(&rows).Error; err != nil {
		return fmt.Errorf("load keys: %w", err)
	}
	// After the keys, so that it knows every tariff that one of them has.
	tariffs, err := loadTariffs(db)
	if err != nil {
		return fmt.Errorf("load tariffs: %w", err)
	}
	prices, err := loadPrices(db)
	if err != nil {
		return fmt.Errorf("load prices: %w", err)
	}
	keys := make([]Key, len(rows))
	for i := range rows {
		k, err := rows[i].key(tariffs)
		if err != nil {
			return fmt.Errorf("load key %s: %w", rows[i].ID, err)
		}
		keys[i] = k
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range rows {
		if len(rows[i].Digest) == len(digest{}) {
			r.byDigest[digest(rows[i].Digest)] = &keys[i]
		}
		r.byID[keys[i].ID] = &keys[i]
		r.unkeyed = r.unkeyed || rows[i].DigestKind == kindSHA256
		r.rev = max(r.rev, rows[i].Rev)
	}
	r.prices = newPriceList(prices)
	r.replan(tariffs)
	return nil
}

// replan gives each key its plan as it is now. A Key that was handed out stays
// as it was, so one that changes is replaced.
func (r *keyring) replan(now tariffs) {
	before := r.tariffs
	r.tariffs = now
	replaced := map[*Key]*Key{}
	for id, k := range r.byID {
		if k.Plan == nil {
			continue
		}
		plan := now[k.Plan.Name]
		if was := before[k.Plan.Name]; k.Plan == plan || was != nil && plan != nil && *was == *plan {
			continue
		}
		fresh := *k
		fresh.Plan = plan
		replaced[k], r.byID[id] = &fresh, &fresh
	}
	if len(replaced) == 0 {
		return
	}
	for digest, k := range r.byDigest {
		if fresh := replaced[k]; fresh != nil {
			r.byDigest[digest] = fresh
		}
	}
}

// price is the price of a model at an instant, nil for none.
func (r *keyring) price(model string, at time.Time) *Price {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.prices.at(model, at)
}

// anyPrice says whether there is any price at all.
func (r *keyring) anyPrice() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.prices.byID) > 0
}

// priceByID is a price that a hold refers to, nil for none.
func (r *keyring) priceByID(id int64) *Price {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.prices.byID[id]
}

// find looks a presented secret up.
func (r *keyring) find(secret string) *Key {
	if !plausible(secret) {
		return nil
	}
	first := r.digests.of(secret)
	r.mu.RLock()
	k, unkeyed := r.byDigest[first], r.unkeyed
	r.mu.RUnlock()
	if k != nil || !unkeyed || r.digests.kind() == kindSHA256 {
		return k
	}
	second := plain(secret)
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byDigest[second]
}

func (r *keyring) get(id string) *Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id]
}

func (r *keyring) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byID)
}

// Lookup finds the key of a presented secret, in memory and in constant time
// for any number of keys. Errors: ErrUnknownKey, and with the Key ErrRevokedKey,
// ErrExpiredKey, ErrBlockedKey.
func (b *Book) Lookup(secret string) (Key, error) {
	k := b.keys.find(secret)
	if k == nil {
		return Key{}, ErrUnknownKey
	}
	return *k, k.usable(b.opt.Now())
}

// Key finds a key by its public id, revoked and expired ones included.
func (b *Book) Key(id string) (Key, bool) {
	k := b.keys.get(id)
	if k == nil {
		return Key{}, false
	}
	return *k, true
}

// Refresh takes over changes of keys that an Admin made, now instead of at the
// next look, which is less than a second away. It is safe to call at any time.
func (b *Book) Refresh(ctx context.Context) error {
	if err := b.keys.load(b.store.read.WithContext(ctx)); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}

// Effective is what limits k: its own where set, else its plan's, else the
// gateway's defaults.
func (b *Book) Effective(k Key) Limits { return k.Limits().or(b.defaults()) }

// newKey mints the public part of a key.
func newKey(n NewKey, secret string, now time.Time) (Key, error) {
	id, err := newKeyID(now)
	if err != nil {
		return Key{}, err
	}
	origin := n.Origin
	if origin == "" {
		origin = OriginCreated
	}
	return Key{
		ID: id, Name: n.Name, Description: n.Description, Display: display(secret),
		Own: n.Limits, RPM: n.RPM, TPM: n.TPM, Concurrent: n.Concurrent, Models: n.Models, Origin: origin,
		CreatedAt: instant(micros(now)), ExpiresAt: instant(micros(n.ExpiresAt)),
	}, nil
}
