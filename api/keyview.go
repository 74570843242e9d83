package api

import (
	"cmp"
	"time"

	"github.com/MaksimVF/llm-gateway/billing"
)

// States of a key, as they are shown.
const (
	StateActive  = "active"
	StateRevoked = "revoked"
	StateExpired = "expired"
	StateBlocked = "blocked"
)

// Defaults are the limits of a key that sets none of its own.
type Defaults struct {
	Requests        int64         // per Window
	Window          time.Duration // of Requests
	Tariff          int64         // tokens per UTC month by tariff
	Daily           int64         // tokens per UTC day
	Monthly         int64         // tokens per UTC month
	TokensPerMinute int64         // 0: no such limit
	Concurrent      int64         // requests that run at once, 0: no such limit
}

// LimitsView is what bounds a key: its own figures, else its tariff's, else the
// gateway's defaults.
type LimitsView struct {
	Tariff      *string `json:"tariff" doc:"Name of the key's tariff; null: none."`
	Limit       int64   `json:"limit" doc:"Tokens per UTC month by tariff."`
	LimitSource string  `json:"limit_source" enum:"own,tariff,default" doc:"Whose figure limit is."`
	Daily       int64   `json:"daily" doc:"Tokens per UTC day."`
	Monthly     int64   `json:"monthly" doc:"Tokens per UTC month."`
	RPM         int64   `json:"rpm" doc:"Requests per minute of its own; 0: the gateway's window applies."`
	TPM         int64   `json:"tpm" doc:"Tokens per minute; 0: no such limit."`
	Concurrent  int64   `json:"concurrent" doc:"Requests that run at once; 0: no such limit."`
	Budget      *string `json:"budget" doc:"Money per UTC month, in units of the books' currency; null: no such budget." example:"25.5"`
}

// Whose figure a limit is.
const (
	sourceOwn     = "own"
	sourceTariff  = "tariff"
	sourceDefault = "default"
)

// Limits are those that apply to a key.
func (d Defaults) Limits(k billing.Key) LimitsView {
	own := k.Limits()
	rpm, tpm, concurrent := k.Rates()
	v := LimitsView{
		Limit: cmp.Or(own.Tariff, d.Tariff), LimitSource: sourceDefault,
		Daily:   cmp.Or(own.Daily, d.Daily),
		Monthly: cmp.Or(own.Monthly, d.Monthly),
		RPM:     rpm,

		TPM:        cmp.Or(tpm, d.TokensPerMinute),
		Concurrent: cmp.Or(concurrent, d.Concurrent),
		Budget:     amount(own.Money),
	}
	switch {
	case k.Own.Tariff > 0:
		v.LimitSource = sourceOwn
	case k.Plan != nil:
		v.LimitSource = sourceTariff
	}
	if k.Plan != nil {
		v.Tariff = &k.Plan.Name
	}
	return v
}

// amount is money in a document, null for none.
func amount(nano int64) *string {
	if nano <= 0 {
		return nil
	}
	text := billing.Money(nano).String()
	return &text
}

// CreatedKey is the document of a new key, the only one that shows a secret.
type CreatedKey struct {
	ID          string `json:"id" doc:"Public id, for every other call."`
	Key         string `json:"key" doc:"The key itself. It is shown this once: the books keep a digest only."`
	Name        string `json:"name"`
	Description string `json:"description"`
	LimitsView
	Models    []string   `json:"models" doc:"Allowed models, as patterns; empty: all."`
	ExpiresAt *time.Time `json:"expires_at" doc:"null: never."`
	CreatedAt *time.Time `json:"created_at"`
}

// Created is the document of a key that was just made.
func (d Defaults) Created(k billing.Key, secret string) CreatedKey {
	return CreatedKey{
		ID: k.ID, Key: secret, Name: k.Name, Description: k.Description, LimitsView: d.Limits(k),
		Models: modelsOf(k), ExpiresAt: Moment(k.ExpiresAt), CreatedAt: Moment(k.CreatedAt),
	}
}

// RotatedKey is the document of a key in the place of an old one.
type RotatedKey struct {
	CreatedKey
	Replaces     string     `json:"replaces" doc:"Id of the old key."`
	OldExpiresAt *time.Time `json:"old_expires_at" doc:"When the old key stops to be valid."`
}

// Rotated is the document of a rotation that was just made.
func (d Defaults) Rotated(r billing.Rotation) RotatedKey {
	return RotatedKey{CreatedKey: d.Created(r.New, r.Secret), Replaces: r.Old.ID, OldExpiresAt: Moment(r.Old.ExpiresAt)}
}

