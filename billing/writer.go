package billing

import (
	"errors"
	"fmt"
	"slices"
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
	book *Book
	q    *queue

	drain chan struct{} // closed: commit what is queued, then end
	abort chan struct{} // closed: end at once
	ended chan struct{}

	backoff time.Duration

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
	rest, unsure, err := w.book.engine.commit(ops, progress)
	if err == nil {
		w.succeeded(ops)
		return true
	}
	if len(rest) < len(ops) {
		w.succeeded(without(ops, rest))
		marks, progress = nil, nil
	}
	w.failed.Add(1)
	w.book.log.Warn("books: commit failed", zap.Error(err), zap.Int("operations", len(rest)))
	if w.book.engine.permanent(err) {
		w.oneByOne(rest, marks, progress)
		return true
	}
	w.retryLater(rest, marks, unsure, err)
	return true
}

// without returns the operations of all that are not in rest.
func without(all, rest []*op) []*op {
	var others []*op
	for _, o := range all {
		if !slices.Contains(rest, o) {
			others = append(others, o)
		}
	}
	return others
}

// housekeeping is what is due from time to time.
func (w *writer) housekeeping() {
	if err := w.book.engine.housekeeping(); err != nil {
		w.book.log.Warn("books: housekeeping failed", zap.Error(err))
	}
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

func (w *writer) succeeded(ops []*op) {
	w.commits.Add(1)
	w.lastCommit.Store(micros(w.book.opt.Now()))
	w.backoff = 0
	w.book.forget(ops)
	for _, o := range ops {
		switch o.kind {
		case opReserve:
			left := !o.state.CompareAndSwap(opRunning, opFinished)
			switch {
			case o.refused != nil:
				w.book.undo(o.hold)
			case left:
				w.q.push(newOp(opErase, o.hold, nil), 0)
			}
		case opSettle, opCorrect:
			o.committed.Store(true)
			w.book.spill.settled(o)
		case opVoid, opErase, opPing, opTask:
		}
		o.finish(o.refused)
	}
}

// retryLater fails the reserves of a batch that did not commit and keeps all else.
func (w *writer) retryLater(ops []*op, marks []*openHold, unsure bool, cause error) {
	var kept []*op
	for _, o := range ops {
		if o.kind == opReserve || o.kind == opPing || o.kind == opTask {
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
		_, unsure, err := w.book.engine.commit(one, nil)
		switch {
		case err == nil:
			w.succeeded(one)
		case !w.book.engine.permanent(err):
			w.retryLater(ops[i:], marks, unsure, err)
			return
		default:
			w.failed.Add(1)
			w.reject(o, unsure, err)
		}
	}
	if len(progress) > 0 {
		if _, _, err := w.book.engine.commit(nil, progress); err != nil {
			w.book.log.Warn("books: checkpoints lost", zap.Error(err))
		}
	}
}

func (w *writer) reject(o *op, unsure bool, cause error) {
	w.book.log.Error("books: an operation cannot be committed; run the audit", zap.Error(cause))
	switch o.kind {
	case opReserve, opPing, opTask:
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
