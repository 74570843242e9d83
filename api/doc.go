// Package api answers questions over HTTP: how the gateway is, and where the caller stands.
// It does not
// know Envoy, gRPC or how the books are stored; whoever builds it passes in
// what to ask.
package api
