package billing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// listedWords bounds names and descriptions, in bytes, as those of new keys.
	listedWords = 500
	// mistakesShown bounds what is told of a file that is wrong throughout.
	mistakesShown = 100
)

// ParseKeysFile reads the text of a keys.json. Its error is a KeysFileError.
func ParseKeysFile(text []byte) (KeysFile, error) {
	text = withoutMark(text)
	switch {
	case len(text) > KeysFileMax:
		return KeysFile{}, KeysFileError{fmt.Sprintf("it is larger than %d MiB; keys can be imported from several files, one after the other", KeysFileMax>>20)}
	case len(bytes.TrimSpace(text)) == 0:
		return KeysFile{}, KeysFileError{`it is empty; write {"<key>": {"max_tokens": N}, ...}`}
	}
	p := keysParser{
		// Names are looked at here, so that all that stand twice are told.
		dec:  jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true)),
		text: text, line: 1, at: map[string]int{},
	}
	if err := p.file(); err != nil {
		p.syntax(err)
	}
	if p.unsaid > 0 {
		p.mistakes = append(p.mistakes, fmt.Sprintf("and %d more mistakes", p.unsaid))
	}
	if len(p.mistakes) > 0 {
		return KeysFile{}, p.mistakes
	}
	for _, m := range p.unknown {
		p.found.Warnings = append(p.found.Warnings, fmt.Sprintf("%s is not known, and is ignored (entries with it: %d)", m.name, m.entries))
	}
	return p.found, nil
}

type unknownMember struct {
	name    string
	entries int
}

type keysParser struct {
	dec  *jsontext.Decoder
	text []byte

	line    int // of the offset counted so far
	counted int64

	found    KeysFile
	entries  int
	at       map[string]int // entry of each secret
	unknown  []unknownMember
	mistakes KeysFileError
	unsaid   int
}

// here is the line of the token that was read last.
func (p *keysParser) here() int {
	end := p.dec.InputOffset()
	p.line += bytes.Count(p.text[p.counted:end], []byte{'\n'})
	p.counted = end
	return p.line
}

func (p *keysParser) wrong(format string, args ...any) {
	if len(p.mistakes) == mistakesShown {
		p.unsaid++
		return
	}
	p.mistakes = append(p.mistakes, fmt.Sprintf(format, args...))
}

// syntax tells where the text stops being JSON. The library's own words repeat
// the names on the way there, which are keys.
func (p *keysParser) syntax(err error) {
	line := p.here()
	if wrong := (*jsontext.SyntacticError)(nil); errors.As(err, &wrong) && wrong.ByteOffset <= int64(len(p.text)) {
		line = 1 + bytes.Count(p.text[:wrong.ByteOffset], []byte{'\n'})
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		p.wrong("line %d: its end is missing", line)
		return
	}
	p.wrong("line %d is not valid JSON", line)
}

