package billing

import (
	"time"

	"github.com/google/uuid"
)

// Limits are token budgets of one key. Zero means "not set on the key": the
// gateway's default applies. Periods are calendar days and months in UTC.
type Limits struct {
	Tariff  int64 // tokens per calendar month by the key's tariff
	Daily   int64 // tokens per day
	Monthly int64 // tokens per calendar month
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
	return l
}

// Origins of a key.
const (
	OriginCreated = "created" // by an operator
	OriginEnv     = "env"     // listed in the environment
	OriginDemo    = "demo"    // made for a gateway that had none
	OriginFile    = "file"    // in a keys.json
)

// Key is what the books know about a client's key; the secret is not in it.
// A Key handed out is a snapshot: its slices must not be modified.
type Key struct {
	ID          string // public and stable: "key_" + 26 characters of Crockford base32; for logs, metrics, URLs
	Name        string
	Description string
	Display     string   // prefix and last four characters of long secrets, else ""
	Own         Limits   // as set on the key; Book.Effective fills the defaults in
	RPM         int64    // requests per window of its own, 0 = the gateway's default
	TPM         int64    // tokens per minute, 0 = none
	Concurrent  int64    // requests at once, 0 = none
	Models      []string // allowed models, empty = all
	Origin      string   // "created", "env", "demo" or "file"

	CreatedAt, ExpiresAt, RevokedAt time.Time // UTC; zero = never
}

// usable says why a key may not be used at now, nil when it may.
func (k *Key) usable(now time.Time) error {
	switch {
	case !k.RevokedAt.IsZero():
		return ErrRevokedKey
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return ErrExpiredKey
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
