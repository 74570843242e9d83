package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

// Members of a change are absent (leave it), a value, or null (take the key's own
// away).
type (
	nullable[T any] struct {
		given bool
		value *T // nil where null was given
	}
	ownLimit  struct{ nullable[whole] }
	ownText   struct{ nullable[string] }
	ownTime   struct{ nullable[time.Time] }
	ownMoney  struct{ nullable[money] }
	ownModels struct{ nullable[[]string] }
)

// UnmarshalJSON implements [json.Unmarshaler].
func (m *nullable[T]) UnmarshalJSON(text []byte) error {
	*m = nullable[T]{given: true}
	if string(text) == "null" {
		return nil
	}
	return json.Unmarshal(text, &m.value)
}

// Schema implements [huma.SchemaProvider].
func (ownLimit) Schema(huma.Registry) *huma.Schema {
	least, most := 1.0, float64(maxWhole)
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &least, Maximum: &most, Nullable: true}
}

// Schema implements [huma.SchemaProvider].
func (ownText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Nullable: true}
}

// Schema implements [huma.SchemaProvider].
func (ownTime) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Nullable: true}
}

// Schema implements [huma.SchemaProvider].
func (ownMoney) Schema(r huma.Registry) *huma.Schema { return orNull(money("").Schema(r)) }

// Schema implements [huma.SchemaProvider].
func (ownModels) Schema(r huma.Registry) *huma.Schema { return orNull(modelList{}.Schema(r)) }

// modelList is patterns of models. Each is at most 256 bytes, which the books
// want, whether they are of ASCII or not.
type modelList []string

// Schema implements [huma.SchemaProvider].
func (modelList) Schema(huma.Registry) *huma.Schema {
	items := 100
	return &huma.Schema{
		Type: huma.TypeArray, MaxItems: &items,
		Items: &huma.Schema{Type: huma.TypeString, Pattern: `^([\x20-\x7e]{1,256}|[^\x00-\x1f\x7f-\x9f]{1,64})$`},
	}
}

// money is an amount above 0, below 1,000,000,000 units and with at most nine
// digits after the point.
type money string

// Schema implements [huma.SchemaProvider].
func (money) Schema(huma.Registry) *huma.Schema {
	below1 := make([]string, 9) // not all of its digits are 0
	for zeros := range below1 {
		below1[zeros] = fmt.Sprintf("0{%d}[1-9][0-9]{0,%d}", zeros, 8-zeros)
	}
	return &huma.Schema{
		Type: huma.TypeString, Pattern: `^([1-9][0-9]{0,8}([.][0-9]{1,9})?|0[.](` + strings.Join(below1, "|") + `))$`,
		PatternDescription: "an amount above 0 with at most 9 digits before and after the point, such as 25.5",
	}
}

// nano is the amount in nano-units; of what the schema lets through it is above
// 0, of "" it is 0.
func (m money) nano() int64 {
	amount, err := billing.ParseMoney(string(m))
	if err != nil {
		return 0
	}
	return int64(amount)
}

// text is the value, "" for null, nil where the member is absent.
func (m *ownText) text() *string {
	if !m.given {
		return nil
	}
	text := ""
	if m.value != nil {
		text = strings.TrimSpace(*m.value)
	}
	return &text
}

// change is what the books are asked for.
func (c *keyChange) change() (change billing.KeyChange, bad error) {
	l := &change.Limits
	*l = billing.LimitChange{
		Tariff: (*int64)(c.Limit.value), Daily: (*int64)(c.Daily.value), Monthly: (*int64)(c.Monthly.value),
		RPM: (*int64)(c.RPM.value), TPM: (*int64)(c.TPM.value), Concurrent: (*int64)(c.Concurrent.value),
		Plan: c.Tariff.text(),
	}
	if c.Budget.value != nil {
		nano := c.Budget.value.nano()
		l.Money = &nano
	}
	some := c.Tariff.given || c.Models.given || c.Name.given || c.Description.given || c.ExpiresAt.given
	for i, m := range []struct{ given, set bool }{
		{c.Limit.given, c.Limit.value != nil},
		{c.Daily.given, c.Daily.value != nil},
		{c.Monthly.given, c.Monthly.value != nil},
		{c.RPM.given, c.RPM.value != nil},
		{c.TPM.given, c.TPM.value != nil},
		{c.Concurrent.given, c.Concurrent.value != nil},
		{c.Budget.given, c.Budget.value != nil},
	} {
		some = some || m.given
		if m.given && !m.set {
			l.Clear = append(l.Clear, billing.LimitNames()[i])
		}
	}
	if !some {
		return change, fail(http.StatusBadRequest, codeInvalidValue, "Give at least one member.")
	}
	change.Name, change.Description = c.Name.text(), c.Description.text()
	if c.Models.given {
		change.Models = new([]string)
		if c.Models.value != nil {
			change.Models = c.Models.value
		}
	}
	if c.ExpiresAt.given {
		change.ExpiresAt = new(time.Time)
		if c.ExpiresAt.value != nil {
			*change.ExpiresAt = c.ExpiresAt.value.UTC()
		}
	}
	return change, nil
}
