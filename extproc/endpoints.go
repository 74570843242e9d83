package extproc

import "net/http"

// Shape says how a request body of an endpoint is read and what its answer
// may contain.
type Shape uint8

// The shapes of the OpenAI endpoints that are let through.
const (
	ShapeNone       Shape = iota // no body is read (listing models)
	ShapeChat                    // messages in, choices out
	ShapeCompletion              // prompt in, choices out
	ShapeEmbedding               // input in, vectors out: no output tokens
)

// Endpoint is one upstream path that the gateway lets through. A path under
// /v1/ that is not in the table is refused, never forwarded unmetered.
type Endpoint struct {
	Method string
	Path   string // exact, without the query
	Name   string // as in OpenAI's API reference; kept on charges
	Shape  Shape
}

// Metered tells whether tokens can be used up by the endpoint, so that a hold
// is needed before the request leaves.
func (e Endpoint) Metered() bool { return e.Shape != ShapeNone }

// Endpoints is the table of everything that can reach the upstream.
func Endpoints() []Endpoint {
	return []Endpoint{
		{http.MethodPost, "/v1/chat/completions", "chat.completions", ShapeChat},
		{http.MethodPost, "/v1/completions", "completions", ShapeCompletion},
		{http.MethodPost, "/v1/embeddings", "embeddings", ShapeEmbedding},
		{http.MethodGet, "/v1/models", "models", ShapeNone},
	}
}
