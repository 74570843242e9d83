package main

import (
	"fmt"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"
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

// origins say where the value of each setting comes from, by its path: a setting
// that is not in it has its default.
type origins map[string]string

// of names the place where a setting can be changed.
func (o origins) of(path string) string {
	if origin := o[path]; origin != "" {
		return origin
	}
	return path
}

// blame puts the place that set a path in front of an error about its value; a
// default is nobody's.
func (o origins) blame(path string, err error) error {
	if origin := o[path]; err != nil && origin != "" {
		return fmt.Errorf("%s: %w", origin, err)
	}
	return err
}

// yamlPath is the YAML file that the sources name, "" for none.
func (src sources) yamlPath(env map[string]given) string {
	if src.file != "" {
		return src.file
	}
	return env[envConfig].text
}

// loadConfig reads all sources and says nothing of where what came from.
func loadConfig(src sources) (Config, error) {
	c, _, err := loadOrigins(src)
	return c, err
}

// loadOrigins reads all sources, later ones over earlier ones: defaults, YAML
// file, .env, environment, flags. Its error is [mistakes], a *callError when
// only the command line is wrong.
func loadOrigins(src sources) (Config, origins, error) {
	env, problems := environment(src.dir, src.env)
	k, from := koanf.New("."), make(origins)
	if file := src.yamlPath(env); file != "" {
		values, bad := fileSettings(file)
		problems = append(problems, bad...)
		problems = append(problems, layer(k, values, from)...)
	}
	values, bad := envSettings(env)
	problems = append(problems, bad...)
	problems = append(problems, layer(k, values, from)...)

	flags := make(map[string]given, len(src.flags))
	for _, s := range settings() {
		if text, ok := src.flags[s.path]; ok {
			flags[s.path] = given{text: strings.TrimSpace(text), origin: "option --" + s.flag}
		}
	}
	wrongFlags := layer(k, flags, from)
	switch {
	case len(problems) == 0 && len(wrongFlags) > 0:
		return Config{}, nil, &callError{text: strings.Join(wrongFlags, "; ")}
	case len(problems) > 0:
		return Config{}, nil, append(problems, wrongFlags...)
	}
	c := Default()
	// ErrorUnused holds the table of settings to the Config it fills.
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", ErrorUnused: true,
	}})
	if err != nil {
		return Config{}, nil, fmt.Errorf("read configuration: %w", err)
	}
	if problems := c.conflicts(from); len(problems) > 0 {
		return Config{}, nil, problems
	}
	return c, from, nil
}

// layer reads the texts of one source and lays the values over k. What is wrong
// is reported and left out.
func layer(k *koanf.Koanf, values map[string]given, from origins) (problems mistakes) {
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
		read[s.path], from[s.path] = value, g.origin
	}
	if err := k.Load(confmap.Provider(read, "."), nil); err != nil {
		problems = append(problems, fmt.Sprintf("configuration: %v", err))
	}
	return problems
}
