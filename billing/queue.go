package billing

import (
	"sync"
	"sync/atomic"
)

const (
	queueMax   = 8192         // operations waiting for the writer
	reserveMax = queueMax / 2 // reserves are refused beyond; the rest is for settles
	batchMax   = 512          // operations of one transaction
	holdsMax   = 1 << 17      // open holds; each may queue one settle whatever the queue's length
)

type opKind uint8

const (
	opReserve opKind = iota // insert a hold
	opSettle                // post a charge, end its hold
	opVoid                  // end a hold without a charge, keep its trace
	opErase                 // remove a hold whose caller gave up
	opCorrect               // post what a charge was too small by
	opPing                  // prove that commits work
	opTask                  // anything rare; SQLite only
)

// Life of an operation. Only reserves are ever given up.
const (
	opQueued int32 = iota
	opRunning
	opFinished
	opAbandoned
)

// op is one thing to commit. done is closed when err is final.
type op struct {
	kind  opKind
	hold  *openHold               // reserve, settle, void, erase
	entry *entry                  // settle, correct; never changed, since it may be spilled meanwhile
	task  func(*statements) error // task

	state     atomic.Int32
	committed atomic.Bool
	done      chan struct{}
	err       error
	refused   error    // why a reserve was committed as nothing: a budget, a key that ended meanwhile
	posted    *entry   // what a correction appended, nil for nothing
	near      []budget // what a settle used nearly up, where memory decides; said once it is committed
}

func newOp(kind opKind, h *openHold, e *entry) *op {
	return &op{kind: kind, hold: h, entry: e, done: make(chan struct{})}
}

func (o *op) finish(err error) {
	o.err = err
	close(o.done)
}

// queue hands operations to the writer in order. It is bounded: reserves and
// corrections by its length, settles and voids by the number of open holds.
type queue struct {
	eager, lazy chan struct{} // something waits; lazily: nobody waits for it

	mu    sync.Mutex
	ops   []*op
	marks []*openHold
}

func newQueue() *queue {
	return &queue{eager: make(chan struct{}, 1), lazy: make(chan struct{}, 1)}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push appends o; false when limit operations wait already. limit 0 = no limit.
func (q *queue) push(o *op, limit int) bool {
	q.mu.Lock()
	if limit > 0 && len(q.ops) >= limit {
		q.mu.Unlock()
		return false
	}
	q.ops = append(q.ops, o)
	q.mu.Unlock()
	if o.kind == opVoid || o.kind == opErase {
		wake(q.lazy)
	} else {
		wake(q.eager)
	}
	return true
}

// pushBack returns operations to the head of the queue after a failed commit.
func (q *queue) pushBack(ops []*op, marks []*openHold) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ops = append(ops, q.ops...)
	q.marks = append(marks, q.marks...)
}

// mark queues a checkpoint; the caller sees to it that a hold is queued once.
func (q *queue) mark(h *openHold) {
	q.mu.Lock()
	q.marks = append(q.marks, h)
	q.mu.Unlock()
	wake(q.lazy)
}

// take returns up to one transaction's worth.
func (q *queue) take() ([]*op, []*openHold) {
	q.mu.Lock()
	defer q.mu.Unlock()
	marks := q.marks
	q.marks = nil
	if len(q.ops) <= batchMax {
		ops := q.ops
		q.ops = nil
		return ops, marks
	}
	ops := append([]*op(nil), q.ops[:batchMax]...)
	q.ops = q.ops[batchMax:]
	return ops, marks
}

func (q *queue) depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ops)
}
