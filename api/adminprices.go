package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

const adminPrices = "/admin/prices"

type (
	// amountText is money in a body: a decimal text, since readers of JSON turn
	// numbers into floats.
	amountText string

	newPrice struct {
		Model       string     `json:"model" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]+$" doc:"A model, or a pattern in which * stands for any text. The most exact pattern that matches decides."`
		ValidFrom   time.Time  `json:"valid_from,omitzero" format:"date-time" doc:"Absent: now. 409 when it has passed: what was charged is never charged again."`
		Input       amountText `json:"input,omitempty" doc:"Units of the currency for a million prompt tokens. Input and output both absent, and all else: from valid_from on the pattern has no price."`
		CachedRead  amountText `json:"cached_read,omitempty" doc:"Prompt tokens that the provider had cached; absent: as input."`
		CacheWrite  amountText `json:"cache_write,omitempty" doc:"Prompt tokens that it wrote to its cache; absent: as input."`
		Output      amountText `json:"output,omitempty" doc:"Tokens of the answer."`
		Reasoning   amountText `json:"reasoning,omitempty" doc:"Hidden tokens of the answer; absent: as output."`
		AudioInput  amountText `json:"audio_input,omitempty" doc:"Absent: as input."`
		AudioOutput amountText `json:"audio_output,omitempty" doc:"Absent: as output."`
	}
	newPrices struct {
		Currency string     `json:"currency,omitempty" pattern:"^[A-Z]{3}$" doc:"ISO 4217; absent: the books' own, USD for the first price. 409 where the books are in another." example:"USD"`
		Prices   []newPrice `json:"prices" minItems:"1" maxItems:"300"`
	}
	priceFilter struct {
		All bool `query:"all" doc:"Also prices that are over."`
	}
)

// Schema implements [huma.SchemaProvider].
func (amountText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: `^(100000|[0-9]{1,5}(\.[0-9]{1,9})?)$`, Examples: []any{"2.5"}}
}

// TransformSchema adds what the tags of members cannot say: the other kinds are
// parts of input and output.
func (newPrice) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	having := func(kind string) any { return map[string]any{"required": []string{kind}} }
	var parts []any
	for _, kind := range billing.Kinds() {
		if kind != "input" && kind != "output" {
			parts = append(parts, having(kind))
		}
	}
	// As an extension, so that addPrices refuses it, in words of its own.
	s.Extensions = map[string]any{"anyOf": []any{having("input"), having("output"), map[string]any{"not": map[string]any{"anyOf": parts}}}}
	return s
}

func (a *admin) priceRoutes() {
	describe(a, huma.Operation{
		OperationID: "list-prices", Method: http.MethodGet, Path: adminPrices, Summary: "List prices", Tags: []string{"prices"},
		Description: "In the order in which they were added.",
	}, []int{503}, a.listPrices)
	describe(a, huma.Operation{
		OperationID: "add-prices", Method: http.MethodPost, Path: adminPrices, Summary: "Add prices", Tags: []string{"prices"}, DefaultStatus: http.StatusCreated,
		Description: "All of them or none. The answer has those that were new; repeating the request adds nothing. Charges keep the price of their admission.",
	}, []int{409, 503}, a.addPrices)
}

func (a *admin) listPrices(ctx context.Context, in *priceFilter) (*body[PriceListView], error) {
	l, err := a.Books.Prices(ctx)
	if err != nil {
		return nil, a.broken("list prices", err)
	}
	return &body[PriceListView]{Prices(l, a.Now(), in.All)}, nil
}

func (a *admin) addPrices(ctx context.Context, in *body[newPrices]) (*body[PriceListView], error) {
	prices := make([]billing.Price, len(in.Body.Prices))
	for i := range in.Body.Prices {
		p, err := in.Body.Prices[i].price()
		if err != nil {
			return nil, fail(http.StatusBadRequest, codeInvalidValue, "An amount is a decimal number of at most nine digits after the point.").about("prices")
		}
		if !p.ValidFrom.IsZero() && p.ValidFrom.Before(a.Now()) {
			return nil, fail(http.StatusConflict, "price_in_the_past", "A price cannot begin in the past.").about("valid_from")
		}
		if p.Input == nil && p.Output == nil && !p.Ends() {
			return nil, fail(http.StatusBadRequest, codeInvalidValue, "Give a price of input or output.").about("prices")
		}
		prices[i] = p
	}
	currency, added, err := a.Books.AddPrices(ctx, in.Body.Currency, prices)
	switch {
	case errors.Is(err, billing.ErrCurrency):
		return nil, fail(http.StatusConflict, "other_currency", "The books are in another currency.").about("currency")
	case errors.Is(err, billing.ErrInvalid): // it began while we looked
		return nil, fail(http.StatusConflict, "price_in_the_past", "A price cannot begin in the past.").about("valid_from")
	case err != nil:
		return nil, a.broken("add prices", err)
	}
	a.changed(ctx, "add prices", "", zap.Int("added", len(added)))
	return &body[PriceListView]{AddedPrices(currency, added, a.Now())}, nil
}

// price is what the books take.
func (n *newPrice) price() (p billing.Price, err error) {
	p = billing.Price{Model: n.Model, ValidFrom: n.ValidFrom}
	for i, text := range []amountText{n.Input, n.CachedRead, n.CacheWrite, n.Output, n.Reasoning, n.AudioInput, n.AudioOutput} {
		if text == "" {
			continue
		}
		amount, failed := billing.ParseMoney(string(text))
		err = errors.Join(err, failed, p.Set(billing.Kinds()[i], amount))
	}
	return p, err
}
