// Package envoy writes Envoy's side of the gateway as typed protos, and finds,
// checks, runs and drains an Envoy that uses it. It knows nothing of keys,
// limits or charges: it only makes sure that no request reaches the model
// server past the sidecar that does, and reads no environment.
//
// The configuration closes the gateway by construction, three times over:
//
//   - ext_proc asks the sidecar about every request of the model route and has
//     failure_mode_allow false: an absent, slow or failing sidecar refuses.
//   - The RBAC filter right behind it lets a request on only when the sidecar
//     said so in dynamic metadata (llmgw.admit = "1"). Envoy takes a cleanly
//     closed ext_proc stream for "go on without me", whatever
//     failure_mode_allow says; here it ends at this lock. A client has no way
//     to write metadata, so nothing it sends can open the lock.
//   - The same lock is in the model server's cluster, as a filter of its own: it
//     holds whichever listener, route or upgrade leads there. Copies of
//     request_mirror_policies alone do not meet it.
//
// In an Envoy that has other routes too ([Additions]) the gate is on for the
// model routes only, and the lock guards the model server's cluster, by
// whichever route it is reached.
//
// The sidecar sets admit only in its last answer before the request leaves:
// the answer to the body when there is one.
package envoy
