package billing

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"
)

// Change is what an operator changed, as the books remember it.
type Change struct {
	ID      string          // a UUIDv7; ids are in the order of the changes
	At      time.Time       // UTC, whole microseconds
	Actor   string          // who, as Options.Actor says
	Action  string          // the command that does the same, such as "set-limit"
	Subject string          // id of a key, or name of what was changed
	Detail  json.RawMessage // an object: what it was ("before") and is ("after"); no secret is in it
}

// unknownActor stands where Options.Actor says nothing.
const unknownActor = "unknown"

// Actions of changes, in the words of the commands.
const (
	actionCreate       = "create-key"
	actionRevoke       = "revoke-key"
	actionRotate       = "rotate-key"
	actionExpire       = "expire-key"
	actionModels       = "set-models"
	actionSetKey       = "set-key"
	actionLimits       = "set-limit"
	actionBlock        = "block-key"
	actionUnblock      = "unblock-key"
	actionSetTariff    = "set-tariff"
	actionRemoveTariff = "remove-tariff"
	actionSetPrice     = "set-price"
)

// Changes in one answer.
const (
	defaultChanges = 100
	maxChanges     = 1001 // a page of the API and one more
)

// changeRow is a row of the table changes.
type changeRow struct {
	ID      string `gorm:"primaryKey"`
	At      int64
	Actor   string
	Action  string
	Subject string
	Detail  string
}

// TableName is read by GORM.
func (changeRow) TableName() string { return "changes" }

// recordChange remembers a change in the transaction that makes it, after its
// nextRev: so ids are in the order of the commits. Detail is written as JSON; it
// must hold no secret.
func recordChange(tx *gorm.DB, at time.Time, actor, action, subject string, detail any) error {
	var last string
	if err := tx.Raw("SELECT COALESCE(max(id), '') FROM changes").Scan(&last).Error; err != nil {
		return err
	}
	id, err := newChangeID(at, last)
	if err != nil {
		return err
	}
	text, err := json.Marshal(detail)
	if err != nil {
		return fmt.Errorf("record change: %w", err)
	}
	if actor == "" {
		actor = unknownActor
	}
	return tx.Create(&changeRow{
		ID: id, At: micros(at), Actor: storable(actor), Action: action, Subject: subject, Detail: string(text),
	}).Error
}

// newChangeID mints a UUIDv7 that is above the last one, whatever the clock does.
func newChangeID(at time.Time, last string) (string, error) {
	id, err := newUUID(at)
	if err != nil || id.String() > last {
		return id.String(), err
	}
	if id, err = uuid.Parse(last); err != nil {
		return "", err
	}
	for i := len(id) - 1; i >= 0; i-- {
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id.String(), nil
}

// record remembers a change of this operator.
func (a *Admin) record(tx *gorm.DB, action, subject string, detail any) error {
	return recordChange(tx, a.opt.Now(), a.opt.Actor, action, subject, detail)
}

// stepDetail is what was changed, by the names that commands and the API use.
type stepDetail struct {
	Before map[string]any `json:"before,omitempty"`
	After  map[string]any `json:"after,omitempty"`
	NewKey string         `json:"new_key,omitempty"` // of a rotation
}

// stepOf keeps what differs; a nil map is something that is not there.
func stepOf(before, after map[string]any) stepDetail {
	d := stepDetail{Before: map[string]any{}, After: map[string]any{}}
	for name, was := range before {
		if is := after[name]; !reflect.DeepEqual(was, is) {
			d.Before[name] = was
		}
	}
	for name, is := range after {
		if was := before[name]; !reflect.DeepEqual(was, is) {
			d.After[name] = is
		}
	}
	return d
}

// same says that nothing was changed.
func (d *stepDetail) same() bool { return len(d.Before) == 0 && len(d.After) == 0 }

// terms are what operators can change of a key; nil = none of its own.
func (k *Key) terms() map[string]any {
	terms := limitTerms(&k.Own, k.RPM, k.TPM, k.Concurrent)
	terms["name"], terms["description"] = textTerm(k.Name), textTerm(k.Description)
	terms["tariff"] = textTerm(k.planName())
	terms["models"] = nil
	if len(k.Models) > 0 {
		terms["models"] = k.Models
	}
	for name, at := range map[string]time.Time{"expires_at": k.ExpiresAt, "blocked_at": k.BlockedAt, "revoked_at": k.RevokedAt} {
		terms[name] = nil
		if !at.IsZero() {
			terms[name] = at
		}
	}
	return terms
}

func limitTerms(l *Limits, rpm, tpm, concurrent int64) map[string]any {
	terms := map[string]any{"budget": nil}
	for name, n := range map[string]int64{
		"limit": l.Tariff, "daily": l.Daily, "monthly": l.Monthly, "rpm": rpm, "tpm": tpm, "concurrent": concurrent,
	} {
		terms[name] = nil
		if n > 0 {
			terms[name] = n
		}
	}
	if l.Money > 0 {
		terms["budget"] = Money(l.Money)
	}
	return terms
}

func textTerm(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// ChangeQuery selects changes. All of it is optional.
type ChangeQuery struct {
	Subject  string // id of a key, or name of what was changed; "" = all
	From, To string // UTC days, inclusive
	After    string // only changes older than the one with this id
	Limit    int    // at most so many, 1 to 1001; 0 = 100
}

// Changes lists what operators changed, newest first. Rotations are listed for
// the new key too. ErrInvalid: a day that is none, or a limit out of its bounds.
func (a *Admin) Changes(ctx context.Context, q ChangeQuery) ([]Change, error) {
	db := a.store.read.WithContext(ctx).Order("id DESC")
	if q.Limit < 0 || q.Limit > maxChanges {
		return nil, fmt.Errorf("list changes: %w: a limit is 1 to %d", ErrInvalid, maxChanges)
	}
	if q.Limit == 0 {
		q.Limit = defaultChanges
	}
	switch {
	case strings.HasPrefix(q.Subject, keyIDPrefix) && len(q.Subject) == keyIDLength:
		// Of a rotation the subject is the old key; the new one is in the detail.
		db = db.Where("(subject = ? OR action = ? AND detail LIKE ?)", q.Subject, actionRotate, `%"`+q.Subject+`"%`)
	case q.Subject != "":
		db = db.Where("subject = ?", q.Subject)
	}
	if q.From != "" {
		day, err := parseDay(q.From)
		if err != nil {
			return nil, fmt.Errorf("list changes: %w: a day is written 2006-01-02", ErrInvalid)
		}
		db = db.Where("at >= ?", micros(day))
	}
	if q.To != "" {
		day, err := parseDay(q.To)
		if err != nil {
			return nil, fmt.Errorf("list changes: %w: a day is written 2006-01-02", ErrInvalid)
		}
		db = db.Where("at < ?", micros(day.AddDate(0, 0, 1)))
	}
	if q.After != "" {
		db = db.Where("id < ?", q.After)
	}
	var rows []changeRow
	if err := db.Limit(q.Limit).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	list := make([]Change, len(rows))
	for i, r := range rows {
		list[i] = Change{ID: r.ID, At: instant(r.At), Actor: r.Actor, Action: r.Action, Subject: r.Subject, Detail: json.RawMessage(r.Detail)}
	}
	return list, nil
}
