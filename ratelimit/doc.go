// Package ratelimit answers one question: may this happen now?
// It does not know what a subject is, who asks, or why: a subject is an opaque string and a limit is two numbers.
//
// A limit of 30 requests per 60 seconds means that no half-open interval of 60 seconds, wherever it
// begins, holds more than 30 admissions. Fixed windows and token buckets do not keep that promise
// (both let nearly twice the number through around a boundary), so this package remembers when it
// admitted. Refusals are not remembered: asking too often does not postpone the next admission.
//
// Example, with 2 per 10 s:
//
//	 0 s  Take  allowed, 1 left
//	 4 s  Take  allowed, 0 left
//	 9 s  Take  refused, RetryIn 1 s   (the admission of 0 s leaves the window at 10 s)
//	10 s  Take  allowed, 0 left
//	10 s  Take  refused, RetryIn 4 s   (now the one of 4 s is in the way)
//
// # Exactness
//
// Up to 1,000 requests per window every admission keeps its own time. Above, admissions that fall
// within one 64th of the window share the latest time of that piece. A place then returns up to one
// 64th of the window late; it never returns early.
//
// # A limit that changes
//
// The limit comes with every call, so it may change between two calls. The admissions remembered so
// far are judged by the new limit. A longer window asks about a time in which older admissions may
// already have been dropped; their number and the time of the latest of them are kept, and all of
// them count as if they had happened then. Lengthening a window can therefore refuse too early for
// at most the new length, and never admits too many. A subject that was forgotten altogether,
// because it was empty under the longest window it had been asked about, starts afresh.
//
// # Memory
//
// A subject costs what its admissions within the window cost. It is forgotten when the window is
// empty, and [Options.MaxSubjects] bounds how many are held: beyond it the subject that was admitted
// least recently is forgotten although its window is not empty. That subject may then be admitted
// up to its limit once more: the bound gives up exactness for the longest idle subject to keep the
// service up for all others.
package ratelimit
