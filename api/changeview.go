package api

import (
	"encoding/json"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

// ChangeView is what an operator changed.
type ChangeView struct {
	ID      string       `json:"id"`
	At      time.Time    `json:"at" doc:"UTC."`
	Actor   string       `json:"actor" doc:"Who: cli and the name at the terminal, api, or gateway." example:"cli:root"`
	Action  string       `json:"action" doc:"The command that does the same." example:"set-limit"`
	Subject string       `json:"subject" doc:"Id of a key, or name of what was changed."`
	Detail  changeDetail `json:"detail" doc:"What it was (before) and is (after), member by member; only what differs. Of a rotation also new_key."`
}

// changeDetail is an object that the books wrote.
type changeDetail json.RawMessage

// MarshalJSON implements [json.Marshaler].
func (d changeDetail) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }

// Schema implements [huma.SchemaProvider].
func (changeDetail) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// Changes are the documents of changes.
func Changes(list []billing.Change) []ChangeView {
	views := make([]ChangeView, 0, len(list))
	for _, c := range list {
		views = append(views, ChangeView{ID: c.ID, At: c.At, Actor: c.Actor, Action: c.Action, Subject: c.Subject, Detail: changeDetail(c.Detail)})
	}
	return views
}
