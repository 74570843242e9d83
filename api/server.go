package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// Options are what the routes answer from.
type Options struct {
	// Version is the program's.
	Version string
	// Components are asked by GET /health, in this order.
	Components []Component
	// Draining says whether the gateway is about to stop; nil = never.
	Draining func() bool
	// Authenticate says whose credential a request carries; nil = nobody's,
	// and the routes that need one are not there.
	Authenticate Authenticate
	// Book is where usage and budgets are read.
	Book *billing.Book
	// Limits are the rate limits, LimitsOf those that apply to a key now, and
	// Defaults those that now apply to a key that has none of its own.
	Limits   Limits
	LimitsOf func(billing.Key) ratelimit.Limits
	Defaults func() ratelimit.Limits
	// Docs says whether the document of the routes and the pages that show it
	// are served now; nil = never.
	Docs func() bool
	Log  *zap.Logger
}

// Authenticate finds the key of a request from every occurrence of its
// authorization header, or says how to refuse it.
type Authenticate func(authorization []string) (billing.Key, *Denied)

// Denied is the answer to a credential that is not let in.
type Denied struct {
	Status  int
	Headers [][2]string
	Body    []byte // JSON
}

// Limits is what the routes need of the rate limits.
type Limits interface {
	// Peek says where a key stands, and counts nothing.
	Peek(ctx context.Context, subject string, l ratelimit.Limits) (ratelimit.Decision, error)
}

// Handler serves the info routes. All of them are reached through Envoy's
// listener, which sends them here without consulting the gate.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	s := &server{o: o, health: newHealth(o), guard: newGuard(time.Now), contract: newContract(mux, publicDocument(o))}
	s.routes()
	if o.Docs == nil {
		return strict(mux, methodsOf(s.contract.OpenAPI()), o.Log)
	}
	s.document(mux)
	documentation(mux)
	return whileOn(o.Docs, append(docsPaths(), documentPath), strict(mux, methodsOf(s.contract.OpenAPI()), o.Log))
}

// whileOn makes paths unknown while they are off.
func whileOn(on func() bool, paths []string, routes http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(paths, r.URL.Path) && !on() {
			unknownPath(w)
			return
		}
		routes.ServeHTTP(w, r)
	})
}

// Paths are all paths that the handler answers, sorted. Each is exact.
func Paths() []string {
	mux := http.NewServeMux()
	s := &server{o: Options{Authenticate: func([]string) (billing.Key, *Denied) { return billing.Key{}, nil }}, contract: newContract(mux, publicDocument(Options{}))}
	s.routes()
	paths := append(docsPaths(), documentPath)
	for path := range s.contract.OpenAPI().Paths {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// route answers one method of a path, and 405 with Allow to the others.
func route(mux *http.ServeMux, method, path string, handle http.HandlerFunc) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			methodNotAllowed(w, method)
			return
		}
		handle(w, r)
	})
}