func (p *keysParser) file() error {
	if p.dec.PeekKind() != '{' {
		if _, err := p.dec.ReadValue(); err != nil {
			return err
		}
		p.wrong(`line %d: write one object {"<key>": {"max_tokens": N}, ...}`, p.here())
		return nil
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	for p.dec.PeekKind() != '}' {
		if err := p.entry(); err != nil {
			return err
		}
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	switch _, err := p.dec.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	p.wrong("line %d: there is more after the end of the object", p.here())
	return nil
}

// entry reads one key and what belongs to it.
func (p *keysParser) entry() error {
	name, err := p.dec.ReadToken()
	if err != nil {
		return err
	}
	k := ListedKey{secret: name.String()}
	p.entries++
	where := fmt.Sprintf("entry %d (line %d, %s)", p.entries, p.here(), mask(k.secret))
	before := len(p.mistakes) + p.unsaid
	if reason := unpresentable(k.secret); reason != "" {
		p.wrong("%s: %s", where, reason)
	} else if first, twice := p.at[k.secret]; twice {
		p.wrong("%s: the same key as entry %d; keep one of them", where, first)
	} else {
		p.at[k.secret] = p.entries
	}
	if p.dec.PeekKind() != '{' {
		if err := p.dec.SkipValue(); err != nil {
			return err
		}
		p.wrong(`%s: write an object {"max_tokens": N}`, where)
		return nil
	}
	if err := p.members(&k, where); err != nil {
		return err
	}
	if len(p.mistakes)+p.unsaid == before {
		p.found.Keys = append(p.found.Keys, k)
	}
	return nil
}

func (p *keysParser) members(k *ListedKey, where string) error {
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.dec.PeekKind() != '}' {
		token, err := p.dec.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		value, err := p.dec.ReadValue()
		if err != nil {
			return err
		}
		if seen[name] {
			p.wrong("%s: %s stands there twice", where, shownMember(name))
			continue
		}
		seen[name] = true
		if wants, known := k.take(name, value); !known {
			p.ignore(name)
		} else if wants != "" {
			p.wrong("%s: %s: write %s", where, name, wants)
		}
	}
	if !seen["max_tokens"] {
		p.wrong("%s: max_tokens is missing: write the tokens per month that the key may use", where)
	}
	_, err := p.dec.ReadToken()
	return err
}

// take reads one member; wants is what should be written instead, "" = fine.
func (k *ListedKey) take(name string, value jsontext.Value) (wants string, known bool) {
	text, isText := "", value.Kind() == '"'
	if isText {
		plain, err := jsontext.AppendUnquote(nil, value)
		if err != nil {
			isText = false
		}
		text = strings.TrimSpace(string(plain))
	}
	switch name {
	case "max_tokens":
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n <= 0 {
			return "a whole number above 0, digits only", true
		}
		k.Limit = n
	case "name", "description":
		if !isText || len(text) > listedWords || strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Sprintf("a text of at most %d bytes without control characters", listedWords), true
		}
		if name == "name" {
			k.Name = text
		} else {
			k.Description = text
		}
	case "created_at":
		at, ok := listedTime(text)
		if !isText || !ok {
			return "a day such as 2026-01-31, or a time such as 2026-01-31T23:59:59, from 1970 on", true
		}
		k.CreatedAt = at
	default:
		return "", false
	}
	return "", true
}

// listedTime reads a day or a time. The original wrote its machine's local time
// without saying which zone that was; it counts as UTC.
func listedTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04:05", time.DateTime, time.RFC3339} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), at.Unix() > 0
		}
	}
	return time.Time{}, false
}

func (p *keysParser) ignore(name string) {
	name = shownMember(name)
	for i := range p.unknown {
		if p.unknown[i].name == name {
			p.unknown[i].entries++
			return
		}
	}
	if len(p.unknown) < mistakesShown {
		p.unknown = append(p.unknown, unknownMember{name: name, entries: 1})
	}
}

// shownMember keeps a key that slipped into the place of a name off the screen.
func shownMember(name string) string {
	if memberShape.MatchString(name) && !strings.HasPrefix(name, "sk-") {
		return name
	}
	return "a member"
}

var memberShape = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,32}$`)

// unpresentable says why no client could present a secret, "" when one could.
func unpresentable(secret string) string {
	switch {
	case secret == "":
		return "the key is empty"
	case len(secret) > secretMax:
		return fmt.Sprintf("the key is longer than %d bytes, which no request may carry", secretMax)
	case strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "the key has spaces, control characters or letters beyond ASCII, which no request may carry"
	case !plausible(secret):
		return "the key begins as those of create-key do, and is not whole"
	}
	return ""
}

// mask tells keys apart as far as they may be shown at all.
func mask(secret string) string {
	if shown := display(secret); shown != "" && unpresentable(secret) == "" {
		return shown
	}
	if strings.HasPrefix(secret, "sk-") {
		return "sk-…"
	}
	return "…"
}
