package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

const adminChanges = "/admin/changes"

type (
	changeFilter struct {
		Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Most changes in the answer."`
		After   string `query:"after" pattern:"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" doc:"Only changes after this id in the list, which are older."`
		Subject string `query:"subject" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]+$" doc:"Only of this: the id of a key, of a rotation either one, or the name of a tariff."`
		From    string `query:"from" format:"date" doc:"First UTC day."`
		To      string `query:"to" format:"date" doc:"Last UTC day, inclusive."`
	}
	// ChangePage is a part of the list of changes.
	ChangePage struct {
		Changes []ChangeView `json:"changes"`
		Next    *string      `json:"next" doc:"What to give as after for the next part; null: this was the last."`
	}
)

func (a *admin) changeRoutes() {
	describe(a, huma.Operation{
		OperationID: "changes", Method: http.MethodGet, Path: adminChanges, Summary: "What operators changed, newest first", Tags: []string{"reports"},
	}, []int{503}, a.listChanges)
}

func (a *admin) listChanges(ctx context.Context, in *changeFilter) (*body[ChangePage], error) {
	if in.From != "" && in.To != "" && in.From > in.To {
		return nil, fail(http.StatusBadRequest, codeInvalidValue, "from is after to.").about("from")
	}
	list, err := a.Books.Changes(ctx, billing.ChangeQuery{
		Subject: in.Subject, From: in.From, To: in.To, After: in.After, Limit: in.Limit + 1, // one more says that there is more
	})
	if err != nil {
		return nil, a.broken("list changes", err)
	}
	page := ChangePage{}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		page.Next = &list[in.Limit-1].ID
	}
	page.Changes = Changes(list)
	return &body[ChangePage]{page}, nil
}
