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

// piece is the length in nanoseconds of one sub-window of tokens.
func (l Limit) piece() int64 { return max(1, l.span()/subWindows) }
