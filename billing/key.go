package billing

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Limits are budgets of one key. Zero means "not set": that of the key's plan
// applies, else the gateway's default. Periods are calendar days and months in
// UTC.
type Limits struct {
	Tariff  int64 // tokens per calendar month by the key's tariff
	Daily   int64 // tokens per day
	Monthly int64 // tokens per calendar month
	Money   int64 // nano-units per calendar month; zero at last means no such budget
}

// or fills what is not set from d.
func (l Limits) or(d Limits) Limits {
	if l.Tariff <= 0 {
		l.Tariff = d.Tariff
	}
	if l.Daily <= 0 {
		l.Daily = d.Daily
	}
	if l.Monthly <= 0 {
		l.Monthly = d.Monthly
	}
	if l.Money <= 0 {
		l.Money = d.Money
	}
	return l
}

// Origins of a key.
const (
	OriginCreated = "created" // by an operator
	OriginEnv     = "env"     // listed in the environment
	OriginDemo    = "demo"    // made for a gateway that had none
	OriginFile    = "file"    // in a keys.json
)

// Tariff is a named plan: limits that many keys share.
type Tariff struct {
	Name        string // lower case letters, digits and hyphens
	Description string
	Limits      Limits // Tariff is > 0
	RPM         int64  // requests per minute, 0 = the gateway's default
	TPM         int64  // tokens per minute, 0 = the gateway's default
	Concurrent  int64  // requests at once, 0 = the gateway's default
}

// Key is what the books know about a client's key; the secret is not in it.
// A Key handed out is a snapshot: its slices must not be modified.
type Key struct {
	ID          string // public and stable: "key_" + 26 characters of Crockford base32; for logs, metrics, URLs
	Name        string
	Description string
	Display     string   // prefix and last four characters of long secrets, else ""
	Own         Limits   // as set on the key; Limits fills the plan's in, Book.Effective the defaults
	RPM         int64    // requests per minute of its own, 0 = the plan's; Rates fills it in
	TPM         int64    // tokens per minute of its own, 0 = the plan's
	Concurrent  int64    // requests at once of its own, 0 = the plan's
	Plan        *Tariff  // nil = none
	Models      []string // allowed models, patterns of ModelMatches; empty = all
	Origin      string   // one of the Origin constants

	CreatedAt, ExpiresAt, RevokedAt, BlockedAt time.Time // UTC; zero = never
}

// Limits are the key's own budgets, else its plan's; zero where neither says.
func (k *Key) Limits() Limits {
	if k.Plan == nil {
		return k.Own
	}
	return k.Own.or(k.Plan.Limits)
}

// Rates are the key's own requests per minute, tokens per minute and requests
// at once, else its plan's; zero where neither says.
func (k *Key) Rates() (rpm, tpm, concurrent int64) {
	rpm, tpm, concurrent = k.RPM, k.TPM, k.Concurrent
	if p := k.Plan; p != nil {
		rpm, tpm, concurrent = cmp.Or(rpm, p.RPM), cmp.Or(tpm, p.TPM), cmp.Or(concurrent, p.Concurrent)
	}
	return rpm, tpm, concurrent
}

// AllowsModel says whether the key may use a model.
func (k *Key) AllowsModel(model string) bool {
	return len(k.Models) == 0 || slices.ContainsFunc(k.Models, func(pattern string) bool { return ModelMatches(pattern, model) })
}

// planName is the name of the key's plan, "" for none.
func (k *Key) planName() string {
	if k.Plan == nil {
		return ""
	}
	return k.Plan.Name
}

// usable says why a key may not be used at now, nil when it may.
func (k *Key) usable(now time.Time) error {
	switch {
	case !k.RevokedAt.IsZero():
		return ErrRevokedKey
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return ErrExpiredKey
	case !k.BlockedAt.IsZero():
		return ErrBlockedKey
	}
	return nil
}

const (
	keyIDPrefix = "key_"
	keyIDLength = len(keyIDPrefix) + 26
	crockford   = "0123456789abcdefghjkmnpqrstvwxyz"
)

// newKeyID mints a public key id. The 128 bits of a UUIDv7 are written as 26
// digits of Crockford's base32, most significant first, as ULIDs are, in lower case.
func newKeyID(now time.Time) (string, error) {
	id, err := newUUID(now)
	if err != nil {
		return "", err
	}
	var out [26]byte
	bits, acc, at := 2, uint32(0), 0 // two leading zero bits make 130
	for _, c := range id {
		acc = acc<<8 | uint32(c)
		for bits += 8; bits >= 5; bits -= 5 {
			out[at] = crockford[acc>>(bits-5)&31]
			at++
		}
	}
	return keyIDPrefix + string(out[:]), nil
}

// newUUID mints a UUIDv7 (RFC 9562) of the given instant, so that ids sort by
// the clock the books run on.
func newUUID(now time.Time) (uuid.UUID, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return id, err
	}
	stamp(&id, now)
	id[6] = id[6]&0x0f | 0x70
	return id, nil
}

// idFloor is the smallest id that newUUID can mint at or after t.
func idFloor(t time.Time) string {
	var id uuid.UUID
	stamp(&id, t)
	return id.String()
}

func stamp(id *uuid.UUID, t time.Time) {
	ms := max(t.UnixMilli(), 0)
	for i := 5; i >= 0; i-- {
		id[i] = byte(ms)
		ms >>= 8
	}
}
