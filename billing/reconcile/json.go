package reconcile

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// value is a JSON value and where in the text it begins.
type value struct {
	raw jsontext.Value
	at  int
}

func (r *reader) lineOf(v value) int { return 1 + bytes.Count(r.text[:v.at], []byte{'\n'}) }

// json reads one document or several, one after the other.
func (r *reader) json() error {
	documents := jsontext.NewDecoder(bytes.NewReader(r.text))
	for {
		v, err := next(documents, value{raw: r.text})
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.jsonWrong(err, documents)
		}
		if err := r.document(v); err != nil {
			return err
		}
	}
}

func (r *reader) jsonWrong(err error, d *jsontext.Decoder) error {
	at := d.InputOffset()
	if syntax := (*jsontext.SyntacticError)(nil); errors.As(err, &syntax) {
		at = syntax.ByteOffset
	}
	line := r.lineOf(value{at: int(min(at, int64(len(r.text))))})
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return wrong(line, "expected more: the end is missing")
	case errors.Is(err, jsontext.ErrDuplicateName):
		return wrong(line, "expected each name once in an object")
	}
	return wrong(line, "expected valid JSON")
}

// next reads a value that stands in another one.
func next(d *jsontext.Decoder, in value) (value, error) {
	raw, err := d.ReadValue()
	if err != nil {
		return value{}, err
	}
	end := int(d.InputOffset())
	start := end - len(raw)
	return value{raw: in.raw[start:end], at: in.at + start}, nil
}

// inside calls f with each value of an array, or with each name and value of an
// object. The text was read before, so it is whole.
func (v value) inside(f func(name string, v value) error) error {
	d := jsontext.NewDecoder(bytes.NewReader(v.raw))
	open, err := d.ReadToken()
	if err != nil {
		return err
	}
	for d.PeekKind() != ']' && d.PeekKind() != '}' {
		name := ""
		if open.Kind() == '{' {
			token, err := d.ReadToken()
			if err != nil {
				return err
			}
			name = token.String()
		}
		item, err := next(d, v)
		if err != nil {
			return err
		}
		if err := f(name, item); err != nil {
			return err
		}
	}
	return nil
}

func (v value) members() (map[string]value, error) {
	m := map[string]value{}
	err := v.inside(func(name string, v value) error {
		m[name] = v
		return nil
	})
	return m, err
}

// text is a text, number or nothing as a cell would show it.
func (v value) text() (string, bool) {
	switch kind := v.raw.Kind(); {
	case kind == jsontext.KindNull:
		return "", true
	case kind == jsontext.KindNumber:
		return string(v.raw), true
	case kind != jsontext.KindString:
		return "", false
	}
	text, err := jsontext.AppendUnquote(nil, v.raw)
	return string(text), err == nil
}

// document reads a page, a bucket, a row, or a list of them.
func (r *reader) document(v value) error {
	if v.raw.Kind() == '[' {
		return v.inside(func(_ string, item value) error { return r.document(item) })
	}
	if v.raw.Kind() != '{' {
		return wrong(r.lineOf(v), "expected an object: a page of OpenAI's usage API, or a row")
	}
	m, err := v.members()
	if err != nil {
		return err
	}
	for _, name := range []string{"data", "rows"} {
		list, ok := m[name]
		if !ok {
			continue
		}
		if list.raw.Kind() != '[' {
			return wrong(r.lineOf(list), "%s: expected a list", name)
		}
		if more, ok := m["has_more"]; ok {
			r.cut = more.raw.Kind() == 't'
		}
		return list.inside(func(_ string, item value) error { return r.document(item) })
	}
	for _, name := range []string{"results", "result"} { // the second in older documents of the API
		if list, ok := m[name]; ok && list.raw.Kind() == '[' {
			return r.bucket(v, m, list)
		}
	}
	return r.row(v, m)
}

// bucket reads a span of time of OpenAI's usage API.
func (r *reader) bucket(v value, m map[string]value, results value) error {
	start, ok := m["start_time"].instant()
	if !ok {
		return wrong(r.lineOf(v), "start_time: expected seconds since 1970")
	}
	on := start.Format(time.DateOnly)
	from := int64(start.Sub(start.Truncate(24 * time.Hour)).Seconds())
	to := int64(secondsOfDay)
	if _, stated := m["end_time"]; stated {
		end, ok := m["end_time"].instant()
		if !ok || !end.After(start) {
			return wrong(r.lineOf(v), "end_time: expected seconds since 1970, after start_time")
		}
		to = from + int64(end.Sub(start).Seconds())
		if to > secondsOfDay {
			return wrong(r.lineOf(v), "expected buckets that lie in one UTC day: export with bucket_width=1d, from midnight UTC")
		}
	}
	r.cover(on, from, to)
	return results.inside(func(_ string, item value) error {
		if item.raw.Kind() != '{' {
			return wrong(r.lineOf(item), "expected an object")
		}
		m, err := item.members()
		if err != nil {
			return err
		}
		l := layoutOf(known(m))
		if l[promptColumn] == "" {
			return wrong(r.lineOf(item), "expected usage of completions or embeddings, with input_tokens")
		}
		return r.cells(on, l, m)
	})
}

func (v value) instant() (time.Time, bool) {
	if v.raw == nil {
		return time.Time{}, false
	}
	text, ok := v.text()
	at, valid := instantOf(text)
	return at, ok && valid
}

// row reads an object that is a row by itself.
func (r *reader) row(v value, m map[string]value) error {
	m = normalNames(m)
	l := layoutOf(known(m))
	if wants := l.wants(); wants != "" {
		return wrong(r.lineOf(v), "%s", wants)
	}
	text, isText := m[l[dayColumn]].text()
	on, ok := dayOf(text)
	if !isText || !ok {
		return wrong(r.lineOf(m[l[dayColumn]]), "%s: %s", l[dayColumn], wantsDay)
	}
	r.cover(on, 0, secondsOfDay)
	return r.cells(on, l, m)
}

func (r *reader) cells(on string, l layout, m map[string]value) error {
	for _, name := range l {
		if name == "" {
			continue // such a column is not there
		}
		if _, ok := m[name].text(); !ok {
			return wrong(r.lineOf(m[name]), "%s: expected one text or number", name)
		}
	}
	return r.add(on, l,
		func(name string) string { text, _ := m[name].text(); return text },
		func(name string) int { return r.lineOf(m[name]) })
}

func known(m map[string]value) func(string) bool {
	return func(name string) bool { _, ok := m[name]; return ok }
}

func normalNames(m map[string]value) map[string]value {
	out := make(map[string]value, len(m))
	for name, v := range m {
		out[normal(name)] = v
	}
	return out
}
