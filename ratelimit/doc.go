// Package ratelimit answers one question: may this happen now?
// It does not know what a subject is, who asks, or why: a subject is an opaque string, and its limits
// are numbers: requests per window, tokens per window, and how many at the same time. All limits of one
// [Ask] are decided in one step: all of them let it through and count it, or none does.
//
// A limit of 30 requests per 60 seconds means that no half-open interval of 60 seconds, wherever it
// begins, holds more than 30 admissions. Fixed windows and token buckets do not keep that promise
// (both let nearly twice the number through around a boundary), so this package remembers when it
// admitted. Refusals are not remembered: asking too often does not postpone the next admission.
//
// Example, with 2 requests per 10 s and 100 tokens per 60 s:
//
//	 0 s  Take 80 tokens                allowed, 80 held; left: 1 request, 20 tokens
//	 1 s  Take 80, at least 50          refused by tokens, RetryIn 59.9 s (59 s, and at most 1/64 window more)
//	 2 s  Settle the first with 30      left: 1 request, 70 tokens
//	 4 s  Take 80, at least 50          allowed, 70 held; left: 0 requests, 0 tokens
//	 9 s  Take 0                        refused by requests, RetryIn 1 s (the one of 0 s leaves at 10 s)
//	10 s  Take 0                        allowed
//
// # Exactness
//
// Up to 1,000 requests per window every admission keeps its own time. Above, and for tokens always,
// what falls within one 64th of the window shares the latest time of that piece. A place then returns
// up to one 64th of the window late; it never returns early. Tokens count at the time of their
// admission: what was held until Settle says how many they were. If they were more than held the truth
// is recorded, beyond the limit if need be.
//
// Who waits [Decision.RetryIn] passes if nobody else takes the place. For concurrent requests nobody
// knows when one ends, and it is one second.
//
// # A limit that changes
//
// The limits come with every call, so they may change between two calls. What is remembered so far is
// judged by the new limit. A longer window asks about a time of which older admissions may already
// have been dropped; their number and the time of the latest of them are kept, and all of them count
// as if they had happened then. Lengthening a window can therefore refuse too early for at most the
// new length, and never admits too many. A subject that was forgotten altogether, because it was empty
// under the longest window it had been asked about, starts afresh.
//
// # Memory
//
// A subject costs what it used within its windows. It is forgotten when they are empty, and
// [Options.MaxSubjects] bounds how many are held: beyond it the subject that was admitted least
// recently is forgotten although its windows are not empty. That subject may then use its limits once
// more: the bound gives up exactness for the longest idle subject to keep the service up for all
// others. An admission is remembered by its id until it is settled and 10 s old.
//
// # Redis
//
// Several gateways keep their windows together in Redis: one script, one call for a decision, on
// Redis' own clock, every key with a time to live. It is asked for 50 ms, connecting included. What it
// admits is also counted here, and is refused after all when this process by itself has already
// admitted as much as the limit. So whatever Redis forgets, and however often it comes and goes, no
// window of a single gateway holds more than the limit. A clock of Redis' machine that jumps forward
// lets places of other gateways return early; one that jumps back locks nobody out.
//
// A marker says for which instance, and which life of its data, the windows are complete. Where it is
// missing or another (emptied, restarted, failed over) nothing there is believed until the windows are
// built anew: by one gateway from the books ([Options.History]), then by each with what it remembers
// itself, under the ids of the admissions, so that nothing counts twice. Without the books gateways
// wait 2.5 s until each has said what it remembers.
//
// # When Redis is away
//
// Memory decides at once: for a call that failed, and for all calls once a few in a row have
// failed. [Limiter.Run], and no user's request, looks for Redis about every second, and returns to it
// when it is quick, can be written to, is complete, and has been told what happened meanwhile. With
// [OnErrorClosed] nobody passes instead.
//
// Of R gateways each then uses its share. An admission weighs R of the limit (or all of it, when the
// limit is less than R), until Redis knows of it. What this gateway admitted through Redis before weighs
// 1, and what others had used when Redis last answered counts in full from that moment. Admissions that
// others made after that answer are not known. So no window ever holds more than
//
//	Max + (R-1)·⌈Max/R⌉
//
// and the limit itself if no gateway missed an admission of another, or R is 1. For tokens a share that
// is smaller than what is needed at least lets one such ask through when nothing else is in the window;
// ⌈Max/R⌉ then reads MinTokens. Concurrent places: Max/R for each, but at least one.
//
// In Redis a concurrent place is a lease of 60 s that its gateway renews every 20 s: the places of one
// that died come back by themselves. A call whose answer was lost may have been counted by Redis; it is
// undone or counted once, and until then Redis counts too much rather than too little. At most 100,000
// admissions and corrections wait for Redis; beyond that the oldest are dropped, and Status counts them.
package ratelimit
