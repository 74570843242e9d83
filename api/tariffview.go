package api

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

// TariffView is a named tariff: limits that many keys share.
type TariffView struct {
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Limit       int64   `json:"limit" doc:"Tokens per UTC month."`
	Daily       *int64  `json:"daily" doc:"Tokens per UTC day; null: the gateway's default."`
	Monthly     *int64  `json:"monthly" doc:"Tokens per UTC month; null: the gateway's default."`
	RPM         *int64  `json:"rpm" doc:"Requests per minute; null: the gateway's window."`
	TPM         *int64  `json:"tpm" doc:"Tokens per minute; null: the gateway's default."`
	Concurrent  *int64  `json:"concurrent" doc:"Requests that run at once; null: the gateway's default."`
	Budget      *string `json:"budget" doc:"Money per UTC month, in units of the books' currency; null: no such budget." example:"25.5"`
}

// NamedTariff is a named tariff and how many keys have it.
type NamedTariff struct {
	TariffView
	Keys int64 `json:"keys" doc:"Keys that have it and are not revoked."`
}

// TariffOf is the document of a tariff.
func TariffOf(t *billing.Tariff) TariffView {
	return TariffView{
		Name: t.Name, Description: t.Description, Limit: t.Limits.Tariff, Daily: ownOrNull(t.Limits.Daily), Monthly: ownOrNull(t.Limits.Monthly),
		RPM: ownOrNull(t.RPM), TPM: ownOrNull(t.TPM), Concurrent: ownOrNull(t.Concurrent), Budget: amount(t.Limits.Money),
	}
}

// NamedTariffs are the documents of tariffs in use.
func NamedTariffs(list []billing.TariffUse) []NamedTariff {
	views := make([]NamedTariff, 0, len(list))
	for i := range list {
		views = append(views, NamedTariff{TariffOf(&list[i].Tariff), list[i].Keys})
	}
	return views
}

// ChangedTariff is the document of a change of a tariff.
type ChangedTariff struct {
	Name string      `json:"name"`
	Old  *TariffView `json:"old" doc:"null: there was none of this name."`
	New  TariffView  `json:"new"`
}

// TransformSchema adds what the library cannot say of an object: that it may be null.
func (ChangedTariff) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	old := s.Properties["old"]
	s.Properties["old"] = &huma.Schema{Description: old.Description, AnyOf: []*huma.Schema{{Ref: old.Ref}, {Type: "null"}}}
	return s
}

// TariffChanged is the document of a tariff before and after a change.
func TariffChanged(before *billing.Tariff, after billing.Tariff) ChangedTariff {
	c := ChangedTariff{Name: after.Name, New: TariffOf(&after)}
	if before != nil {
		old := TariffOf(before)
		c.Old = &old
	}
	return c
}

func ownOrNull(n int64) *int64 {
	if n <= 0 {
		return nil
	}
	return &n
}
