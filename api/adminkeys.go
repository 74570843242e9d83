package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

// Bodies and parameters of the key routes. Numbers end at 2^53-1, the largest
// that every JSON reader takes without rounding. Texts are without control
// characters.
type (
	newKey struct {
		Limit       whole     `json:"limit,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per UTC month of its own, whatever its tariff; absent: the tariff's."`
		Tariff      string    `json:"tariff,omitempty" pattern:"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$" doc:"Name of a tariff, in any case." example:"premium"`
		Name        string    `json:"name,omitempty" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$"`
		Description string    `json:"description,omitempty" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$"`
		Daily       whole     `json:"daily,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per UTC day; absent: the gateway's default."`
		Monthly     whole     `json:"monthly,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per UTC month; absent: the gateway's default."`
		RPM         whole     `json:"rpm,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Requests per minute; absent: the gateway's window."`
		TPM         whole     `json:"tpm,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Tokens per minute; absent: the gateway's default."`
		Concurrent  whole     `json:"concurrent,omitempty" minimum:"1" maximum:"9007199254740991" doc:"Requests that run at once; absent: the gateway's default."`
		Budget      money     `json:"budget,omitempty" doc:"Money per UTC month, in units of the books' currency; absent: the tariff's, or none." example:"25.5"`
		Models      modelList `json:"models,omitempty" doc:"Allowed models; * stands for any text. Absent or empty: all." example:"[\"gpt-4o*\"]"`
		Expires     string    `json:"expires,omitempty" pattern:"^[1-9][0-9]{0,3}[smhd]$" example:"30d" doc:"Lifetime from now: a number of seconds, minutes, hours or days. Not together with expires_at; neither: for ever."`
		ExpiresAt   time.Time `json:"expires_at,omitzero" format:"date-time" doc:"End of the key's life; 409 when it has passed."`
	}
	keyChange struct {
		Limit       ownLimit  `json:"limit,omitzero" doc:"Tokens per UTC month of its own; null: the tariff's, or the gateway's default again."`
		Tariff      ownText   `json:"tariff,omitzero" pattern:"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$" doc:"Name of a tariff, in any case; where limit is not given too, it replaces the key's own. null: no tariff."`
		Daily       ownLimit  `json:"daily,omitzero" doc:"Tokens per UTC day; null: the tariff's, or the gateway's default again."`
		Monthly     ownLimit  `json:"monthly,omitzero" doc:"Tokens per UTC month; null: the tariff's, or the gateway's default again."`
		RPM         ownLimit  `json:"rpm,omitzero" doc:"Requests per minute; null: the tariff's, or the gateway's window again."`
		TPM         ownLimit  `json:"tpm,omitzero" doc:"Tokens per minute; null: the tariff's, or the gateway's default again."`
		Concurrent  ownLimit  `json:"concurrent,omitzero" doc:"Requests that run at once; null: the tariff's, or the gateway's default again."`
		Budget      ownMoney  `json:"budget,omitzero" doc:"Money per UTC month, in units of the books' currency; null: the tariff's, or none."`
		Models      ownModels `json:"models,omitzero" doc:"Allowed models; * stands for any text. null or empty: all."`
		Name        ownText   `json:"name,omitzero" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" doc:"null: none."`
		Description ownText   `json:"description,omitzero" maxLength:"500" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" doc:"null: none."`
		ExpiresAt   ownTime   `json:"expires_at,omitzero" doc:"End of the key's life, 409 when it has passed; null: never. An expired key can be given a longer life."`
	}
	rotation struct {
		Overlap string `json:"overlap,omitempty" pattern:"^(0|[1-9][0-9]{0,3})[smhd]$" default:"24h" doc:"How long the old key stays valid; an earlier expiry of its own stays."`
	}
	// KeyPage is a part of the list of keys.
	KeyPage struct {
		Keys []KeyView `json:"keys"`
		Next *string   `json:"next" doc:"What to give as after for the next part; null: this was the last."`
	}
	keyPath struct {
		ID string `path:"id" pattern:"^key_[0-9a-hjkmnp-tv-z]{26}$" doc:"Public id of the key." example:"key_01hzy3v8qd5w4k6n7m8p9q0rst"`
	}
	keyFilter struct {
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Most keys in the answer."`
		After string `query:"after" pattern:"^key_[0-9a-hjkmnp-tv-z]{26}$" doc:"Only keys after this id."`
		State string `query:"state" enum:"active,blocked,expired,revoked"`
	}
	keyAnd[T any] struct {
		ID   string `path:"id" pattern:"^key_[0-9a-hjkmnp-tv-z]{26}$" doc:"Public id of the key." example:"key_01hzy3v8qd5w4k6n7m8p9q0rst"`
		Body T
	}
	body[T any] struct{ Body T }
)

