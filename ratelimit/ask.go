package ratelimit

import (
	"errors"
	"time"
)

// Limits are all limits of one subject. They may change between two calls.
type Limits struct {
	Requests   Limit // admissions per window; always there
	Tokens     Limit // tokens per window, counted at their admission; Max 0 = no such limit
	Concurrent int64 // admissions that have not ended; 0 = no such limit
}

// Ask is one admission, asked over every limit of its subject: all of them
// let it through and count it, or none does.
type Ask struct {
	ID      string // minted by the caller, unique for ever: asking again under it takes nothing more
	Subject string // opaque; never a secret, since stores outside this process see it
	Limits  Limits
	// Tokens is the worst case to hold against Limits.Tokens. Where less is
	// left, as little as MinTokens will do; the grant is in the Decision.
	Tokens, MinTokens int64
}

// Names of the limits, as a Decision and clients see them.
const (
	NameRequests   = "requests"
	NameTokens     = "tokens"
	NameConcurrent = "concurrent"
)

// State is where a subject stands under one limit.
type State struct {
	Limit     Limit         // Max 0 = there is no such limit; Window 0 for concurrent requests
	Remaining int64         // what is left now, after this decision
	RetryIn   time.Duration // 0 when this limit lets it through, else the time until it would; Never when no wait helps
	ResetIn   time.Duration // until everything counted so far has left the window; 0 for concurrent requests
}

// Decision is the answer to an Ask, true at the moment it was given.
type Decision struct {
	Allowed bool
	// Refused names the limit that answers: of those that refuse the one with
	// the longest wait. Empty when allowed.
	Refused string
	RetryIn time.Duration // of that limit; who waits this long passes if nobody else takes the place

	Requests, Tokens, Concurrent State

	Granted int64  // tokens held; at least MinTokens and at most Tokens of the Ask
	Storage string // StorageMemory or StorageRedis: who decided
}

// Where a decision was made.
const (
	StorageMemory = "memory"
	StorageRedis  = "redis"
)

// ErrUnavailable says that the store outside this process cannot be asked and the
// configuration says to refuse then (OnErrorClosed).
var ErrUnavailable = errors.New("rate limits unavailable")
