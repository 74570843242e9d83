// Package e2e holds the tests that treat the gateway as a black box: the built
// binary, a real Envoy, real sockets, a scripted upstream, and the verdict of
// three witnesses (client, upstream, books).
//
// It knows none of the gateway's packages. Its tests carry the build tag e2e:
//
//	go test -tags e2e ./cmd/llm-gateway/e2e
//
// They run bin/llm-gateway (LLMGW_BIN names another one) and the Envoy of
// ENVOY_PATH, PATH or the cache; a missing one is a failure.
package e2e
