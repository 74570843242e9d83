package ratelimit

import "time"

// Never is the RetryIn of a limit that admits nothing. It is far below the largest Duration, so that
// rounding it up to seconds does not overflow.
const Never time.Duration = 1 << 62

// Limit is at most Max admissions in any half-open interval of length Window, whatever its
// alignment. Two admissions exactly one Window apart never share an interval. A limit with Max
// or Window of zero or less admits nothing: a mistake in a configuration closes, it does not open.
type Limit struct {
	Max    int64
	Window time.Duration
}

// span is the window's length in nanoseconds, held below the point where adding it to a time overflows.
func (l Limit) span() int64 { return int64(min(l.Window, Never)) }

// width is the length in nanoseconds of the pieces within which admissions share a time.
func (l Limit) width() int64 {
	if l.Max <= exactUpTo {
		return 1
	}
	return max(1, l.span()/subWindows)
}

// Decision is the answer to one question, true at the moment it was given.
type Decision struct {
	Allowed bool
	Limit   Limit // the limit that was asked about

	// Remaining is the number of admissions left in the window that ends now, after this decision.
	Remaining int64
	// RetryIn is 0 when allowed, else the time until one admission would pass: who waits this long
	// passes if nobody else takes the place.
	RetryIn time.Duration
	// ResetIn is the time until everything admitted so far has left the window.
	ResetIn time.Duration

	place int64 // what GiveBack undoes; 0 is nothing
}