func (a *admin) keyRoutes() {
	get, post := http.MethodGet, http.MethodPost
	describe(a, huma.Operation{
		OperationID: "list-keys", Method: get, Path: adminKeys, Summary: "List keys", Tags: []string{"keys"},
		Description: "In the order of their ids, which is that of their creation, with the figures of the current day and month.",
	}, []int{503}, a.listKeys)
	describe(a, huma.Operation{
		OperationID: "create-key", Method: post, Path: adminKeys, Summary: "Create a key", Tags: []string{"keys"}, DefaultStatus: http.StatusCreated,
		Description: "The only answer that shows the key. Repeating the request makes another key.",
	}, []int{409, 503}, a.createKey)
	describe(a, huma.Operation{
		OperationID: "show-key", Method: get, Path: adminKey, Summary: "Show a key", Tags: []string{"keys"},
	}, []int{404, 503}, a.showKey)
	describe(a, huma.Operation{
		OperationID: "set-limits", Method: http.MethodPatch, Path: adminKey, Summary: "Change a key", Tags: []string{"keys"},
		Description: "Changes what is given and leaves the rest, all of it or nothing. null takes a value of the key's own away.",
	}, []int{404, 409, 503}, a.setKey)
	describe(a, huma.Operation{
		OperationID: "revoke-key", Method: post, Path: adminKey + "/revoke", Summary: "Revoke a key for good", Tags: []string{"keys"},
		Description: "Revoking twice changes nothing. There is no way back. A body is not read.",
	}, []int{404, 503}, a.revokeKey)
	describe(a, huma.Operation{
		OperationID: "block-key", Method: post, Path: adminKey + "/block", Summary: "Keep a key out until it is let in again", Tags: []string{"keys"},
		Description: "It is refused as an unknown one is; its limits and figures stay as they are. Blocking twice changes nothing. A body is not read.",
	}, []int{404, 409, 503}, a.blockKey)
	describe(a, huma.Operation{
		OperationID: "unblock-key", Method: post, Path: adminKey + "/unblock", Summary: "Let a blocked key in again", Tags: []string{"keys"},
		Description: "A key that is not blocked stays as it is. A body is not read.",
	}, []int{404, 409, 503}, a.unblockKey)
	describe(a, huma.Operation{
		OperationID: "rotate-key", Method: post, Path: adminKey + "/rotate", Summary: "Replace a key by a new one", Tags: []string{"keys"}, DefaultStatus: http.StatusCreated,
		Description: "Makes a key with the same texts, limits, models and expiry, and lets the old one expire after the overlap; both or none. " +
			"The new key has an id of its own, and its budgets start unused.",
	}, []int{404, 409, 503}, a.rotateKey)
}

// views are all keys in the order of their ids.
func (a *admin) views(ctx context.Context) ([]KeyView, error) {
	keys, err := a.Books.Keys(ctx)
	if err != nil {
		return nil, a.broken("list keys", err)
	}
	now, views := a.Now(), make([]KeyView, 0, len(keys))
	defaults := a.Defaults()
	for i := range keys {
		views = append(views, defaults.Key(&keys[i], now))
	}
	slices.SortFunc(views, func(x, y KeyView) int { return cmp.Compare(x.ID, y.ID) })
	return views, nil
}

