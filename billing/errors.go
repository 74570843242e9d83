package billing

import (
	"errors"
	"fmt"
	"time"
)

// The errors that callers tell apart with errors.Is. Each may be wrapped with
// the operation that met it.
var (
	// ErrUnknownKey: no such key, or a credential that cannot be one.
	ErrUnknownKey = errors.New("unknown key")
	// ErrRevokedKey: the key was revoked; a revocation is never undone.
	ErrRevokedKey = errors.New("revoked key")
	// ErrBlockedKey: the key is blocked until an operator lets it in again.
	ErrBlockedKey = errors.New("blocked key")
	// ErrExpiredKey: the key's ExpiresAt has passed.
	ErrExpiredKey = errors.New("expired key")
	// ErrUnknownTariff: no tariff has this name.
	ErrUnknownTariff = errors.New("unknown tariff")
	// ErrUnpriced: the model has no price, and such are not let through.
	ErrUnpriced = errors.New("model without a price")
	// ErrCurrency: the books are in another currency.
	ErrCurrency = errors.New("another currency")
	// ErrUnavailable: the books are too slow or failing; nothing was held.
	ErrUnavailable = errors.New("books unavailable")
	// ErrUnknownHold: the books never saw this hold.
	ErrUnknownHold = errors.New("unknown hold")
	// ErrForeignDatabase: the file exists and is not ours; it was left untouched.
	ErrForeignDatabase = errors.New("not a database of this gateway")
	// ErrMissingDatabase: the data directory belongs to books whose database is gone.
	ErrMissingDatabase = errors.New("the books' database is missing")
	// ErrInUse: another gateway has these books open.
	ErrInUse = errors.New("another gateway uses this data")
	// ErrPepper: the keys were digested with a pepper that is absent or another one.
	ErrPepper = errors.New("the keys need the pepper they were created with")
	// ErrBackup: a file is no backup, is damaged, or was made by a newer program.
	ErrBackup = errors.New("not a usable backup")
	// ErrUnbalanced: the books of a backup do not balance.
	ErrUnbalanced = errors.New("the books in the backup do not balance")
	// ErrInvalid: an argument that can never be right (a limit of zero, a bad day).
	ErrInvalid = errors.New("invalid")
	// ErrClosed: the Book or Admin was closed.
	ErrClosed = errors.New("books closed")
)

// BudgetError says which budget refused a hold. Its figures are tokens, those
// of BudgetMoney nano-units. It is returned by pointer; find it with errors.As.
type BudgetError struct {
	Budget  string        // "daily", "monthly", "tariff" or BudgetMoney
	Limit   int64         // the budget's limit
	Used    int64         // posted in the period
	Held    int64         // in open holds of the period
	Needed  int64         // what the request would have held
	ResetIn time.Duration // until the period ends
}

// Error names the budget and its figures, never the key.
func (e *BudgetError) Error() string {
	if e.Budget == BudgetMoney {
		return fmt.Sprintf("%s budget exhausted: limit %s, used %s, held %s, needed %s",
			e.Budget, Money(e.Limit), Money(e.Used), Money(e.Held), Money(e.Needed))
	}
	return fmt.Sprintf("%s budget exhausted: limit %d, used %d, held %d, needed %d",
		e.Budget, e.Limit, e.Used, e.Held, e.Needed)
}
