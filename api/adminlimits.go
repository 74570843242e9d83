package api

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

// ownLimit is a limit in a change: absent (leave it), a number, or null (take
// the key's own away).
type ownLimit struct {
	value *whole
	clear bool
}

// UnmarshalJSON implements [json.Unmarshaler].
func (l *ownLimit) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*l = ownLimit{clear: true}
		return nil
	}
	return json.Unmarshal(text, &l.value)
}

// Schema implements [huma.SchemaProvider].
func (ownLimit) Schema(huma.Registry) *huma.Schema {
	least, most := 1.0, float64(maxWhole)
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &least, Maximum: &most, Nullable: true}
}

// change is what the books are asked for.
func (c *limitChange) change() billing.LimitChange {
	change := billing.LimitChange{
		Tariff: (*int64)(c.Limit.value), Daily: (*int64)(c.Daily.value), Monthly: (*int64)(c.Monthly.value),
		RPM: (*int64)(c.RPM.value), TPM: (*int64)(c.TPM.value), Concurrent: (*int64)(c.Concurrent.value),
	}
	for i, l := range []ownLimit{c.Limit, c.Daily, c.Monthly, c.RPM, c.TPM, c.Concurrent} {
		if l.clear {
			change.Clear = append(change.Clear, billing.LimitNames()[i])
		}
	}
	return change
}
