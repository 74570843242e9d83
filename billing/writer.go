package billing

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	pollEvery  = 250 * time.Millisecond // how often changes by other processes are looked for
	pruneEvery = time.Hour
	voidsKept  = 24 * time.Hour        // traces of voided holds, for request windows
	lazyWait   = 25 * time.Millisecond // what nobody waits for may join the next batch; a short answer ends before its checkpoint costs a commit
	backoffMin = 20 * time.Millisecond
	backoffMax = 500 * time.Millisecond
)

// writer is the one goroutine that changes the database while a gateway runs.
type writer struct {
	book  *Book
	q     *queue
	stmts *statements

	drain chan struct{} // closed: commit what is queued, then end
	abort chan struct{} // closed: end at once
	ended chan struct{}

	backoff time.Duration
	version int64 // last data_version seen
	pruned  time.Time

	commits, failed atomic.Int64
	lastCommit      atomic.Int64 // microseconds UTC
}

func (w *writer) run() {
	defer close(w.ended)
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-w.q.eager:
		case <-w.q.lazy:
			w.linger()
		case <-poll.C:
			w.housekeeping()
		case <-w.drain:
			for w.turn() {
			}
			return
		case <-w.abort:
			return
		}
		for w.turn() {
			select {
			case <-poll.C:
				w.housekeeping()
			default:
			}
		}
	}
}

// linger gives operations nobody waits for a chance to share a transaction.
func (w *writer) linger() {
	timer := time.NewTimer(lazyWait)
	defer timer.Stop()
	select {
	case <-w.q.eager:
	case <-timer.C:
	case <-w.drain:
	}
}

// turn commits one batch; true when there may be more.
func (w *writer) turn() bool {
	select {
	case <-w.abort:
		return false
	default:
	}
	ops, marks := w.q.take()
	if len(ops) == 0 && len(marks) == 0 {
		return false
	}
	ops = started(ops)
	progress := w.book.takeMarks(marks)
	unsure, err := w.stmts.inTx(func() error { return w.apply(ops, progress) })
	if err == nil {
		w.succeeded(ops)
		return true
	}
	w.failed.Add(1)
	w.book.log.Warn("books: commit failed", zap.Error(err), zap.Int("operations", len(ops)))
	if permanent(err) {
		w.oneByOne(ops, marks, progress)
		return true
	}
	w.retryLater(ops, marks, unsure, err)
	return true
}

// started drops the reserves that were given up while they were queued.
func started(ops []*op) []*op {
	kept := ops[:0]
	for _, o := range ops {
		// A retried operation runs already; only queued reserves can be given up.
		if o.kind != opReserve || o.state.CompareAndSwap(opQueued, opRunning) {
			kept = append(kept, o)
		}
	}
	return kept
}

