package billing

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"gorm.io/gorm"
)

// ChainHead is the end of one writer's chain. A checkpoint is such heads, kept
// where who can change the books cannot change them.
type ChainHead struct {
	Writer  string `json:"writer"`
	Links   int64  `json:"links"`
	Charges int64  `json:"charges"` // that its links seal
	Hash    string `json:"hash"`    // of the last link, hexadecimal
}

// linkRow is a row of the table links.
type linkRow struct {
	Writer  string
	Link    int64
	Charges int64
	Sealed  []byte
	Hash    []byte
}

// linksBatch bounds what an audit has in memory: so many links of at most
// batchMax charges.
const linksBatch = 32

// chainAudit goes along all chains, link by link.
type chainAudit struct {
	tx     *gorm.DB
	prices *priceList
	known  map[string]ChainHead // of a checkpoint: what must still be there

	heads    []ChainHead
	sealed   int64 // charges in links
	found    int64 // those of them that are in the books
	problems []string
}

// problem notes what is wrong; a report is bounded.
func (a *chainAudit) problem(format string, args ...any) {
	if len(a.problems) < problemsMax {
		a.problems = append(a.problems, fmt.Sprintf(format, args...))
	}
}

// auditChains proves that the charges are those that were written: each as it
// was, none gone, none added. It also reckons each charge's cost again.
func auditChains(tx *gorm.DB, checkpoint []ChainHead) (heads []ChainHead, problems []string, err error) {
	prices, err := loadPrices(tx)
	if err != nil {
		return nil, nil, err
	}
	a := &chainAudit{tx: tx, prices: newPriceList(prices), known: map[string]ChainHead{}, heads: []ChainHead{}}
	for _, h := range checkpoint {
		a.known[h.Writer] = h
	}
	var last linkRow
	for {
		var links []linkRow
		err := tx.Raw("SELECT writer, link, charges, sealed, hash FROM links WHERE (writer, link) > (?, ?) ORDER BY writer, link LIMIT ?",
			last.Writer, last.Link, linksBatch).Scan(&links).Error
		if err != nil {
			return nil, nil, err
		}
		if len(links) == 0 {
			break
		}
		for i := range links {
			a.follow(&last, &links[i])
			last = links[i]
		}
		if err := a.charges(links); err != nil {
			return nil, nil, err
		}
	}
	for writer := range a.known {
		a.problem("chain %s: expected at least %d links (checkpoint), found fewer: charges at its end were removed", writer, a.known[writer].Links)
	}
	if err := a.strangers(); err != nil {
		return nil, nil, err
	}
	return a.heads, a.problems, nil
}

// follow proves that a link follows the one before it.
func (a *chainAudit) follow(last, l *linkRow) {
	number, before := last.Link+1, last.Hash
	if l.Writer != last.Writer {
		number, before = 1, firstHash(l.Writer)
		a.heads = append(a.heads, ChainHead{Writer: l.Writer})
	}
	if l.Link != number {
		a.problem("chain %s: expected link %d, found %d: links between were removed", l.Writer, number, l.Link)
	} else if !bytes.Equal(l.Hash, nextHash(before, l.Sealed)) {
		a.problem("chain %s, link %d: its hash does not follow from the link before it: one of them was changed", l.Writer, l.Link)
	}
	head := &a.heads[len(a.heads)-1]
	head.Links, head.Hash = l.Link, hex.EncodeToString(l.Hash)
	head.Charges += int64(len(l.Sealed) / sealSize)
	a.sealed += int64(len(l.Sealed) / sealSize)
	if k, ok := a.known[l.Writer]; ok && k.Links == l.Link {
		delete(a.known, l.Writer)
		if k.Hash != head.Hash {
			a.problem("chain %s, link %d: expected hash %s (checkpoint), found %s", l.Writer, l.Link, k.Hash, head.Hash)
		}
	}
}

// sealedCharge is a charge as a link seals it.
type sealedCharge struct {
	digest []byte
	link   *linkRow
}

