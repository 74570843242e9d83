package api

import (
	"encoding/json"
	"net/http"

	"go.uber.org/zap"
)

// Options are what the routes answer from.
type Options struct {
	// Components are asked by GET /health, in this order.
	Components []Component
	Log        *zap.Logger
}

// Handler serves the info routes. All of them are reached through Envoy's
// listener, which sends them here without consulting the gate.
func Handler(o Options) http.Handler {
	mux := http.NewServeMux()
	health := newHealth(o)
	route(mux, http.MethodGet, "/health", health.ServeHTTP)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "not_found", "Unknown path.")
	})
	return mux
}

// route answers one method of a path, and 405 with Allow to the others.
func route(mux *http.ServeMux, method, path string, handle http.HandlerFunc) {
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method {
			w.Header().Set("Allow", method)
			writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", "This path only takes "+method+".")
			return
		}
		handle(w, r)
	})
}

// writeError answers in OpenAI's error shape, with the detail string that
// clients of the original gateway read.
func writeError(w http.ResponseWriter, status int, code, message string) {
	type inner struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	}
	writeJSON(w, status, struct {
		Error  inner  `json:"error"`
		Detail string `json:"detail"`
	}{inner{Message: message, Type: "invalid_request_error", Code: code}, message})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}
