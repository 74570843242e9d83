package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"time"
)

const (
	modelName = "demo"
	// created is the time in every answer, in Unix seconds: the start of 2025, so that answers are the same every day.
	created = 1735689600
)

// Options configure the demo model. The zero value answers without delay.
type Options struct {
	// ChunkDelay is waited before every event of a stream but the first, to make streaming visible.
	ChunkDelay time.Duration
}

type model struct{ chunkDelay time.Duration }

// Handler is New without options.
func Handler() http.Handler { return New(Options{}) }

// New makes the model. The handler keeps nothing between requests.
func New(o Options) http.Handler { return &model{chunkDelay: o.ChunkDelay} }

// ServeHTTP answers one request; every error has the form of OpenAI's errors.
func (m *model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := m.route(w, r); err != nil {
		writeError(w, err)
	}
}

func (m *model) route(w http.ResponseWriter, r *http.Request) error {
	endpoint := ""
	if i := strings.LastIndex(r.URL.Path, "/v1/"); i >= 0 {
		endpoint = r.URL.Path[i+len("/v1/"):]
	}
	method, serve := http.MethodPost, m.chat
	switch {
	case endpoint == "chat/completions":
	case endpoint == "completions":
		serve = m.complete
	case endpoint == "embeddings":
		serve = m.embed
	case endpoint == "models" || strings.HasPrefix(endpoint, "models/"):
		method, serve = http.MethodGet, listModels
	default:
		return &apiError{status: http.StatusNotFound, message: "Invalid URL (" + r.Method + " " + r.URL.Path + ")"}
	}
	if r.Method != method {
		w.Header().Set("Allow", method)
		return &apiError{status: http.StatusMethodNotAllowed, message: "Not allowed to " + r.Method + " on " + r.URL.Path}
	}
	return serve(w, r)
}

type modelCard struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

func listModels(w http.ResponseWriter, r *http.Request) error {
	card := modelCard{modelName, "model", created, "llm-gateway"}
	_, id, one := strings.Cut(r.URL.Path[strings.LastIndex(r.URL.Path, "/v1/")+1:], "models/")
	switch {
	case !one:
		writeJSON(w, http.StatusOK, struct {
			Object string      `json:"object"`
			Data   []modelCard `json:"data"`
		}{"list", []modelCard{card}})
	case id == modelName:
		writeJSON(w, http.StatusOK, card)
	default:
		return &apiError{http.StatusNotFound, fmt.Sprintf("The model '%s' does not exist", id), "model", "model_not_found"}
	}
	return nil
}

// idOf names an answer after its request: the same request has the same id.
func idOf(prefix string, body []byte) string {
	h := fnv.New64a()
	_, _ = h.Write(body) // a hash takes everything
	return fmt.Sprintf("%s-demo%016x", prefix, h.Sum64())
}

func writeError(w http.ResponseWriter, err error) {
	e := &apiError{status: http.StatusInternalServerError, message: err.Error()}
	errors.As(err, &e)
	type inner struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	writeJSON(w, e.status, struct {
		Error inner `json:"error"`
	}{inner{e.message, "invalid_request_error", orNull(e.param), orNull(e.code)}})
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(v)) // the client may be gone; nobody is left to be told
}

// encode writes JSON on one line, without escaping what only HTML needs escaped.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("demo: an answer cannot be encoded: %v", err)) // our own types only
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
