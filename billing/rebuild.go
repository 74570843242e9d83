package billing

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	"gorm.io/gorm"
)

// Rebuilt says what a rebuild of the counters found.
type Rebuilt struct {
	Accounts  int64    `json:"accounts"`  // key and day pairs that have entries
	Corrected []string `json:"corrected"` // each names key, day, counter, what it was and is
}

// counters are what an account counts, and what its entries say.
type counters struct {
	KeyID, Day                            string
	Used, Held, Spent, Reserved, Requests int64
}

// Rebuild counts every account again from the charges and the open holds, and
// corrects those that differ, in one transaction. In books that balance it
// changes nothing. With SQLite no gateway may use the data (ErrInUse), since it
// decides by the accounts in its memory; with PostgreSQL gateways wait meanwhile.
func (a *Admin) Rebuild(ctx context.Context) (Rebuilt, error) {
	r, err := a.rebuild(ctx)
	if err != nil {
		return Rebuilt{}, fmt.Errorf("rebuild counters: %w", err)
	}
	return r, nil
}

func (a *Admin) rebuild(ctx context.Context) (Rebuilt, error) {
	r := Rebuilt{Corrected: []string{}}
	if a.store.pg == nil {
		unlock, err := tryLock(filepath.Join(a.opt.DataDir, lockFile))
		if errors.Is(err, unix.EWOULDBLOCK) {
			return r, ErrInUse
		}
		if err != nil {
			return r, err
		}
		defer unlock()
	}
	err := a.store.inTx(ctx, func(tx *gorm.DB) error {
		if a.store.pg != nil {
			// Accounts change under their key's lock only.
			var ids []string
			if err := tx.Raw("SELECT id FROM keys ORDER BY id FOR NO KEY UPDATE").Scan(&ids).Error; err != nil {
				return err
			}
		}
		var now, should []counters
		if err := tx.Raw("SELECT key_id, day, used, held, spent, reserved, requests FROM accounts ORDER BY key_id, day").Scan(&now).Error; err != nil {
			return err
		}
		err := tx.Raw(`SELECT key_id, day, CAST(sum(used) AS BIGINT) AS used, CAST(sum(held) AS BIGINT) AS held, CAST(sum(spent) AS BIGINT) AS spent,
				CAST(sum(reserved) AS BIGINT) AS reserved, CAST(sum(requests) AS BIGINT) AS requests FROM (
				SELECT key_id, day, total AS used, 0 AS held, cost AS spent, 0 AS reserved, CASE WHEN kind = 'charge' THEN 1 ELSE 0 END AS requests FROM charges
				UNION ALL SELECT key_id, day, 0, tokens, 0, cost, 0 FROM holds WHERE state < 3) AS entries
			GROUP BY key_id, day ORDER BY key_id, day`).Scan(&should).Error
		if err != nil {
			return err
		}
		r.Accounts = int64(len(should))
		for _, c := range recounted(now, should) {
			r.Corrected = append(r.Corrected, c.words...)
			err := tx.Exec(`INSERT INTO accounts (key_id, day, used, held, spent, reserved, requests) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (key_id, day) DO UPDATE SET used = excluded.used, held = excluded.held, spent = excluded.spent,
					reserved = excluded.reserved, requests = excluded.requests`,
				c.KeyID, c.Day, c.Used, c.Held, c.Spent, c.Reserved, c.Requests).Error
			if err != nil {
				return err
			}
		}
		return nil
	})
	return r, err
}

// recount is an account as it should be, with words on what it was.
type recount struct {
	counters
	words []string
}

// recounted are the accounts that are not what their entries say. One without
// entries counts nothing.
func recounted(now, should []counters) []recount {
	was := map[accountKey]counters{}
	for _, c := range now {
		was[accountKey{c.KeyID, c.Day}] = c
	}
	var list []recount
	for _, c := range should {
		k := accountKey{c.KeyID, c.Day}
		if words := difference(was[k], c); len(words) > 0 {
			list = append(list, recount{c, words})
		}
		delete(was, k)
	}
	for _, c := range now { // in their order
		if _, left := was[accountKey{c.KeyID, c.Day}]; !left {
			continue
		}
		none := counters{KeyID: c.KeyID, Day: c.Day}
		if words := difference(c, none); len(words) > 0 {
			list = append(list, recount{none, words})
		}
	}
	return list
}

func difference(was, is counters) (words []string) {
	for _, c := range []struct {
		name    string
		was, is int64
	}{
		{"used tokens", was.Used, is.Used},
		{"held tokens", was.Held, is.Held},
		{"spent nano-units", was.Spent, is.Spent},
		{"reserved nano-units", was.Reserved, is.Reserved},
		{"requests", was.Requests, is.Requests},
	} {
		if c.was != c.is {
			words = append(words, fmt.Sprintf("key %s, day %s: %s: %d -> %d", is.KeyID, is.Day, c.name, c.was, c.is))
		}
	}
	return words
}
