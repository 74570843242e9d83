// Package rig is the test bench of the gateway: a scripted mock upstream,
// clients that tell exactly what they received, an ext_proc server that
// misbehaves on request, and control over the real processes (the built
// binary, Envoy), their CPU time and memory.
//
// It knows nothing of the gateway's packages: it sees the product as a user
// does, through its binary, its ports and its command line. It never belongs
// into the product.
package rig
