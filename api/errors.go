package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

// Codes of the errors that these routes answer. The gate has more of its own.
const (
	codeNotFound         = "not_found"
	codeMethodNotAllowed = "method_not_allowed"
	codeInvalidValue     = "invalid_value"
	codeInvalidJSON      = "invalid_json"
	codeTooLarge         = "request_too_large"
	codeContentType      = "unsupported_content_type"
	codeExpired          = "expired"
	codeUnavailable      = "gateway_unavailable"
	codeRateLimited      = "rate_limit_exceeded"
	codeInternal         = "internal_error"
)

// errorObject is OpenAI's error object. All four members are always there:
// SDKs read them without asking.
type errorObject struct {
	Message string  `json:"message" doc:"What is wrong and what to do, for a person."`
	Type    string  `json:"type" doc:"Kind of error, in OpenAI's words." example:"invalid_request_error"`
	Param   *string `json:"param" doc:"The parameter that is wrong, null when it is none."`
	Code    string  `json:"code" doc:"The error, for programs." example:"invalid_value"`
}

// errorReport is the body of every answer that is not a success: the object
// that OpenAI's clients read, and the string that those of the original gateway
// read. It is an error, so that handlers return it.
type errorReport struct {
	Object errorObject `json:"error"`
	Detail string      `json:"detail" doc:"The message again, for clients of the original gateway."`

	status int
	header http.Header
}

// Error implements error.
func (e *errorReport) Error() string { return e.Detail }

// GetStatus implements [huma.StatusError].
func (e *errorReport) GetStatus() int { return e.status }

// GetHeaders implements [huma.HeadersError].
func (e *errorReport) GetHeaders() http.Header { return e.header }

// fail makes an answer that is not a success. The message is for a client: it
// carries nothing that came out of a dependency's error.
func fail(status int, code, message string) *errorReport {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "api_error"
	}
	return &errorReport{Object: errorObject{Message: message, Type: kind, Code: code}, Detail: message, status: status, header: http.Header{}}
}

// about names the parameter that is wrong.
func (e *errorReport) about(param string) *errorReport {
	e.Object.Param = &param
	return e
}

// with adds a header.
func (e *errorReport) with(name, value string) *errorReport {
	e.header.Set(name, value)
	return e
}

// unavailable is the answer while a dependency cannot tell.
func unavailable() *errorReport {
	return fail(http.StatusServiceUnavailable, codeUnavailable, "The gateway cannot tell now. Please retry.").with("Retry-After", "1")
}

//nolint:gochecknoglobals // the library's way to set the shape of errors is global too
var errorShape sync.Once

// useOwnErrors makes the library's own refusals (a parameter that is no date, a
// body that is no JSON) look like ours. What it knows about the value is for
// the client; an error that a handler did not expect is not.
func useOwnErrors() {
	errorShape.Do(func() {
		huma.ValidateStrictCasing = true  // the document knows one spelling of a member
		huma.DefaultArrayNullable = false // lists are never null here
		huma.NewError = newError
		huma.NewErrorWithContext = func(_ huma.Context, status int, message string, errs ...error) huma.StatusError {
			return newError(status, message, errs...)
		}
	})
}

func newError(status int, message string, errs ...error) huma.StatusError {
	switch status {
	case http.StatusUnprocessableEntity, http.StatusBadRequest:
		return invalid(message, errs)
	case http.StatusRequestEntityTooLarge:
		return fail(status, codeTooLarge, "The request body is too large.")
	case http.StatusUnsupportedMediaType:
		return fail(status, codeContentType, "The request body must be JSON (Content-Type: application/json).")
	case http.StatusRequestTimeout:
		return fail(status, "request_timeout", "The request body did not come in time.")
	}
	if status >= http.StatusInternalServerError {
		return fail(status, codeInternal, "The gateway failed. Please retry; the error is in its log.")
	}
	return fail(status, codeInvalidValue, message)
}

// invalid names the first parameter that is wrong and says what is wrong with
// each.
func invalid(message string, errs []error) *errorReport {
	var texts []string
	param := ""
	for _, err := range errs {
		d, ok := err.(huma.ErrorDetailer)
		if !ok || d.ErrorDetail().Location == "" {
			continue
		}
		place := d.ErrorDetail().Location
		if name, ok := strings.CutPrefix(place, "query."); ok {
			place, _, _ = strings.Cut(name, "[") // one item of a list is the parameter's fault
		} else if at := strings.IndexByte(place, '.'); at >= 0 {
			place = place[at+1:] // "body.name" is "name" to its author
		}
		if param == "" {
			param = place
		}
		texts = append(texts, place+": "+ownWords(d.ErrorDetail().Message))
	}
	if len(texts) == 0 {
		return fail(http.StatusBadRequest, codeInvalidJSON, message)
	}
	return fail(http.StatusBadRequest, codeInvalidValue, strings.Join(texts, "; ")).about(param)
}

// ownWords keeps the names of our Go types, which the JSON reader tells, from
// clients.
func ownWords(message string) string {
	if strings.HasPrefix(message, "json: ") || strings.HasPrefix(message, "parsing time") || strings.HasPrefix(message, "Time.UnmarshalJSON") {
		return "a value is not of the type that the document says"
	}
	return message
}

// writeError answers outside of the described routes.
func writeError(w http.ResponseWriter, status int, code, message string) {
	writeReport(w, fail(status, code, message))
}

func writeReport(w http.ResponseWriter, e *errorReport) {
	for name, values := range e.header {
		w.Header()[name] = values
	}
	writeJSON(w, e.status, e)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}
