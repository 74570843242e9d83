package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	yamlv3 "go.yaml.in/yaml/v3"
)

// Bounds of a YAML file, which aliases can make far larger than its text. No
// setting lies deeper than two sections.
const (
	maxYAMLNodes = 200_000
	maxYAMLDepth = 8
	// maxYAMLMistakes are told at once of a file that is something else.
	maxYAMLMistakes = 100
)

// yamlFile reads a YAML file into the texts of settings. It goes over the nodes
// and not over decoded values: a number is what stands there, so that 1e3, 0x10
// and 1_000 are refused in a file as they are in a variable.
type yamlFile struct {
	path     string
	values   map[string]given
	problems mistakes
	nodes    int
}

// fileSettings reads the YAML file into the texts of settings.
func fileSettings(path string) (map[string]given, mistakes) {
	content, err := readSmall(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, mistakes{fmt.Sprintf("configuration file %s does not exist", path)}
	case err != nil:
		return nil, mistakes{fmt.Sprintf("configuration file: %v", err)}
	case !utf8.Valid(content):
		return nil, mistakes{path + " is not UTF-8 text: save it as UTF-8"}
	}
	f := &yamlFile{path: path, values: make(map[string]given)}
	if mistake := f.read(content); mistake != "" {
		return nil, mistakes{mistake}
	}
	return f.values, f.problems
}

// errYAMLSize: aliases multiply, or nest without end.
var errYAMLSize = errors.New("too much YAML")

func (f *yamlFile) read(content []byte) (mistake string) {
	decoder := yamlv3.NewDecoder(bytes.NewReader(content))
	var document, second yamlv3.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return "" // nothing but comments
	case err != nil:
		return f.unreadable(err)
	}
	if err := decoder.Decode(&second); err == nil {
		return fmt.Sprintf("%s: line %d begins a second document: keep one of them", f.path, second.Line)
	} else if !errors.Is(err, io.EOF) {
		return f.unreadable(err)
	}
	root := document.Content[0]
	if isNull(root) {
		return ""
	}
	if root.Kind != yamlv3.MappingNode {
		return fmt.Sprintf("%s is not valid YAML near line %d: write name: value, sections indented by spaces", f.path, root.Line)
	}
	if err := f.section(root, "", 0); err != nil {
		return f.path + " is nested too deeply, or its aliases (*name) make it too large: write each setting once, below its section"
	}
	if len(f.problems) == maxYAMLMistakes {
		f.problems = append(f.problems, f.path+": there may be more: repair these first")
	}
	return ""
}

// section reads the members of a mapping, "" = of the whole file.
func (f *yamlFile) section(n *yamlv3.Node, prefix string, depth int) error {
	if depth > maxYAMLDepth {
		return errYAMLSize
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if f.nodes++; f.nodes > maxYAMLNodes {
			return errYAMLSize
		}
		name, value := n.Content[i], target(n.Content[i+1])
		key := prefix + name.Value
		switch {
		case name.Kind != yamlv3.ScalarNode:
			f.problem("line %d: write a name there, and its value behind the colon", name.Line)
		case name.Value == "<<":
			f.problem("line %d: << is not understood here: write the settings out", name.Line)
		case strings.Contains(name.Value, "."):
			f.problem("line %d: write the section alone, and its settings below it, indented", name.Line)
		case seen[name.Value]:
			f.problem("line %d: the same name stands above it: keep one of them", name.Line)
		case value.Kind == yamlv3.MappingNode && len(value.Content) > 0:
			if err := f.section(value, key+".", depth+1); err != nil {
				return err
			}
		default:
			if err := f.leaf(key, name.Line, value); err != nil {
				return err
			}
		}
		seen[name.Value] = true
	}
	return nil
}

// leaf reads a value. One that is not there is not set, like a section in which
// everything is commented out.
func (f *yamlFile) leaf(key string, line int, value *yamlv3.Node) error {
	var paths []string
	for _, s := range settings() {
		paths = append(paths, s.path)
		if strings.HasPrefix(s.path, key+".") {
			if !isNull(value) && value.Kind != yamlv3.MappingNode {
				f.problem("%s is a section: write its settings below it, indented", key)
			}
			return nil
		}
	}
	if !slices.Contains(paths, key) {
		if keyShape.MatchString(key) {
			f.problem("%s is not known: did you mean %s?", key, nearest(key, paths))
		} else { // it may be a secret that slipped into the place of a name
			f.problem("line %d: the name there is not known: write one of a setting", line)
		}
		return nil
	}
	text, ok := scalar(value)
	if value.Kind == yamlv3.SequenceNode {
		if !slices.Contains(listPaths(), key) {
			f.problem("%s: write one value, not a list", key)
			return nil
		}
		words := make([]string, 0, len(value.Content))
		for _, item := range value.Content {
			if f.nodes++; f.nodes > maxYAMLNodes {
				return errYAMLSize
			}
			word, isText := scalar(target(item))
			if !isText || strings.Contains(word, ",") {
				f.problem("%s: write a list of texts without commas", key)
				return nil
			}
			words = append(words, word)
		}
		if text, ok = strings.Join(words, ","), true; len(words) == 0 && key == "cors.origins" {
			text = "none" // nobody is a choice there, and not the default
		}
	}
	switch {
	case !ok:
		f.problem("%s: write one value", key)
	case text != "":
		f.values[key] = given{text: text, origin: f.path + ": " + key}
	}
	return nil
}

// listPaths are the settings that may be written as a list.
func listPaths() []string { return []string{"auth.allowed_keys", "cors.origins", "metrics.models"} }

func (f *yamlFile) problem(format string, args ...any) {
	if len(f.problems) < maxYAMLMistakes {
		f.problems = append(f.problems, f.path+": "+fmt.Sprintf(format, args...))
	}
}

// target is the node that an alias stands for.
func target(n *yamlv3.Node) *yamlv3.Node {
	for n.Kind == yamlv3.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func isNull(n *yamlv3.Node) bool { return n.Kind == yamlv3.ScalarNode && n.ShortTag() == "!!null" }

// scalar is the text of a single value as it stands in the file.
func scalar(n *yamlv3.Node) (text string, ok bool) {
	if n.Kind != yamlv3.ScalarNode {
		return "", false
	}
	if isNull(n) {
		return "", true
	}
	return strings.TrimSpace(n.Value), true
}

var keyShape = regexp.MustCompile(`^[A-Za-z0-9_.]{1,64}$`)

var yamlLine = regexp.MustCompile(`line (\d+)`)

// unreadable tells about which line cannot be read; the library is sometimes off
// by one. Its own words can hold the text of the file, secrets among it.
func (f *yamlFile) unreadable(err error) string {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Sprintf("%s is not valid YAML near line %s: write name: value, sections indented by spaces", f.path, m[1])
	}
	return f.path + " is not valid YAML: write name: value, sections indented by spaces"
}
