package billing

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gorm.io/gorm"
)

// TariffUse is a tariff and how many keys have it.
type TariffUse struct {
	Tariff
	Keys int64 // that are not revoked
}

// TariffChange changes what is given. A tariff always has a tariff limit: it
// cannot be cleared, and a new one needs it. Limits.Plan must be nil.
type TariffChange struct {
	Description *string
	Limits      LimitChange
}

// UnknownTariffError is an ErrUnknownTariff that says which there are.
type UnknownTariffError struct{ Known []string }

// Error names the tariffs that there are.
func (e *UnknownTariffError) Error() string {
	if len(e.Known) == 0 {
		return ErrUnknownTariff.Error() + ": there is none"
	}
	return ErrUnknownTariff.Error() + ": there are " + strings.Join(e.Known, ", ")
}

// Unwrap makes it an ErrUnknownTariff.
func (e *UnknownTariffError) Unwrap() error { return ErrUnknownTariff }

// TariffInUseError says that a tariff cannot be removed.
type TariffInUseError struct{ Keys int64 } // that have it and are not revoked

// Error says how many keys have the tariff.
func (e *TariffInUseError) Error() string {
	return fmt.Sprintf("keys that have the tariff: %d", e.Keys)
}

// maxTariffName bounds the name of a tariff, in bytes.
const maxTariffName = 64

// newTariffName is the name of a tariff in its one spelling. ErrInvalid.
func newTariffName(text string) (string, error) {
	name := spelt(text)
	strange := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	if name == "" || len(name) > maxTariffName || strings.ContainsFunc(name, strange) || name[0] == '-' {
		return "", fmt.Errorf("%w: the name of a tariff is 1 to %d letters, digits and hyphens", ErrInvalid, maxTariffName)
	}
	if slices.Contains([]string{"none", "default", "custom"}, name) {
		return "", fmt.Errorf("%w: none, default and custom mean something else: choose another name", ErrInvalid)
	}
	return name, nil
}

