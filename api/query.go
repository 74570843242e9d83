package api

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// oneReading refuses queries that could be read in two ways. A list may be given
// with commas or by repeating its name.
func oneReading(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	query, refused := plainQuery(r, func(name string) bool { return isList(ctx.Operation(), name) })
	if refused != nil {
		writeReport(w, refused)
		return
	}
	r.URL.RawQuery = query.Encode()
	next(ctx)
}

// plainQuery reads a query in which each parameter has one value: the library
// takes the first of several, and an empty one for none. The values of lists are
// joined with commas.
func plainQuery(r *http.Request, list func(name string) bool) (url.Values, *errorReport) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(http.StatusBadRequest, codeInvalidValue, "The query cannot be read.")
	}
	for name, values := range query {
		if len(values) > 1 && list(name) {
			values = []string{strings.Join(values, ",")}
			query[name] = values
		}
		switch {
		case len(values) > 1:
			return nil, fail(http.StatusBadRequest, codeInvalidValue, "Give each parameter once.").about(name)
		case values[0] == "":
			return nil, fail(http.StatusBadRequest, codeInvalidValue, "A parameter without a value: leave it out, or give it one.").about(name)
		}
	}
	return query, nil
}

// isList tells whether the operation documents the parameter as an array.
func isList(op *huma.Operation, name string) bool {
	for _, p := range op.Parameters {
		if p.In == "query" && p.Name == name {
			return p.Schema.Type == huma.TypeArray
		}
	}
	return false
}

// prefersCSV reads an Accept header (RFC 9110, section 12.5.1): CSV is for
// whoever names it and does not like JSON better. Every other header means JSON.
func prefersCSV(accept []string) bool {
	csv, json := 0.0, 0.0
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		kind, parameters, _ := strings.Cut(item, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "text/csv":
			csv = max(csv, weightOf(parameters))
		case "application/json":
			json = max(json, weightOf(parameters))
		}
	}
	return csv > 0 && csv >= json
}

// weightOf is the q of a header's item, 1 where there is none, 0 where it cannot
// be read.
func weightOf(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || q < 0 || q > 1 {
			return 0
		}
		return q
	}
	return 1
}