// charges holds the charges of some links to their seals.
func (a *chainAudit) charges(links []linkRow) error {
	var ids []string
	sealed := map[string]sealedCharge{}
	for i := range links {
		for _, s := range seals(links[i].Sealed) {
			id := s.id().String()
			if first, twice := sealed[id]; twice {
				a.problem("charge %s: sealed twice (chain %s, link %d)", id, first.link.Writer, first.link.Link)
			}
			ids = append(ids, id)
			sealed[id] = sealedCharge{s[len(uuid.UUID{}):], &links[i]}
		}
	}
	for part := range slices.Chunk(ids, sealBatch) {
		if err := a.compare(part, sealed); err != nil {
			return err
		}
	}
	return nil
}

// seals are what a link seals.
func seals(sealed []byte) (list []seal) {
	for part := range slices.Chunk(sealed, sealSize) {
		if len(part) == sealSize { // the database sees to it
			list = append(list, seal(part))
		}
	}
	return list
}

func (a *chainAudit) compare(ids []string, sealed map[string]sealedCharge) error {
	charges, err := chargesOf(a.tx.Raw("SELECT "+chargeColumns+" FROM charges WHERE id IN ?", ids).Rows())
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for i := range charges {
		c := &charges[i]
		there[c.ID] = true
		digest, s := c.digest(), sealed[c.ID]
		if !bytes.Equal(digest[:], s.digest) {
			a.problem("key %s, day %s, charge %s: it was changed after it was written (chain %s, link %d)", c.KeyID, c.Day, c.ID, s.link.Writer, s.link.Link)
			continue
		}
		a.reckon(c)
	}
	a.found += int64(len(charges))
	for _, id := range ids {
		if !there[id] {
			a.problem("charge %s: it was removed (chain %s, link %d)", id, sealed[id].link.Writer, sealed[id].link.Link)
		}
	}
	return nil
}

// reckon holds a charge's cost to its tokens and its price.
func (a *chainAudit) reckon(c *charge) {
	where := fmt.Sprintf("key %s, day %s, charge %s", c.KeyID, c.Day, c.ID)
	want := int64(0)
	if c.Price != 0 {
		p := a.prices.byID[c.Price]
		switch {
		case p == nil:
			a.problem("%s: expected its price %d in the books, found none", where, c.Price)
			return
		case !ModelMatches(p.Model, c.Model) || p.ValidFrom.After(instant(c.AdmittedAt)):
			a.problem("%s: price %d is of %s from %s on, and not for it", where, p.ID, p.Model, p.ValidFrom)
			return
		}
		want = int64(p.Cost(c.Tokens))
	}
	if c.Cost != want {
		a.problem("%s: cost: expected %s (its tokens at price %d), found %s", where, Money(want), c.Price, Money(c.Cost))
	}
}

// strangers names charges that no link seals.
func (a *chainAudit) strangers() error {
	var all int64
	if err := a.tx.Raw("SELECT count(*) FROM charges").Scan(&all).Error; err != nil || all == a.found {
		return err
	}
	known := map[string]bool{}
	if err := a.each("SELECT sealed FROM links", func(sealed []byte) {
		for _, s := range seals(sealed) {
			known[s.id().String()] = true
		}
	}); err != nil {
		return err
	}
	strangers := 0
	err := a.each("SELECT id FROM charges ORDER BY id", func(id []byte) {
		if !known[string(id)] {
			strangers++
			a.problem("charge %s: no link of a chain seals it: it was added by somebody else, or by an older version of the gateway", id)
		}
	})
	if err == nil && strangers == 0 {
		a.problem("chains: expected each charge in one link, found some in several")
	}
	return err
}

// each calls f with the one column of each row.
func (a *chainAudit) each(query string, f func([]byte)) error {
	rows, err := a.tx.Raw(query).Rows()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var value []byte
		if err := rows.Scan(&value); err != nil {
			return err
		}
		f(value)
	}
	return rows.Err()
}
