package api

import (
	"context"
	"net/http"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// Options are what the routes answer from.
type Options struct {
	// Components are asked by GET /health, in this order.
	Components []Component
	// Authenticate says whose credential a request carries; nil = nobody's,
	// and the routes that need one are not there.
	Authenticate Authenticate
	// Limits are the rate limits, LimitsOf those that apply to a key.
	Limits   Limits
	LimitsOf func(billing.Key) ratelimit.Limits
	// Docs serves the document of the routes and the pages that show it.
	Docs bool
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
	health := newHealth(o)
	route(mux, http.MethodGet, "/health", health.ServeHTTP)
	if o.Authenticate != nil {
		route(mux, http.MethodGet, "/rate-limit", own(o, rateLimit(o)))
	}
	if o.Docs {
		documentation(mux)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, codeNotFound, "Unknown path.")
	})
	return mux
}

// route answers one method of a path, and 405 with Allow to the others.
func route(mux *http.ServeMux, method, path string, handle http.HandlerFunc) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			writeError(w, http.StatusMethodNotAllowed, codeMethodNotAllowed, "This path only takes "+method+".")
			return
		}
		handle(w, r)
	})
}

// own lets a route answer the owner of a key, about that key only.
func own(o Options, answer func(http.ResponseWriter, *http.Request, billing.Key)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key, denied := o.Authenticate(r.Header.Values("Authorization"))
		if denied == nil {
			answer(w, r, key)
			return
		}
		for _, h := range denied.Headers {
			w.Header().Set(h[0], h[1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(denied.Status)
		_, _ = w.Write(denied.Body) // the client may be gone
	}
}
