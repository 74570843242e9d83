package api

import (
	"encoding/json"
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
func (ownModels) Schema(huma.Registry) *huma.Schema {
	least, most, items := 1, 256, 100
	return &huma.Schema{
		Type: huma.TypeArray, Nullable: true, MaxItems: &items,
		Items: &huma.Schema{Type: huma.TypeString, MinLength: &least, MaxLength: &most, Pattern: "^[^\\x00-\\x1f\\x7f-\\x9f]+$"},
	}
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
		money, bad := budget(*c.Budget.value)
		if bad != nil {
			return change, bad
		}
		l.Money = &money
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
