package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"
)

// sources is where configuration comes from besides the defaults.
type sources struct {
	file  string            // --config; empty: LLMGW_CONFIG, else none
	dir   string            // working directory, where .env is
	env   []string          // NAME=value
	flags map[string]string // by path of the setting
}

// given is the text of a setting and the place to name when it is wrong.
type given struct{ text, origin string }

// loadConfig reads all sources, later ones over earlier ones: defaults, YAML
// file, .env, environment, flags. Its error is [mistakes], a *callError when
// only the command line is wrong.
func loadConfig(src sources) (Config, error) {
	env, problems := environment(src.dir, src.env)
	file := src.file
	if file == "" {
		file = env[envConfig]
	}
	k := koanf.New(".")
	if file != "" {
		values, bad := fileSettings(file)
		problems = append(problems, bad...)
		problems = append(problems, layer(k, values)...)
	}
	values, bad := envSettings(env)
	problems = append(problems, bad...)
	problems = append(problems, layer(k, values)...)

	flags := make(map[string]given, len(src.flags))
	for _, s := range settings() {
		if text, ok := src.flags[s.path]; ok {
			flags[s.path] = given{text: strings.TrimSpace(text), origin: "option --" + s.flag}
		}
	}
	wrongFlags := layer(k, flags)
	switch {
	case len(problems) == 0 && len(wrongFlags) > 0:
		return Config{}, &callError{text: strings.Join(wrongFlags, "; ")}
	case len(problems) > 0:
		return Config{}, append(problems, wrongFlags...)
	}
	c := Default()
	// ErrorUnused holds the table of settings to the Config it fills.
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", ErrorUnused: true,
	}})
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	if problems := c.conflicts(); len(problems) > 0 {
		return Config{}, problems
	}
	return c, nil
}

// layer reads the texts of one source and lays the values over k. What is wrong
// is reported and left out.
func layer(k *koanf.Koanf, values map[string]given) (problems mistakes) {
	read := make(map[string]any, len(values))
	for _, s := range settings() {
		g, ok := values[s.path]
		if !ok {
			continue
		}
		value, wants := s.read(g.text)
		if wants != "" {
			problems = append(problems, fmt.Sprintf("%s: write %s", g.origin, wants))
			continue
		}
		read[s.path] = value
	}
	if err := k.Load(confmap.Provider(read, "."), nil); err != nil {
		problems = append(problems, fmt.Sprintf("configuration: %v", err))
	}
	return problems
}

// fileSettings reads the YAML file into the texts of settings.
func fileSettings(path string) (map[string]given, mistakes) {
	content, err := readSmall(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, mistakes{fmt.Sprintf("configuration file %s does not exist", path)}
		}
		return nil, mistakes{fmt.Sprintf("configuration file: %v", err)}
	}
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(content), yaml.Parser()); err != nil {
		return nil, yamlMistakes(path, err)
	}
	values := make(map[string]given)
	var problems mistakes
	flat := k.All()
	for _, key := range slices.Sorted(maps.Keys(flat)) {
		g, mistake := fileSetting(key, flat[key])
		switch {
		case mistake != "":
			problems = append(problems, path+": "+mistake)
		case g.text != "":
			values[key] = given{text: g.text, origin: path + ": " + key}
		}
	}
	return values, problems
}

// fileSetting turns one leaf of the file into text. A leaf without a value is
// not set, like a section in which everything is commented out.
func fileSetting(key string, value any) (given, string) {
	paths := make([]string, 0, 32)
	for _, s := range settings() {
		paths = append(paths, s.path)
		if strings.HasPrefix(s.path, key+".") {
			if m, isMap := value.(map[string]any); value == nil || isMap && len(m) == 0 {
				return given{}, ""
			}
			return given{}, fmt.Sprintf("%s is a section: write its settings below it, indented", key)
		}
	}
	if !slices.Contains(paths, key) {
		return given{}, fmt.Sprintf("%s is not known: did you mean %s?", shownKey(key), nearest(key, paths))
	}
	list, isList := value.([]any)
	if !isList {
		text, ok := scalar(value)
		if !ok {
			return given{}, fmt.Sprintf("%s: write one value", key)
		}
		return given{text: text}, ""
	}
	if !slices.Contains([]string{"auth.allowed_keys", "cors.origins", "metrics.models"}, key) {
		return given{}, fmt.Sprintf("%s: write one value, not a list", key)
	}
	if len(list) == 0 && key == "cors.origins" {
		return given{text: "none"}, "" // nobody is a choice there, and not the default
	}
	words := make([]string, 0, len(list))
	for _, item := range list {
		word, ok := scalar(item)
		if !ok {
			return given{}, fmt.Sprintf("%s: write a list of texts", key)
		}
		words = append(words, word)
	}
	return given{text: strings.Join(words, ",")}, ""
}

func scalar(value any) (text string, ok bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case string:
		return strings.TrimSpace(v), true
	case bool, int, int64, uint64:
		return fmt.Sprint(v), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	return "", false
}

var keyShape = regexp.MustCompile(`^[A-Za-z0-9_.]{1,64}$`)

// shownKey keeps a secret that slipped into the place of a key off the screen.
func shownKey(key string) string {
	if keyShape.MatchString(key) {
		return key
	}
	return "a key"
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// yamlMistakes tells which line cannot be read. The library's own words can hold
// the text of the file, secrets among it.
func yamlMistakes(path string, err error) mistakes {
	duplicate := ""
	if typed := (*yamlv3.TypeError)(nil); errors.As(err, &typed) {
		for _, e := range typed.Errors {
			if strings.Contains(e, "already defined") {
				duplicate = ", a setting stands there twice"
			}
		}
	}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		return mistakes{fmt.Sprintf("%s: line %s is not valid YAML%s: write name: value, sections indented", path, m[1], duplicate)}
	}
	return mistakes{fmt.Sprintf("%s is not valid YAML: write name: value, sections indented", path)}
}