func (a *admin) listKeys(ctx context.Context, in *keyFilter) (*body[KeyPage], error) {
	all, err := a.views(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(k KeyView) bool { return k.ID <= in.After || in.State != "" && k.State != in.State })
	page := KeyPage{Keys: all}
	if len(all) > in.Limit {
		page.Keys = all[:in.Limit]
		page.Next = &page.Keys[in.Limit-1].ID
	}
	return &body[KeyPage]{page}, nil
}

func (a *admin) showKey(ctx context.Context, in *keyPath) (*body[KeyView], error) {
	all, err := a.views(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all, func(k KeyView) bool { return k.ID == in.ID })
	if at < 0 {
		return nil, noSuchKey("id")
	}
	return &body[KeyView]{all[at]}, nil
}

func (a *admin) createKey(ctx context.Context, in *body[newKey]) (*body[CreatedKey], error) {
	b := &in.Body
	if b.Expires != "" && !b.ExpiresAt.IsZero() {
		return nil, fail(http.StatusBadRequest, codeInvalidValue, "Give expires or expires_at, not both.").about("expires_at")
	}
	if b.Limit == 0 && b.Tariff == "" {
		return nil, fail(http.StatusBadRequest, codeInvalidValue, "Give limit, or tariff, or both.").about("limit")
	}
	n := billing.NewKey{
		Name: strings.TrimSpace(b.Name), Description: strings.TrimSpace(b.Description), Models: b.Models, Plan: b.Tariff,
		Limits: billing.Limits{Tariff: int64(b.Limit), Daily: int64(b.Daily), Monthly: int64(b.Monthly), Money: b.Budget.nano()},
		RPM:    int64(b.RPM), TPM: int64(b.TPM), Concurrent: int64(b.Concurrent), ExpiresAt: b.ExpiresAt.UTC(),
	}
	if b.Expires != "" {
		n.ExpiresAt = a.Now().UTC().Add(lifetime(b.Expires))
	}
	if bad := a.ahead(n.ExpiresAt); bad != nil {
		return nil, bad
	}
	k, secret, err := a.Books.CreateKey(ctx, n)
	if err != nil {
		return nil, a.refused("create key", err)
	}
	defaults := a.Defaults()
	a.changed(ctx, "create key", k.ID, zap.Any("after", defaults.Limits(k)))
	return &body[CreatedKey]{defaults.Created(k, secret)}, nil
}

func (a *admin) setKey(ctx context.Context, in *keyAnd[keyChange]) (*body[ChangedKey], error) {
	change, bad := in.Body.change()
	if bad != nil {
		return nil, bad
	}
	if change.ExpiresAt != nil {
		if bad := a.ahead(*change.ExpiresAt); bad != nil {
			return nil, bad
		}
	}
	if _, err := a.usable(ctx, in.ID, change.ExpiresAt != nil); err != nil {
		return nil, err
	}
	before, after, err := a.Books.SetKey(ctx, in.ID, change)
	if err != nil {
		return nil, a.refused("change key", err)
	}
	view := a.Defaults().Changed(before, after)
	a.changed(ctx, "change key", after.ID, zap.Any("before", view.Old), zap.Any("after", view.New))
	return &body[ChangedKey]{view}, nil
}

// ahead refuses an end of a key's life that has passed.
func (a *admin) ahead(at time.Time) error {
	if !at.IsZero() && !at.After(a.Now()) {
		return fail(http.StatusConflict, codeExpired, "The expiry has passed.").about("expires_at")
	}
	return nil
}

// refused is the answer to what the books refuse of a new key or a change of one.
func (a *admin) refused(what string, err error) error {
	switch {
	case errors.Is(err, billing.ErrUnknownKey):
		return noSuchKey("id")
	case errors.Is(err, billing.ErrRevokedKey):
		return ended(StateRevoked)
	case errors.Is(err, billing.ErrUnknownTariff):
		return noSuchTariff(err)
	}
	return a.broken(what, err)
}

