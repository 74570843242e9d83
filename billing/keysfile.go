package billing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// KeysFileMax is the size of the largest keys.json that is read, in bytes.
const KeysFileMax = 16 << 20

// ListedKey is an entry of a keys.json, in which the original gateway's commands
// kept their keys. Its secret is for the books only.
type ListedKey struct {
	Limit             int64 // tokens per calendar month by tariff, > 0
	Name, Description string
	CreatedAt         time.Time // UTC; zero = the file does not say

	secret string
}

// KeysFile is a keys.json that was read to its end without a mistake.
type KeysFile struct {
	Keys     []ListedKey // in the file's order, each secret once
	Warnings []string    // what was ignored, one line each
}

// KeysFileError is all that is wrong in a keys.json: one line for each mistake,
// which names the entry by its position and never by its key.
type KeysFileError []string

// Error is the lines.
func (e KeysFileError) Error() string { return strings.Join(e, "\n") }

// ReadKeysFile reads a keys.json. Errors: KeysFileError, in which each line
// begins with path; those of the file system.
func ReadKeysFile(path string) (KeysFile, error) {
	text, err := keysFileText(path)
	if err != nil {
		return KeysFile{}, fmt.Errorf("read the keys of %s: %w", path, err)
	}
	f, err := ParseKeysFile(text)
	if wrong := KeysFileError(nil); errors.As(err, &wrong) {
		lines := make(KeysFileError, len(wrong))
		for i, line := range wrong {
			lines[i] = path + ": " + line
		}
		return KeysFile{}, lines
	}
	for i := range f.Warnings {
		f.Warnings[i] = path + ": " + f.Warnings[i]
	}
	return f, err
}

func keysFileText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		var at *os.PathError
		if errors.As(err, &at) {
			err = at.Err // the path is told already
		}
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, errors.New("it is a directory; name the file in it")
	}
	return io.ReadAll(io.LimitReader(f, KeysFileMax+1))
}

// IsKeysFile says whether a file begins as a keys.json does, whatever the rest
// of it is worth.
func IsKeysFile(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return false
	}
	dec := jsontext.NewDecoder(bytes.NewReader(withoutMark(head)))
	if start, err := dec.ReadToken(); err != nil || start.Kind() != '{' {
		return false
	}
	if dec.PeekKind() == '}' {
		return true // without keys the original wrote {}
	}
	if _, err := dec.ReadToken(); err != nil || dec.PeekKind() != '{' {
		return false
	}
	_, _ = dec.ReadToken()
	for dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return false
		}
		if name.String() == "max_tokens" {
			return true
		}
		if dec.SkipValue() != nil {
			return false
		}
	}
	return false
}

// withoutMark takes off the byte order mark that some editors write.
func withoutMark(text []byte) []byte { return bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) }
