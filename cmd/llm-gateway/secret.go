package main

import (
	"fmt"
	"log/slog"
)

// Secret is a configuration value that must not be seen. Whatever prints,
// formats, logs or encodes it shows "***", or nothing when it is empty; only
// [Secret.Reveal] gives the value.
type Secret string

const masked = "***"

// Reveal returns the value itself, for the one place that has to use it.
func (s Secret) Reveal() string { return string(s) }

// String implements [fmt.Stringer].
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// Format implements [fmt.Formatter]: every verb, %x and %#v among them, is masked.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// GoString implements [fmt.GoStringer].
func (s Secret) GoString() string { return s.String() }

// MarshalText implements [encoding.TextMarshaler], which JSON and YAML use.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil } //nolint:unparam // the interface has an error

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
