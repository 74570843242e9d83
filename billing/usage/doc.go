// Package usage turns a provider's answer, read in pieces cut anywhere, into token counts, a verdict on how far they can be believed, and the moment at which the client could see the end.
// It does not know HTTP servers, proxies, keys, prices or databases: bytes and two header values go in, plain values come out.
//
// An answer is one of two envelopes: an event stream (stream.go over the line reader sse.go, with drop.go taking out the one chunk that the client did not ask for) or one JSON value (json.go).
// Both feed the same incremental JSON reader (scan.go for the grammar, fields.go for which member means what), so nothing of an answer is kept but a sample of its text and the usage object.
// openai.go decides what a usage object says and whether it is believed, tally.go adds up what an answer has told, decode.go reads compressed answers beside the client's untouched bytes.
//
// # Bounds
//
// A meter keeps at most MaxOutputSample of text, two usage objects of 64 KiB, in drop mode one unfinished event of 64 KiB, and while decompressing a window of at most 16 MiB for each coding.
// An endless line or an endless string costs time in proportion to its bytes, and no memory.
// A JSON value nested deeper than 256 levels is treated as text that is not JSON.
package usage