// KeyView is a key with its figures of the current UTC day and month. The
// secret is not in it.
type KeyView struct {
	ID          string `json:"id"`
	Display     string `json:"display" doc:"Masked key; empty where the key is too short to show any of it."`
	Name        string `json:"name"`
	Description string `json:"description"`
	State       string `json:"state" enum:"active,blocked,expired,revoked"`
	Origin      string `json:"origin" doc:"created by an operator, env (ALLOWED_API_KEYS), file (a keys.json) or demo."`
	LimitsView
	UsedToday     int64      `json:"used_today" doc:"Tokens."`
	UsedMonth     int64      `json:"used_month" doc:"Tokens."`
	SpentMonth    string     `json:"spent_month" doc:"Money, exact: a decimal text in units of the books' currency."`
	Held          int64      `json:"held" doc:"Tokens held by requests that are running."`
	RequestsToday int64      `json:"requests_today"`
	RequestsMonth int64      `json:"requests_month"`
	LastUsedAt    *time.Time `json:"last_used_at" doc:"When its newest charge was posted; null: it was never used."`
	Models        []string   `json:"models" doc:"Allowed models, as patterns; empty: all."`
	CreatedAt     *time.Time `json:"created_at"`
	ExpiresAt     *time.Time `json:"expires_at" doc:"null: never."`
	BlockedAt     *time.Time `json:"blocked_at" doc:"null: it is not blocked."`
	RevokedAt     *time.Time `json:"revoked_at" doc:"null: never."`
}

// Key is the document of a key at the given time.
func (d Defaults) Key(k *billing.KeyUsage, now time.Time) KeyView {
	return KeyView{
		ID: k.ID, Display: k.Display, Name: k.Name, Description: k.Description,
		State: StateOf(k.Key, now), Origin: k.Origin,
		LimitsView: d.Limits(k.Key),
		UsedToday:  k.UsedToday, UsedMonth: k.UsedMonth, SpentMonth: k.SpentMonth.String(), Held: k.Held,
		RequestsToday: k.RequestsToday, RequestsMonth: k.RequestsMonth,
		LastUsedAt: Moment(k.LastUsed), Models: modelsOf(k.Key),
		CreatedAt: Moment(k.CreatedAt), ExpiresAt: Moment(k.ExpiresAt),
		BlockedAt: Moment(k.BlockedAt), RevokedAt: Moment(k.RevokedAt),
	}
}

// RevokedKey is the document of a revocation.
type RevokedKey struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	State     string     `json:"state" enum:"revoked"`
	RevokedAt *time.Time `json:"revoked_at"`
}

// Revoked is the document of a key that was just revoked.
func Revoked(k billing.Key) RevokedKey {
	return RevokedKey{ID: k.ID, Name: k.Name, State: StateRevoked, RevokedAt: Moment(k.RevokedAt)}
}

// BlockedKey is the document of a key that was blocked, or let in again.
type BlockedKey struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	State     string     `json:"state" enum:"active,blocked,expired" doc:"A blocked key that has expired is expired."`
	BlockedAt *time.Time `json:"blocked_at" doc:"null: it is not blocked."`
}

// Blocked is the document of a key that was just blocked, or let in again.
func Blocked(k billing.Key, now time.Time) BlockedKey {
	return BlockedKey{ID: k.ID, Name: k.Name, State: StateOf(k, now), BlockedAt: Moment(k.BlockedAt)}
}

// KeyTerms are what can be changed of a key.
type KeyTerms struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	LimitsView
	Models    []string   `json:"models" doc:"Allowed models, as patterns; empty: all."`
	ExpiresAt *time.Time `json:"expires_at" doc:"null: never."`
}

// ChangedKey is the document of a change of a key.
type ChangedKey struct {
	ID   string   `json:"id"`
	Name string   `json:"name"`
	Old  KeyTerms `json:"old"`
	New  KeyTerms `json:"new"`
}

// Changed is the document of a key before and after a change.
func (d Defaults) Changed(before, after billing.Key) ChangedKey {
	return ChangedKey{ID: after.ID, Name: after.Name, Old: d.terms(before), New: d.terms(after)}
}

func (d Defaults) terms(k billing.Key) KeyTerms {
	return KeyTerms{Name: k.Name, Description: k.Description, LimitsView: d.Limits(k), Models: modelsOf(k), ExpiresAt: Moment(k.ExpiresAt)}
}

// modelsOf is never nil: a list in every document, for those who count it.
func modelsOf(k billing.Key) []string { return append([]string{}, k.Models...) }

// StateOf is a key's state at the given time.
func StateOf(k billing.Key, now time.Time) string {
	switch {
	case !k.RevokedAt.IsZero():
		return StateRevoked
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return StateExpired
	case !k.BlockedAt.IsZero():
		return StateBlocked
	}
	return StateActive
}

// Moment is a time in a document: UTC in whole seconds (RFC 3339), null for the
// zero time.
func Moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}
