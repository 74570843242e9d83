package billing

import (
	"context"

	"gorm.io/gorm"
)

// engine is the database behind the writer. What it does once it promises for
// good; how often to try, whom to answer and what to spill is the writer's.
type engine interface {
	// storage names the database: "sqlite" or "postgresql".
	storage() string
	// take decides a hold in memory, or leaves that to commit. Book.mu is held.
	take(h *openHold, k *Key) error
	// commit writes a batch. rest is what has to be tried again, with the reason
	// in err; all else is committed. unsure says that the failure was the
	// commit's own: rest may be in the database or not. A reserve that a budget
	// refuses carries the refusal and is committed as nothing. Only the writer
	// and a start before it call commit.
	commit(ops []*op, marks []progressMark) (rest []*op, unsure bool, err error)
	// permanent says that trying the same again cannot help.
	permanent(err error) bool
	// housekeeping is the writer's turn when pollEvery has passed.
	housekeeping() error
	// recover ends the holds that a dead predecessor left and says how many.
	recover() (int, error)
	// begin is called once, when everything is recovered and before any reserve.
	begin() error
	// snapshot copies a key's account as it is in the period that goes with it.
	snapshot(keyID string) (account, period)
	// transact runs f in a transaction that is the engine's own business.
	transact(ctx context.Context, f func(tx *gorm.DB) error) error
	// figures adds what the engine alone knows.
	figures(s *Stats)
	// close lets go of what is not the store's.
	close() error
}

// Storage names the database that the books are in: "sqlite" or "postgresql".
func (b *Book) Storage() string { return b.engine.storage() }
