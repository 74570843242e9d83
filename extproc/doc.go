// Package extproc is the sidecar's side of Envoy's external processing
// filter: one gRPC stream is one HTTP exchange. It does not know how keys,
// budgets or windows are kept, nor what an Envoy configuration looks like.
//
// # The life of an exchange
//
// Envoy sends the request headers, the buffered request body, the response
// headers, the pieces of the response body as they arrive, and trailers if
// there are any. Every message gets exactly one reply, in order: Envoy matches
// replies by position, not by name.
//
//	state       request headers       request body         response headers       response body     end, error
//	new         look up key: known    refuse               pass (Envoy's own)     pass              nothing to settle
//	known       out of order          admit: admitted      pass (Envoy's own)     pass              nothing to settle
//	admitted    out of order          out of order         meter: answering       out of order      void or settle
//	answering   out of order          out of order         out of order           count             settle
//	done        out of order          out of order         pass                   pass              nothing left
//
// A request without a body (listing models) is admitted on its headers.
//
// # Promises, each held by a test
//
//   - One reply per message, or the stream ends with a non-OK status. A clean
//     end before Envoy is done would mean "go on without me" to Envoy, that is:
//     a request nobody checked or an answer nobody metered.
//   - The metadata llmgw.admit, which opens Envoy's lock, is set only in the
//     last reply of the request side, after the hold is committed.
//   - A hold is settled or voided exactly once, whatever happens: end, error,
//     disconnect, panic.
//   - The piece that lets the client see the end of an answer is released only
//     after the charge is durable.
package extproc