// apply writes a batch. The order keeps causes before effects: a hold may be
// inserted and ended in one batch, a charge posted and corrected.
func (w *writer) apply(ops []*op, marks []progressMark) error {
	for _, o := range ops {
		if o.kind == opReserve {
			if err := w.stmts.insertHold(o.hold); err != nil {
				return err
			}
		}
	}
	for _, m := range marks {
		if _, err := w.stmts.mark.Exec(m.PromptTokens, m.CompletionTokens, m.id); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	for _, o := range ops {
		if err := w.applyOne(o); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) applyOne(o *op) (err error) {
	switch o.kind {
	case opSettle:
		return w.stmts.post(o.entry)
	case opVoid:
		return w.stmts.void(o.hold, w.book.opt.Now())
	case opErase:
		return w.stmts.eraseHold(o.hold)
	case opCorrect:
		o.posted, err = w.stmts.adjust(o.entry)
		return err
	case opTask:
		return o.task(w.stmts)
	case opReserve: // its hold is in already
	}
	return nil
}

func (w *writer) succeeded(ops []*op) {
	w.commits.Add(1)
	w.lastCommit.Store(micros(w.book.opt.Now()))
	w.backoff = 0
	w.book.forget(ops)
	for _, o := range ops {
		switch o.kind {
		case opReserve:
			if !o.state.CompareAndSwap(opRunning, opFinished) {
				w.q.push(newOp(opErase, o.hold, nil), 0) // its caller has left
			}
		case opSettle, opCorrect:
			o.committed.Store(true)
			w.book.spill.settled(o)
		case opVoid, opErase, opTask:
		}
		o.finish(nil)
	}
}

// retryLater fails the reserves of a batch that did not commit and keeps all else.
func (w *writer) retryLater(ops []*op, marks []*openHold, unsure bool, cause error) {
	var kept []*op
	for _, o := range ops {
		if o.kind == opReserve || o.kind == opTask {
			w.fail(o, unsure, cause)
			continue
		}
		kept = append(kept, o)
	}
	w.q.pushBack(kept, w.book.remark(marks))
	if len(kept) == 0 {
		return
	}
	w.backoff = min(max(2*w.backoff, backoffMin), backoffMax)
	timer := time.NewTimer(w.backoff)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.abort:
	}
}

// fail ends a reserve or a task. Where the commit's fate is unknown, the hold
// is erased before its tokens are free again.
func (w *writer) fail(o *op, unsure bool, cause error) {
	if o.kind == opReserve {
		o.state.Store(opFinished)
		if unsure {
			w.q.push(newOp(opErase, o.hold, nil), 0)
		} else {
			w.book.undo(o.hold)
		}
	}
	o.finish(fmt.Errorf("%w: %w", ErrUnavailable, cause))
}

// oneByOne finds the operation that can never be committed, so that it does
// not hold up the others. A settle among them is kept in the spill file.
func (w *writer) oneByOne(ops []*op, marks []*openHold, progress []progressMark) {
	for i, o := range ops {
		one := []*op{o}
		unsure, err := w.stmts.inTx(func() error { return w.apply(one, nil) })
		switch {
		case err == nil:
			w.succeeded(one)
		case !permanent(err):
			w.retryLater(ops[i:], marks, unsure, err)
			return
		default:
			w.failed.Add(1)
			w.reject(o, unsure, err)
		}
	}
	if len(progress) > 0 {
		if _, err := w.stmts.inTx(func() error { return w.apply(nil, progress) }); err != nil {
			w.book.log.Warn("books: checkpoints lost", zap.Error(err))
		}
	}
}

func (w *writer) reject(o *op, unsure bool, cause error) {
	w.book.log.Error("books: an operation cannot be committed; run the audit", zap.Error(cause))
	switch o.kind {
	case opReserve, opTask:
		w.fail(o, unsure, cause)
	case opSettle, opCorrect:
		if errors.Is(cause, ErrUnknownHold) {
			o.finish(cause)
			return
		}
		o.finish(w.book.spill.append(o))
		w.book.forget([]*op{o})
	default:
		w.book.forget([]*op{o})
		o.finish(cause)
	}
}

// housekeeping looks for changes by other processes and prunes old traces.
func (w *writer) housekeeping() {
	var version int64
	if err := w.stmts.dataVersion.QueryRow().Scan(&version); err != nil {
		w.book.log.Warn("books: poll failed", zap.Error(err))
		return
	}
	// data_version moves only when another connection committed.
	if version != w.version {
		if err := w.book.keys.load(w.book.store.read); err != nil {
			w.book.log.Warn("books: keys not refreshed", zap.Error(err))
			return
		}
		w.version = version
	}
	now := w.book.opt.Now()
	if age := now.Sub(w.pruned); age > pruneEvery || age < 0 {
		w.pruned = now
		w.q.push(newTask(func(s *statements) error {
			_, err := s.conn.ExecContext(context.Background(), "DELETE FROM holds WHERE state = 3 AND id < ?", idFloor(now.Add(-voidsKept)))
			return err
		}), queueMax)
	}
}

func newTask(f func(*statements) error) *op {
	o := newOp(opTask, nil, nil)
	o.task = f
	return o
}