func (a *admin) revokeKey(ctx context.Context, in *keyPath) (*body[RevokedKey], error) {
	k, err := a.Books.Revoke(ctx, in.ID)
	if errors.Is(err, billing.ErrUnknownKey) {
		return nil, noSuchKey("id")
	}
	if err != nil {
		return nil, a.broken("revoke key", err)
	}
	a.changed(ctx, "revoke key", k.ID)
	return &body[RevokedKey]{Revoked(k)}, nil
}

func (a *admin) rotateKey(ctx context.Context, in *keyAnd[rotation]) (*body[RotatedKey], error) {
	r, err := a.Books.Rotate(ctx, in.ID, lifetime(in.Body.Overlap))
	switch {
	case errors.Is(err, billing.ErrUnknownKey):
		return nil, noSuchKey("id")
	case errors.Is(err, billing.ErrRevokedKey):
		return nil, ended(StateRevoked)
	case errors.Is(err, billing.ErrExpiredKey):
		return nil, ended(StateExpired)
	case errors.Is(err, billing.ErrBlockedKey):
		return nil, ended(StateBlocked)
	case err != nil:
		return nil, a.broken("rotate key", err)
	}
	a.changed(ctx, "rotate key", r.New.ID, zap.String("replaces", r.Old.ID), zap.Timep("old_expires_at", Moment(r.Old.ExpiresAt)))
	return &body[RotatedKey]{a.Defaults().Rotated(r)}, nil
}

func (a *admin) blockKey(ctx context.Context, in *keyPath) (*body[BlockedKey], error) {
	k, err := a.Books.Block(ctx, in.ID)
	return a.letIn(ctx, "block key", k, err)
}

func (a *admin) unblockKey(ctx context.Context, in *keyPath) (*body[BlockedKey], error) {
	k, err := a.Books.Unblock(ctx, in.ID)
	return a.letIn(ctx, "unblock key", k, err)
}

func (a *admin) letIn(ctx context.Context, action string, k billing.Key, err error) (*body[BlockedKey], error) {
	switch {
	case errors.Is(err, billing.ErrUnknownKey):
		return nil, noSuchKey("id")
	case errors.Is(err, billing.ErrRevokedKey):
		return nil, ended(StateRevoked)
	case err != nil:
		return nil, a.broken(action, err)
	}
	a.changed(ctx, action, k.ID)
	return &body[BlockedKey]{Blocked(k, a.Now())}, nil
}

// usable finds a key that is not revoked, nor expired where it must live.
func (a *admin) usable(ctx context.Context, id string, revive bool) (billing.Key, error) {
	k, err := a.Books.Find(ctx, id)
	if errors.Is(err, billing.ErrUnknownKey) {
		return k, noSuchKey("id")
	}
	if err != nil {
		return k, a.broken("find key", err)
	}
	if state := StateOf(k, a.Now()); state == StateRevoked || state == StateExpired && !revive {
		return k, ended(state)
	}
	return k, nil
}

func ended(state string) error {
	return fail(http.StatusConflict, "key_"+state, "The key is "+state+".")
}

func noSuchKey(param string) error {
	return fail(http.StatusNotFound, "unknown_key", "No such key.").about(param)
}

// lifetime reads what the pattern of expires and overlap lets through.
func lifetime(text string) time.Duration {
	unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[text[len(text)-1]]
	n, err := strconv.Atoi(text[:len(text)-1])
	if err != nil {
		return 0
	}
	return time.Duration(n) * unit
}

// TransformSchema adds what the tags of members cannot say.
func (newKey) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	// As extensions, so that createKey refuses it, in words of its own.
	s.Extensions = map[string]any{
		"not":   map[string]any{"required": []string{"expires", "expires_at"}},
		"anyOf": []any{map[string]any{"required": []string{"limit"}}, map[string]any{"required": []string{"tariff"}}},
	}
	return s
}

// TransformSchema adds what the tags of members cannot say.
func (keyChange) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Extensions = map[string]any{"minProperties": 1}
	return s
}
