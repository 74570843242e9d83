package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/knadh/koanf/parsers/dotenv"
)

// environment merges .env of the working directory with the real environment,
// which wins. Values are trimmed; an empty one counts as not set, because
// compose files and shells pass empty variables for "nothing". The origin of a
// variable of .env says so: who looks for a mistake must know which file to open.
func environment(dir string, real []string) (map[string]given, mistakes) {
	file, problems := dotEnv(filepath.Join(dir, dotEnvName))
	merged := make(map[string]given, len(file)+len(real))
	for name, value := range file {
		if value = strings.TrimSpace(value); value != "" {
			merged[name] = given{text: value, origin: dotEnvName + ": " + name}
		}
	}
	for _, kv := range real {
		name, value, _ := strings.Cut(kv, "=")
		if value = strings.TrimSpace(value); value != "" {
			merged[name] = given{text: value, origin: name}
		}
	}
	return merged, problems
}

// dotEnvName is the file of variables in the working directory.
const dotEnvName = ".env"

// maxTextFile bounds what is read of any file of the configuration, in bytes.
const maxTextFile = 1 << 20

func dotEnv(path string) (map[string]string, mistakes) {
	text, err := readSmall(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, mistakes{fmt.Sprintf(".env: %v", err)}
	case !utf8.Valid(text):
		return nil, mistakes{".env: it is not UTF-8 text: save it as UTF-8"}
	}
	parsed, err := dotenv.Parser().Unmarshal(text)
	if err != nil {
		// The parser's own message repeats the text around the mistake, which may
		// be a secret.
		return nil, mistakes{fmt.Sprintf(
			".env: line %d cannot be read: write NAME=value, with quotes around values that hold spaces or #", badLine(text))}
	}
	values := make(map[string]string, len(parsed))
	for name, value := range parsed {
		values[name] = fmt.Sprint(value)
	}
	return values, nil
}

// badLine finds the first line from which on no prefix of text can be read: the
// line that is wrong, or the one that opens a quote nobody closes.
func badLine(text []byte) int {
	bad, count := 1, 0
	var prefix []byte
	readable := true
	for line := range bytes.Lines(text) {
		prefix = append(prefix, line...)
		count++
		_, err := dotenv.Parser().Unmarshal(prefix)
		if err != nil && readable {
			bad = count
		}
		readable = err == nil
	}
	return bad
}

// readSmall reads a file of at most maxTextFile bytes. It does not wait for
// somebody to write into a pipe.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name a file", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxTextFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxTextFile {
		return nil, fmt.Errorf("%s is larger than 1 MiB: name another file", path)
	}
	return content, nil
}

const (
	envPrefix     = "LLMGW_"
	envConfig     = "LLMGW_CONFIG" // path of the YAML file, as --config
	envTestPrefix = "LLMGW_TEST_"  // of this project's own tests
)

// envSettings picks the settings out of the environment: their texts by path,
// and the name each came from.
func envSettings(env map[string]given) (values map[string]given, problems mistakes) {
	values = make(map[string]given)
	for _, s := range settings() {
		variable := env[s.env]
		if file := env[s.env+"_FILE"]; s.secret && file.text != "" {
			if variable.text != "" {
				problems = append(problems, fmt.Sprintf("%s and %s are both set: keep one of them", variable.origin, file.origin))
				continue
			}
			text, mistake := secretFile(file.text)
			if mistake != "" {
				problems = append(problems, file.origin+": "+mistake)
				continue
			}
			variable = given{text: text, origin: file.origin}
		}
		if variable.text != "" {
			values[s.path] = variable
		}
	}
	return values, append(problems, unknownNames(env)...)
}

// secretFile reads a mounted secret. An empty file is a mistake and not "no
// secret": it is what a failed mount leaves behind.
func secretFile(path string) (text, mistake string) {
	content, err := readSmall(path)
	if err != nil {
		return "", fmt.Sprintf("cannot be read: %v", err)
	}
	if text = strings.TrimSpace(string(content)); text == "" {
		return "", fmt.Sprintf("%s is empty: write the secret into it", path)
	}
	return text, ""
}

// serviceLinks are the variables that Kubernetes sets for a Service called
// "llmgw" or "llmgw-…"; they are nobody's mistake.
var serviceLinks = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// unknownNames reports variables that look like ours and are not: a mistyped
// limit must not be silently the default.
func unknownNames(env map[string]given) (problems mistakes) {
	known := envNames()
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) ||
			strings.HasPrefix(name, envTestPrefix) || serviceLinks.MatchString(name) {
			continue
		}
		problems = append(problems, fmt.Sprintf("%s is not known: did you mean %s?", env[name].origin, nearestEnv(name, known)))
	}
	return problems
}

func envNames() []string {
	names := []string{envConfig}
	for _, s := range settings() {
		names = append(names, s.env)
		if s.secret {
			names = append(names, s.env+"_FILE")
		}
	}
	return names
}

// nearestEnv prefers the setting whose YAML path the name spells
// (LLMGW_LIMITS__DAILY is limits.daily), then the most similar name.
func nearestEnv(name string, known []string) string {
	path := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "__", "."))
	for _, s := range settings() {
		if s.path == path {
			return s.env
		}
	}
	return nearest(name, known)
}

// nearest returns the candidate with the smallest edit distance to word.
func nearest(word string, candidates []string) string {
	best, bestDistance := "", -1
	for _, c := range candidates {
		if d := distance(word, c); bestDistance < 0 || d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two ASCII words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			above := row[j+1]
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above+1, row[j]+1, diagonal+cost)
			diagonal = above
		}
	}
	return row[len(b)]
}
