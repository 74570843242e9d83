package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yamlv3 "go.yaml.in/yaml/v3"
)

// documented is a row of the tables in docs/compose.md.
type documented struct{ fallback, container, secret string }

var (
	variableRow  = regexp.MustCompile("(?m)^\\| `([A-Z][A-Z0-9_]*)` \\| ([^|]*) \\| ([^|]*) \\|([^|]*)\\|.*\\|$")
	interpolates = regexp.MustCompile(`\$\{([A-Z0-9_]+):-([^}]*)\}`)
	exampleLine  = regexp.MustCompile(`(?m)^#( {3})?([A-Z][A-Z0-9_]*)=(.*)$`)
)

// ofCompose are variables of Compose itself, which no file mentions.
var ofCompose = []string{"COMPOSE_FILE", "COMPOSE_PROFILES"}

// TestComposePage holds docs/compose.md, .env.example and docker-compose.yaml with
// its parts together: each variable is in all of them, and the page says of each
// where its value goes, what it is without one, and whether a file can hold it.
func TestComposePage(t *testing.T) {
	files := []string{string(readFile(t, composePath))}
	for _, part := range partsOfCompose(t) {
		files = append(files, part)
	}
	for _, problem := range composePageProblems(t, string(readFile(t, "../../docs/compose.md")), string(readFile(t, "../../.env.example")), files) {
		t.Error(problem)
	}
}

// TestComposePage_problems breaks each rule once.
func TestComposePage_problems(t *testing.T) {
	page, example, compose := string(readFile(t, "../../docs/compose.md")), string(readFile(t, "../../.env.example")), string(readFile(t, composePath))
	files := func(compose string) []string {
		list := []string{compose}
		for _, part := range partsOfCompose(t) {
			list = append(list, part)
		}
		return list
	}
	for _, c := range []struct {
		in         *string
		old, fresh string
		want       string
	}{
		{&page, "| `LOG_LEVEL` | `info`", "| `LOG_LEVEL` | `debug`", "LOG_LEVEL: its default is not debug"},
		{&page, "| `LLMGW_CORS__ORIGINS` | `*`", "| `LLMGW_CORS__ORIGINS` | -", "LLMGW_CORS__ORIGINS: its default is not empty"},
		{&page, "| `LLM_TIMEOUT` | `300s` | envoy |", "| `LLM_TIMEOUT` | `300s` | gateway |", "LLM_TIMEOUT: it goes to envoy"},
		{&page, "| `REDIS_TLS` | `false` | override |", "| `REDIS_TLS` | `false` | redis |", "REDIS_TLS: it goes to override"},
		{&page, "| gateway | `LLM_API_KEY_FILE` |", "| gateway | |", "LLM_API_KEY: a file can hold it"},
		{&page, "| `GRAFANA_PORT` |", "| `GRAFANA_PORTS` |", "GRAFANA_PORT is not on the page"},
		{&page, "| `GRAFANA_PORT` |", "| `GRAFANA_PORTS` |", "GRAFANA_PORTS is on the page, and nobody reads it"},
		{&page, "redis:7.4.7-alpine` | redis", "redis:7.4-alpine` | redis", "REDIS_IMAGE: its default is"},
		{&example, "#   VERSION=dev\n", "", "VERSION is not in .env.example"},
		{&example, "#   GRAFANA_PORT=3000", "#   GRAFANA_PORT=3001", "GRAFANA_PORT: .env.example says 3001"},
		{&compose, "${PROMETHEUS_PORT:-9090}", "${PROM_PORT:-9090}", "PROM_PORT is not on the page"},
		{&compose, "${PROMETHEUS_PORT:-9090}", "${PROM_PORT:-9090}", "PROM_PORT is not in .env.example"},
	} {
		before := *c.in
		if !strings.Contains(before, c.old) {
			t.Errorf("%q is not there", c.old)
			continue
		}
		*c.in = strings.Replace(before, c.old, c.fresh, 1)
		got := composePageProblems(t, page, example, files(compose))
		*c.in = before
		if !slices.ContainsFunc(got, func(problem string) bool { return strings.HasPrefix(problem, c.want) }) {
			t.Errorf("%q instead of %q: got %q, want %q", c.fresh, c.old, got, c.want)
		}
	}
}

