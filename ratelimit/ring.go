package ratelimit

// run is n admissions that share one time. Their place numbers are first, first+1, … without a gap,
// which is what lets a place be given back exactly once without remembering who gave back. In a run
// with first 0 nothing can be given back.
type run struct {
	at    int64 // nanoseconds; no admission of the run happened later
	first int64
	n     int64
}

// ring is a queue of runs, oldest first, in a buffer whose length is a power of two.
type ring struct {
	buf  []run
	head int
	n    int
}

const smallestRing = 4

func (r *ring) len() int      { return r.n }
func (r *ring) full() bool    { return r.n == len(r.buf) }
func (r *ring) at(i int) *run { return &r.buf[(r.head+i)&(len(r.buf)-1)] }
func (r *ring) newest() *run  { return r.at(r.n - 1) }

// push needs a ring that is not full.
func (r *ring) push(x run) {
	r.n++
	*r.newest() = x
}

func (r *ring) dropOldest() {
	r.head = (r.head + 1) & (len(r.buf) - 1)
	r.n--
}

// insert puts x before position i. It needs a ring that is not full.
func (r *ring) insert(i int, x run) {
	r.n++
	for j := r.n - 1; j > i; j-- {
		*r.at(j) = *r.at(j - 1)
	}
	*r.at(i) = x
}

func (r *ring) remove(i int) {
	for ; i < r.n-1; i++ {
		*r.at(i) = *r.at(i + 1)
	}
	r.n--
}

// resize moves the runs into a buffer of the given length, which must be a power of two that holds them.
func (r *ring) resize(length int) {
	buf := make([]run, length)
	for i := range r.n {
		buf[i] = *r.at(i)
	}
	r.buf, r.head = buf, 0
}

func (r *ring) grow() { r.resize(max(smallestRing, 2*len(r.buf))) }
