package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

type (
	usageFilter struct {
		From   string   `query:"from" format:"date" doc:"First UTC day."`
		To     string   `query:"to" format:"date" doc:"Last UTC day, inclusive."`
		By     []string `query:"by" enum:"day,key,model" minItems:"1" uniqueItems:"true" default:"day,key,model" doc:"Columns to sum up by."`
		Key    string   `query:"key" pattern:"^key_[0-9a-hjkmnp-tv-z]{26}$" doc:"Only this key."`
		Format string   `query:"format" enum:"json,csv" default:"json" doc:"In CSV a model that a spreadsheet would take for a formula has a leading apostrophe."`
	}
	// DefaultLimits is the document of the gateway's defaults.
	DefaultLimits struct {
		Requests      int64 `json:"requests" doc:"Requests per window."`
		WindowSeconds int64 `json:"window_seconds"`
		Limit         int64 `json:"limit" doc:"Tokens per UTC month by tariff."`
		Daily         int64 `json:"daily" doc:"Tokens per UTC day."`
		Monthly       int64 `json:"monthly" doc:"Tokens per UTC month."`
		TPM           int64 `json:"tpm" doc:"Tokens per minute; 0: no such limit."`
		Concurrent    int64 `json:"concurrent" doc:"Requests that run at once; 0: no such limit."`
	}
	noInput struct{}
)

func (a *admin) reportRoutes() {
	get := http.MethodGet
	describe(a, huma.Operation{
		OperationID: "usage", Method: get, Path: "/admin/usage", Summary: "Used tokens by day, key and model", Tags: []string{"reports"},
		Responses: map[string]*huma.Response{"200": csvAndJSON[UsageDocument](a.contract, http.StatusText(http.StatusOK))},
	}, []int{404, 503}, a.usage)
	describe(a, huma.Operation{
		OperationID: "stats", Method: get, Path: "/admin/stats", Summary: "Sums over all keys", Tags: []string{"reports"},
	}, []int{503}, func(ctx context.Context, _ *noInput) (*body[StatsView], error) {
		keys, err := a.views(ctx)
		return &body[StatsView]{Stats(keys)}, err
	})
	describe(a, huma.Operation{
		OperationID: "audit", Method: get, Path: "/admin/audit", Summary: "Prove that the books balance", Tags: []string{"reports"},
		Description: "For every key and day the used tokens are the sum of its charges, and the held tokens the sum of its open holds. " +
			"What does not balance is named. It reads the whole books.",
	}, []int{503}, a.audit)
	describe(a, huma.Operation{
		OperationID: "default-limits", Method: get, Path: "/admin/limits", Summary: "The limits of keys that set none of their own", Tags: []string{"reports"},
	}, nil, a.defaultLimits)
}

func (a *admin) usage(ctx context.Context, in *usageFilter) (*huma.StreamResponse, error) {
	if in.From != "" && in.To != "" && in.From > in.To {
		return nil, fail(http.StatusBadRequest, codeInvalidValue, "from is after to.").about("from")
	}
	by := OrderColumns(in.By)
	table, err := a.Books.Usage(ctx, billing.UsageQuery{KeyRef: in.Key, From: in.From, To: in.To, By: by})
	switch {
	case errors.Is(err, billing.ErrUnknownKey):
		return nil, noSuchKey("key")
	case err != nil:
		return nil, a.broken("usage", err)
	}
	// Writing fails when the client is gone; there is nobody left to tell.
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		if in.Format == "csv" {
			ctx.SetHeader("Content-Type", "text/csv; charset=utf-8")
			_ = WriteUsageCSV(ctx.BodyWriter(), table, by)
			return
		}
		ctx.SetHeader("Content-Type", "application/json")
		_ = compactJSON().Marshal(ctx.BodyWriter(), Usage(table, by))
	}}, nil
}

func (a *admin) audit(ctx context.Context, _ *noInput) (*body[billing.AuditReport], error) {
	report, err := a.Books.Audit(ctx)
	if err != nil {
		return nil, a.broken("audit", err)
	}
	return &body[billing.AuditReport]{report}, nil
}

func (a *admin) defaultLimits(context.Context, *noInput) (*body[DefaultLimits], error) {
	d := a.Defaults()
	return &body[DefaultLimits]{DefaultLimits{
		Requests: d.Requests, WindowSeconds: wholeSeconds(d.Window), Limit: d.Tariff, Daily: d.Daily, Monthly: d.Monthly,
		TPM: d.TokensPerMinute, Concurrent: d.Concurrent,
	}}, nil
}