func composePageProblems(t *testing.T, page, example string, files []string) []string {
	t.Helper()
	var wrong complaints
	rows := map[string]documented{}
	for _, m := range variableRow.FindAllStringSubmatch(page, -1) {
		_, twice := rows[m[1]]
		wrong.when(twice, "%s stands twice on the page", m[1])
		rows[m[1]] = documented{strings.Trim(m[2], "` "), strings.TrimSpace(m[3]), strings.Trim(m[4], "` ")}
	}
	shown := map[string]string{}
	for _, m := range exampleLine.FindAllStringSubmatch(example, -1) {
		if _, setting := shown[m[2]]; !setting {
			shown[m[2]] = m[3]
		}
	}
	read, fallbacks := composeReads(t, files)
	for name := range read {
		_, there := rows[name]
		wrong.when(!there, "%s is not on the page", name)
		_, there = shown[name]
		wrong.when(!there, "%s is not in .env.example", name)
	}
	secrets := secretFiles()
	for name := range shown {
		of, isFile := strings.CutSuffix(name, "_FILE")
		_, there := rows[name]
		wrong.when(!there && (!isFile || secrets[of] == ""), "%s is not on the page", name)
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		row := rows[name]
		_, inExample := shown[name]
		wrong.when(!inExample, "%s is on the page, and nobody reads it", name)
		wrong.when(row.secret != secrets[name], "%s: a file can hold it by %q, not %q", name, secrets[name], row.secret)
		goesTo := strings.Join(read[name], ", ")
		if slices.Contains(ofCompose, name) {
			goesTo = "compose"
		} else if goesTo == "" {
			goesTo = "override"
		}
		wrong.when(row.container != goesTo, "%s: it goes to %s, not %s", name, goesTo, row.container)
		if want := fallbacks[name]; want != "" && name != replicasSetting {
			wrong.when(row.fallback != want, "%s: its default is %s, not %s", name, want, row.fallback)
			wrong.when(shown[name] != want, "%s: .env.example says %s, docker-compose.yaml %s", name, shown[name], want)
			continue
		}
		wrong = append(wrong, defaultProblems(t, name, row.fallback)...)
	}
	return wrong
}

// composeReads says of each variable which containers get it, and its default in
// the files. What only Compose reads goes to "compose".
func composeReads(t *testing.T, files []string) (read map[string][]string, fallbacks map[string]string) {
	t.Helper()
	read, fallbacks = map[string][]string{}, map[string]string{}
	note := func(to string, value any) {
		for _, m := range interpolates.FindAllStringSubmatch(fmt.Sprint(value), -1) {
			if to != "" && !slices.Contains(read[m[1]], to) {
				read[m[1]] = append(read[m[1]], to)
				slices.Sort(read[m[1]])
			}
			fallbacks[m[1]] = m[2]
		}
	}
	for _, text := range files {
		var file struct {
			Services map[string]any `yaml:"services"`
			Secrets  map[string]any `yaml:"secrets"`
		}
		if err := yamlv3.Unmarshal([]byte(text), &file); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(file.Services)) {
			to := name
			if slices.Contains(theGateways, name) {
				to = "gateway"
			}
			note(to, file.Services[name])
		}
		note("compose", file.Secrets)
	}
	return read, fallbacks
}

// secretFiles are the variables whose value a file can hold, and the variable that
// names the file.
func secretFiles() map[string]string {
	files := map[string]string{"POSTGRES_PASSWORD": "POSTGRES_PASSWORD_FILE"}
	for _, s := range settings() {
		if s.secret {
			files[s.env] = s.env + "_FILE"
		}
	}
	return files
}

// defaultProblems: with the default of the page, a setting is what it is without
// one; "-" is nothing.
func defaultProblems(t *testing.T, name, fallback string) []string {
	t.Helper()
	var wrong complaints
	for _, s := range settings() {
		if s.env != name {
			continue
		}
		if fallback == "-" {
			unset := Default()
			wrong.when(!fieldOf(&unset, s.path).IsZero(), "%s: its default is not empty", name)
			continue
		}
		got, err := loadConfig(sources{dir: t.TempDir(), env: []string{name + "=" + fallback}})
		wrong.when(err != nil || cmp.Diff(Default(), got) != "", "%s: its default is not %s", name, fallback)
	}
	return wrong
}
