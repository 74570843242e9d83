package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxBody    = 32 << 20
	maxChoices = 128
)

// apiError is an answer that is an error, in OpenAI's form.
type apiError struct {
	status  int
	message string
	param   string // empty is null
	code    string // empty is null
}

func (e *apiError) Error() string { return e.message }

func badRequest(param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, message: fmt.Sprintf(format, args...), param: param}
}

// options are the fields that the two completion endpoints share.
type options struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N         *int64 `json:"n"`
	MaxTokens *int64 `json:"max_tokens"`
}

func (o *options) check() error {
	switch {
	case o.StreamOptions != nil && !o.Stream:
		return badRequest("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
	case o.N != nil && (*o.N < 1 || *o.N > maxChoices):
		return badRequest("n", "n must be between 1 and %d, not %d", maxChoices, *o.N)
	}
	return checkCeiling("max_tokens", o.MaxTokens)
}

func checkCeiling(param string, ceiling *int64) error {
	if ceiling != nil && *ceiling < 1 {
		return badRequest(param, "%s must be at least 1, not %d", param, *ceiling)
	}
	return nil
}

func (o *options) includeUsage() bool { return o.StreamOptions != nil && o.StreamOptions.IncludeUsage }

func (o *options) choices() int {
	if o.N == nil {
		return 1
	}
	return int(*o.N)
}

// ceiling is the smallest of the ceilings that are given, no larger than any text is long; 0 is none.
func ceiling(given ...*int64) int64 {
	var smallest int64
	for _, c := range given {
		if c != nil && (smallest == 0 || *c < smallest) {
			smallest = *c
		}
	}
	return min(smallest, maxBody)
}

// content is the text of a message: null, a string, or parts of which those with text count.
type content []string

// UnmarshalJSON reads any of the three forms.
func (c *content) UnmarshalJSON(data []byte) error {
	switch data[0] {
	case 'n':
		return nil
	case '"':
		*c = content{""}
		return json.Unmarshal(data, &(*c)[0])
	case '[':
		var parts []*struct {
			Type string `json:"type"`
			Text string `json:"text"`
		}
		if err := json.Unmarshal(data, &parts); err != nil {
			return err
		}
		for _, p := range parts {
			if p == nil {
				return badRequest("messages", "a part of a content must be an object")
			}
			if p.Type == "text" {
				*c = append(*c, p.Text)
			}
		}
		return nil
	}
	return badRequest("messages", "content must be a string or a list of parts")
}

// input is what is completed or embedded: one or several texts or token lists.
type input []inputItem

// inputItem is a text or, when it came as numbers, its tokens.
type inputItem struct {
	text   string
	tokens int64
}

// UnmarshalJSON reads a string, a list of strings, a list of numbers or a list of lists of numbers; null is absent.
func (in *input) UnmarshalJSON(data []byte) error {
	var one string
	var texts []*string
	var ids []tokenID
	var lists [][]tokenID
	switch {
	case string(data) == "null":
	case json.Unmarshal(data, &one) == nil:
		*in = input{{one, countTokens(one)}}
	case json.Unmarshal(data, &texts) == nil && !slices.Contains(texts, nil):
		for _, t := range texts {
			*in = append(*in, inputItem{*t, countTokens(*t)})
		}
	case json.Unmarshal(data, &ids) == nil:
		*in = input{tokenItem(ids)}
	case json.Unmarshal(data, &lists) == nil && !slices.ContainsFunc(lists, func(l []tokenID) bool { return len(l) == 0 }):
		for _, l := range lists {
			*in = append(*in, tokenItem(l))
		}
	default:
		return errors.New("must be a string, a list of strings, a list of tokens or a list of token lists")
	}
	return nil
}

// tokenID is a token given as its number.
type tokenID uint32

// UnmarshalJSON takes whole numbers only; the standard reader takes null for 0.
func (id *tokenID) UnmarshalJSON(data []byte) error {
	n, err := strconv.ParseUint(string(data), 10, 32)
	*id = tokenID(n)
	return err
}

func tokenItem(ids []tokenID) inputItem { return inputItem{fmt.Sprint(ids), int64(len(ids))} }

func (in input) tokens() (sum int64) {
	for _, item := range in {
		sum += item.tokens
	}
	return sum
}

// read decodes one JSON object and returns its bytes too.
func read(w http.ResponseWriter, r *http.Request, into any) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, message: "the request body is too large"}
	}
	if err != nil {
		return nil, badRequest("", "the request body could not be read")
	}
	if !utf8.Valid(body) {
		return nil, badRequest("", "the request body is not UTF-8")
	}
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return nil, badRequest("", "the request body must be a JSON object")
	}
	err = json.Unmarshal(body, into)
	var wrongType *json.UnmarshalTypeError
	var own *apiError
	switch {
	case err == nil:
		return body, nil
	case errors.As(err, &own):
		return nil, own
	case errors.As(err, &wrongType):
		field := strings.TrimPrefix(wrongType.Field, "options.") // ours to embed, not the client's to know
		return nil, badRequest(field, "%s has the wrong type: %s", field, wrongType.Value)
	}
	return nil, badRequest("", "the request body is not what is expected: %v", err)
}
