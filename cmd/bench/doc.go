// Command bench measures what the gateway costs beside bare Envoy and an
// ext_proc server that does nothing, in the same rounds on the same work.
//
// Absolute figures move with the machine and its neighbours, so every round
// runs all candidates one after the other, started fresh, and only ratios
// within a round are compared; the table shows their medians. CPU is user and
// system time of the candidate's own processes (Envoy and, where there is one,
// the sidecar); the load program and the model server are not in it.
//
// It knows nothing of the product but its binary and its Envoy configuration.
package main
