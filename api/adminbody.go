package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// maxAdminBody bounds the body of an operator's request.
const maxAdminBody = 64 << 10

// readBody takes the body in before the library does, which would guess a
// content type, take null for "not there" and the last of two equal members.
// Where null means something, nulls is true.
func readBody(nulls bool) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdminBody))
		refused := checkBody(r.Header.Values("Content-Type"), body, err)
		if refused == nil {
			refused = plainMembers(body, nulls)
		}
		if refused != nil {
			writeReport(w, refused)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next(ctx)
	}
}

func checkBody(contentType []string, body []byte, err error) *errorReport {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return fail(http.StatusRequestEntityTooLarge, codeTooLarge, "The request body is larger than 64 KiB.")
	}
	if err != nil {
		return fail(http.StatusBadRequest, codeInvalidJSON, "The request body did not come whole.")
	}
	if !isJSON(contentType) {
		return fail(http.StatusUnsupportedMediaType, codeContentType, "The request body must be JSON (Content-Type: application/json).")
	}
	if !utf8.Valid(body) {
		return fail(http.StatusBadRequest, codeInvalidJSON, "The request body is not UTF-8.")
	}
	return nil
}

func isJSON(contentType []string) bool {
	if len(contentType) != 1 {
		return false
	}
	kind, parameters, err := mime.ParseMediaType(contentType[0])
	charset, given := parameters["charset"]
	return err == nil && kind == "application/json" && (!given || charset == "utf-8" || charset == "UTF-8")
}

// plainMembers refuses members that stand there twice, or are null where that
// means nothing. What is no JSON object is left to the reader of the body, which
// says so.
func plainMembers(body []byte, nulls bool) *errorReport {
	d := json.NewDecoder(bytes.NewReader(body))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil
		}
		member, _ := name.(string)
		var value json.RawMessage
		switch err := d.Decode(&value); {
		case err != nil:
			return nil
		case seen[member]:
			return fail(http.StatusBadRequest, codeInvalidValue, "A member stands there twice.").about(member)
		case string(value) == "null" && !nulls:
			return fail(http.StatusBadRequest, codeInvalidValue, "null is no value: leave the member out.").about(member)
		}
		seen[member] = true
		var items []json.RawMessage
		if json.Unmarshal(value, &items) != nil {
			continue
		}
		for _, item := range items { // lists of objects are as deep as bodies go
			if refused := plainMembers(item, false); refused != nil {
				return refused
			}
		}
	}
	return nil
}

// whole is a whole number in a body. JSON Schema's integers include 5.0 and 5e3
// (2020-12, validation, 6.1.1), which Go's reader refuses.
type whole int64

// UnmarshalJSON implements [json.Unmarshaler]. What has a fraction or is larger
// than the document allows was refused before.
func (n *whole) UnmarshalJSON(text []byte) error {
	if i, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		*n = whole(i)
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxWhole {
		return errNotWhole
	}
	*n = whole(f)
	return nil
}

// maxWhole is the largest whole number that every JSON reader takes unrounded.
const maxWhole = 1<<53 - 1

var errNotWhole = errors.New("expected integer")