// spelt is how names of tariffs are compared: case and spaces around do not count.
func spelt(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// find is the tariff of a name. ErrUnknownTariff.
func (t tariffs) find(name string) (*Tariff, error) {
	if plan := t[spelt(name)]; plan != nil {
		return plan, nil
	}
	return nil, &UnknownTariffError{Known: slices.Sorted(maps.Keys(t))}
}

// terms are what operators can change of a tariff.
func (t *Tariff) terms() map[string]any {
	if t == nil {
		return nil
	}
	terms := limitTerms(&t.Limits, t.RPM, t.TPM, t.Concurrent)
	terms["description"] = textTerm(t.Description)
	return terms
}

// Tariffs lists the tariffs, smallest first.
func (a *Admin) Tariffs(ctx context.Context) ([]TariffUse, error) {
	var list []TariffUse
	err := a.store.view(ctx, func(tx *gorm.DB) error {
		all, err := loadTariffs(tx)
		if err != nil {
			return err
		}
		var counts []struct {
			Plan string
			Keys int64
		}
		if err := tx.Raw("SELECT plan, count(*) AS keys FROM keys WHERE plan <> '' AND revoked_at = 0 GROUP BY plan").Scan(&counts).Error; err != nil {
			return err
		}
		keys := map[string]int64{}
		for _, c := range counts {
			keys[c.Plan] = c.Keys
		}
		for name, t := range all {
			list = append(list, TariffUse{Tariff: *t, Keys: keys[name]})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list tariffs: %w", err)
	}
	slices.SortFunc(list, func(x, y TariffUse) int {
		return cmp.Or(cmp.Compare(x.Limits.Tariff, y.Limits.Tariff), cmp.Compare(x.Name, y.Name))
	})
	return list, nil
}

// SetTariff makes a tariff, or changes what is given of one. It is in force for
// all its keys when it returns, in running gateways within a second. It returns
// the tariff before, nil for a new one, and after. ErrInvalid: a name or a text
// that cannot be one, a limit as of SetLimits, a new tariff without a limit.
func (a *Admin) SetTariff(ctx context.Context, name string, c TariffChange) (old *Tariff, now Tariff, err error) {
	name, err = newTariffName(name)
	if err == nil {
		err = a.store.inTx(ctx, func(tx *gorm.DB) (err error) {
			old, now, err = a.setTariff(tx, name, c)
			return err
		})
	}
	if err != nil {
		return nil, Tariff{}, fmt.Errorf("set tariff: %w", err)
	}
	return old, now, nil
}

func (a *Admin) setTariff(tx *gorm.DB, name string, c TariffChange) (old *Tariff, now Tariff, err error) {
	set, err := c.columns()
	if err != nil {
		return nil, now, err
	}
	// Whoever gives a key a tariff, or counts the keys of one, waits here.
	if err := lockKeys(tx); err != nil {
		return nil, now, err
	}
	all, err := loadTariffs(tx)
	if err != nil {
		return nil, now, err
	}
	if old = all[name]; old == nil {
		if c.Limits.Tariff == nil {
			return nil, now, fmt.Errorf("%w: a new tariff needs a limit", ErrInvalid)
		}
		row := map[string]any{"name": name, "description": ""}
		for _, limit := range LimitNames() {
			row[limit] = int64(0)
		}
		maps.Copy(row, set)
		err = tx.Model(&tariffRow{}).Create(row).Error
	} else {
		err = tx.Model(&tariffRow{}).Where("name = ?", name).Updates(set).Error
	}
	if err != nil {
		return nil, now, err
	}
	if all, err = loadTariffs(tx); err != nil {
		return nil, now, err
	}
	now = *all[name]
	step := stepOf(old.terms(), now.terms())
	if step.same() {
		return old, now, nil
	}
	if _, err := nextRev(tx); err != nil { // gateways look again
		return nil, now, err
	}
	return old, now, a.record(tx, actionSetTariff, name, step)
}

// columns are what changes of a tariff. ErrInvalid.
func (c *TariffChange) columns() (map[string]any, error) {
	set := map[string]any{}
	if c.Limits.Plan != nil || slices.Contains(c.Limits.Clear, "tariff") {
		return nil, fmt.Errorf("%w: a tariff has no tariff, and always a limit", ErrInvalid)
	}
	if c.Limits.given() {
		var err error
		if set, err = c.Limits.columns(nil); err != nil {
			return nil, err
		}
	}
	if d := c.Description; d != nil {
		if storable(*d) != *d {
			return nil, fmt.Errorf("%w: a text is not UTF-8, or has a zero byte", ErrInvalid)
		}
		set["description"] = *d
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%w: nothing to change", ErrInvalid)
	}
	return set, nil
}

// RemoveTariff removes a tariff that no key has, revoked ones aside. Errors:
// ErrUnknownTariff; a *TariffInUseError.
func (a *Admin) RemoveTariff(ctx context.Context, name string) (t Tariff, err error) {
	err = a.store.inTx(ctx, func(tx *gorm.DB) error {
		if err := lockKeys(tx); err != nil {
			return err
		}
		all, err := loadTariffs(tx)
		if err != nil {
			return err
		}
		found, err := all.find(name)
		if err != nil {
			return err
		}
		t = *found
		var keys int64
		if err := tx.Model(&keyRow{}).Where("plan = ? AND revoked_at = 0", t.Name).Count(&keys).Error; err != nil {
			return err
		}
		if keys > 0 {
			return &TariffInUseError{Keys: keys}
		}
		if err := tx.Where("name = ?", t.Name).Delete(&tariffRow{}).Error; err != nil {
			return err
		}
		if _, err := nextRev(tx); err != nil {
			return err
		}
		return a.record(tx, actionRemoveTariff, t.Name, stepOf(t.terms(), nil))
	})
	if err != nil {
		return Tariff{}, fmt.Errorf("remove tariff: %w", err)
	}
	return t, nil
}
