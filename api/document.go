package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// documentPath is where the OpenAPI document of the public routes is.
const documentPath = "/openapi.json"

func publicDocument(o Options) about {
	return about{ //nolint:gosec // words about credentials
		Title: "LLM Gateway", Version: o.Version,
		Description: "API keys, rate limits and exact token billing in front of an OpenAI-compatible model server.\n\n" +
			"The routes of models are OpenAI's; what the gateway adds is in their headers and errors. " +
			"The other routes tell the owner of a key about that key. All days and months are UTC, all figures are tokens. " +
			"Unknown paths answer 404, wrong methods 405 with `Allow`. Every answer has `x-request-id`.",
		Credential: "An API key of the gateway (`sk-...`).",
	}
}

// document adds what the routes cannot say of themselves, and serves the whole.
func (s *server) document(mux *http.ServeMux) {
	d := s.contract.OpenAPI()
	finish(d)
	describeModels(d)
	describePages(d)
	text, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("api: the document cannot be written: %v", err)) // a test writes it
	}
	mux.HandleFunc(http.MethodGet+" "+documentPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(text) // the client may be gone
	})
}

// finish makes a generated document say what is served: routes of the library
// answer 200 and our errors only.
func finish(d *huma.OpenAPI) {
	for _, item := range d.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			if text, ok := op.Metadata["unwell"].(string); ok {
				op.Responses["503"] = &huma.Response{Description: text, Content: op.Responses["200"].Content}
			}
			// The library adds a default for errors that it was not told of.
			delete(op.Responses, "default")
		}
	}
}

// describePages documents what is read by people, and the document itself.
func describePages(d *huma.OpenAPI) {
	page := func(id, path, summary, contentType string, schema *huma.Schema) {
		d.AddOperation(&huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{tagGateway},
			Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{contentType: {Schema: schema}}}},
		})
	}
	text := &huma.Schema{Type: huma.TypeString}
	page("docs", "/docs", "This document, to read and to try (Swagger UI)", "text/html", text)
	page("redoc", "/redoc", "This document, to read (Redoc)", "text/html", text)
	page("openapi", documentPath, "This document (OpenAPI 3.1)", "application/json", &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true})
}

// errorSchema is the schema of every error, by reference.
func errorSchema(d *huma.OpenAPI) *huma.Schema {
	return d.Components.Schemas.Schema(reflect.TypeFor[errorReport](), true, "")
}

// documentErrors describes the errors that an operation can answer.
func documentErrors(op *huma.Operation, contract huma.API, texts map[int]string, statuses []int) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	for _, status := range statuses {
		response := &huma.Response{
			Description: texts[status],
			Content:     map[string]*huma.MediaType{"application/json": {Schema: errorSchema(contract.OpenAPI())}},
		}
		switch status {
		case http.StatusUnauthorized, http.StatusForbidden:
			response.Headers = map[string]*huma.Param{"WWW-Authenticate": textHeader("How to authenticate (RFC 6750).")}
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			response.Headers = map[string]*huma.Param{"Retry-After": {Description: "Seconds to wait.", Schema: &huma.Schema{Type: huma.TypeInteger}}}
		}
		op.Responses[strconv.Itoa(status)] = response
	}
}

// csvAndJSON documents a success that can be had in two forms.
func csvAndJSON[T any](contract huma.API, description string) *huma.Response {
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{
		"application/json": {Schema: contract.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")},
		"text/csv":         {Schema: &huma.Schema{Type: huma.TypeString}},
	}}
}
