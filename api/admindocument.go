package api

import (
	"context"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

// describe adds a route of the operator to the mux and to the document, with
// the statuses it can answer besides its success. 400 (a parameter that is
// unknown), 401 and 429 are everyone's.
func describe[I, O any](a *admin, op huma.Operation, statuses []int, handle func(context.Context, *I) (*O, error)) { //nolint:gocritic // as the library's function of the same form
	op.Security = []map[string][]string{{bearerScheme: {}}}
	statuses = slices.Concat(statuses, []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusTooManyRequests})
	if _, hasBody := reflect.TypeFor[I]().FieldByName("Body"); hasBody {
		statuses = append(statuses, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
		// In a change null takes a value away (RFC 7396); elsewhere it is a mistake.
		op.Middlewares = huma.Middlewares{readBody(op.Method == http.MethodPatch)}
		op.MaxBodyBytes = 2 * maxAdminBody // readBody has refused it before
	}
	documentErrors(&op, a.contract, refusals(), statuses)
	huma.Register(a.contract, op, handle)
}

// refusals say what a status means, for the document.
func refusals() map[int]string {
	return map[int]string{
		http.StatusBadRequest:            "A parameter or a member of the body is unknown or wrong; param names it.",
		http.StatusUnauthorized:          "The operator's token is missing or wrong.",
		http.StatusNotFound:              "No such key, or no such tariff.",
		http.StatusConflict:              "The request is well formed but comes too late: the key is revoked, expired or blocked, or the expiry has passed. Or keys have the tariff that is to be removed, no tariff can have the name, or none has the one that a key is to get; the books are in another currency, or a price begins in the past.",
		http.StatusRequestEntityTooLarge: "The body is larger than 64 KiB.",
		http.StatusUnsupportedMediaType:  "The body is not application/json.",
		http.StatusTooManyRequests:       "Too many requests without the right token.",
		http.StatusServiceUnavailable:    "The books do not answer. Nothing was changed that the answer does not name.",
	}
}
