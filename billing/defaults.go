package billing

import "fmt"

// SetDefaults exchanges the limits of keys that set none of their own. Every
// decision about a budget from now on goes by them; a hold that was granted
// stays granted. It may be called while the books are in use. ErrInvalid: a
// limit that is not above 0; those in force stay.
func (b *Book) SetDefaults(d Limits) error {
	if d.Tariff <= 0 || d.Daily <= 0 || d.Monthly <= 0 {
		return fmt.Errorf("set default limits: %w: they must be > 0", ErrInvalid)
	}
	b.defaultLimits.Store(&d)
	return nil
}

// defaults are the limits of keys that set none of their own.
func (b *Book) defaults() Limits { return *b.defaultLimits.Load() }
