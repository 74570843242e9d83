package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/MaksimVF/llm-gateway/"

// doors says which rooms a room may import. A package that is not in it is an
// error: whoever adds one decides here what it may know.
func doors() map[string][]string {
	all := []string{"api", "billing", "billing/reconcile", "billing/usage", "envoy", "extproc", "ratelimit"}
	return map[string][]string{
		"api":                  {"billing", "billing/usage", "ratelimit"},
		"billing":              {"billing/usage"},
		"billing/reconcile":    {},
		"billing/usage":        {},
		"envoy":                {},
		"extproc":              {"billing", "billing/usage", "ratelimit"},
		"ratelimit":            {},
		"cmd/bench":            {"cmd/rig", "envoy"},
		"cmd/correctness":      {"cmd/rig"},
		"cmd/llm-gateway":      append(slices.Clone(all), "cmd/llm-gateway/demo"),
		"cmd/llm-gateway/demo": {},
		"cmd/llm-gateway/e2e":  append(slices.Clone(all), "cmd/rig"),
		"cmd/rig":              {},
	}
}

// fences says which packages may import a library, tests included; "" is nobody.
func fences() map[string][]string {
	envoyProtos := []string{"envoy", "extproc", "cmd/bench", "cmd/llm-gateway/e2e", "cmd/rig"}
	return map[string][]string{
		"gorm.io/":                               {"billing"},
		"github.com/jackc/":                      {"billing"},
		"github.com/redis/":                      {"ratelimit"},
		"github.com/envoyproxy/go-control-plane": envoyProtos,
		"github.com/cncf/xds":                    envoyProtos,
		"github.com/chromedp/":                   {"cmd/llm-gateway/e2e"},
		"github.com/prometheus/":                 {"cmd/llm-gateway", "extproc"},
		"go.opentelemetry.io/":                   {"cmd/llm-gateway", "cmd/llm-gateway/e2e", "extproc"},
		"github.com/spf13/cobra":                 {"cmd/bench", "cmd/llm-gateway"},
		"github.com/knadh/koanf":                 {"cmd/llm-gateway"},
		"github.com/stretchr/testify":            {},
	}
}

const maxLines = 400

// TestRooms holds the shape of the project. It opens the files itself: a test
// that asks `go list` is cached while the files it never opened change.
func TestRooms(t *testing.T) {
	root := os.DirFS("../..")
	problems, packages := survey(t, root)
	for _, p := range problems {
		t.Error(p)
	}
	for _, room := range []string{"billing", "cmd/llm-gateway"} {
		if !slices.Contains(packages, room) {
			t.Errorf("%s was not found: the survey looked in the wrong place", room)
		}
	}
}

// survey looks at every Go file below root and returns what breaks a rule, and
// the packages it saw.
func survey(t *testing.T, root fs.FS) (problems, packages []string) {
	t.Helper()
	comments := make(map[string]int)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(name, &problems)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		room, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
		if _, seen := comments[room]; !seen {
			comments[room] = 0
			packages = append(packages, room)
		}
		if f.Doc != nil && !test {
			comments[room]++
		}
		problems = append(problems, importProblems(name, room, test, f)...)
		problems = append(problems, callProblems(name, room, test, f)...)
		problems = append(problems, lengthProblems(name, text)...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range packages {
		if comments[room] != 1 {
			problems = append(problems, fmt.Sprintf("%s: %d files have a package comment, one must", room, comments[room]))
		}
		if _, known := doors()[room]; !known {
			problems = append(problems, fmt.Sprintf("%s: a new package; say in doors() what it may import", room))
		}
	}
	return problems, packages
}

// enter skips folders without code of ours and refuses names that say nothing.
func enter(dir string, problems *[]string) error {
	base := path.Base(dir)
	if dir != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) ||
		slices.Contains([]string{"testdata", "node_modules", "vendor", "bin"}, base) {
		return fs.SkipDir
	}
	if slices.Contains([]string{"util", "utils", "common", "helpers", "internal", "pkg", "shared", "misc"}, base) {
		*problems = append(*problems, fmt.Sprintf("%s: a folder's name says what is in it", dir))
	}
	return nil
}

// The rooms' tests start real servers the way the end-to-end tests do.
func importProblems(name, room string, test bool, f *ast.File) (problems []string) {
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser has seen to it
		}
		if ours, ok := strings.CutPrefix(imported, module); ok && ours != room && !slices.Contains(doors()[room], ours) && (!test || ours != "cmd/rig") {
			problems = append(problems, fmt.Sprintf("%s: %s may not import %s", name, room, ours))
		}
		if !test && (strings.HasPrefix(imported, "istio.io/") || strings.HasPrefix(imported, "k8s.io/")) {
			problems = append(problems, fmt.Sprintf("%s: %s; what we write for Kubernetes has small types of its own", name, imported))
		}
		for library, rooms := range fences() {
			if strings.HasPrefix(imported, library) && !slices.Contains(rooms, room) {
				problems = append(problems, fmt.Sprintf("%s: %s may not import %s", name, room, imported))
			}
		}
	}
	return problems
}

// callProblems finds uses of the environment outside cmd and of zap's global
// loggers anywhere.
func callProblems(name, room string, test bool, f *ast.File) (problems []string) {
	environment := []string{"Environ", "ExpandEnv", "Getenv", "LookupEnv"}
	mayReadEnvironment := test || strings.HasPrefix(room, "cmd/")
	ast.Inspect(f, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := selector.X.(*ast.Ident)
		if !ok {
			return true
		}
		switch called := selector.Sel.Name; importedAs(f, x.Name) {
		case "os":
			if slices.Contains(environment, called) && !mayReadEnvironment {
				problems = append(problems, fmt.Sprintf("%s: os.%s; only cmd reads the environment", name, called))
			}
		case "go.uber.org/zap":
			if called == "L" || called == "S" {
				problems = append(problems, fmt.Sprintf("%s: zap.%s; a logger is handed over, never global", name, called))
			}
		}
		return true
	})
	return problems
}

// importedAs returns the path of the package that a file calls ident, "" if none.
func importedAs(f *ast.File, ident string) string {
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		if spec.Name != nil && spec.Name.Name == ident || spec.Name == nil && path.Base(imported) == ident {
			return imported
		}
	}
	return ""
}

func lengthProblems(name string, text []byte) []string {
	lines := bytes.SplitAfter(text, []byte("\n"))
	if n := bytes.Count(text, []byte("\n")); n > maxLines {
		head := bytes.Join(lines[:30], nil)
		if !bytes.Contains(head, []byte("Longer than 400 lines because")) {
			return []string{fmt.Sprintf("%s: %d lines, at most %d without a reason", name, n, maxLines)}
		}
	}
	return nil
}

// TestSurvey breaks each rule once: a survey that finds nothing proves nothing.
func TestSurvey(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	long := strings.Repeat("//\n", maxLines)
	for _, c := range []struct {
		name string
		tree fstest.MapFS
		want []string
	}{
		{"clean", fstest.MapFS{
			"api/a.go":           file("// Package api is here.\npackage api\nimport \"" + module + "billing\"\nvar _ = billing.X\n"),
			"api/testdata/x.go":  file("no go at all"),
			"billing/b_test.go":  file("package billing\nimport \"os\"\nvar _ = os.Getenv\n"),
			"billing/b.go":       file("// Package billing is here.\npackage billing\nimport \"gorm.io/gorm\"\n"),
			"cmd/bench/bench.go": file("// Command bench reads.\npackage main\nimport \"os\"\nvar _ = os.Getenv(\"X\")\n"),
		}, nil},
		{
			"door",
			fstest.MapFS{"envoy/a.go": file("// Package envoy is here.\npackage envoy\nimport \"" + module + "billing\"\n")},
			[]string{"envoy/a.go: envoy may not import billing"},
		},
		{"door of a test", fstest.MapFS{
			"envoy/a.go":      file("// Package envoy is here.\npackage envoy\n"),
			"envoy/a_test.go": file("package envoy\nimport \"" + module + "extproc\"\n"),
		}, []string{"envoy/a_test.go: envoy may not import extproc"}},
		{"rig in a test", fstest.MapFS{
			"envoy/a.go":      file("// Package envoy is here.\npackage envoy\n"),
			"envoy/a_test.go": file("package envoy\nimport \"" + module + "cmd/rig\"\n"),
		}, nil},
		{"rig in the product", fstest.MapFS{
			"envoy/a.go": file("// Package envoy is here.\npackage envoy\nimport \"" + module + "cmd/rig\"\n"),
		}, []string{"envoy/a.go: envoy may not import cmd/rig"}},
		{
			"fence",
			fstest.MapFS{"api/a.go": file("// Package api is here.\npackage api\nimport \"gorm.io/gorm\"\n")},
			[]string{"api/a.go: api may not import gorm.io/gorm"},
		},
		{
			"new package",
			fstest.MapFS{"money/a.go": file("// Package money is here.\npackage money\n")},
			[]string{"money: a new package; say in doors() what it may import"},
		},
		{
			"no comment",
			fstest.MapFS{"api/a.go": file("package api\n")},
			[]string{"api: 0 files have a package comment, one must"},
		},
		{
			"two comments",
			fstest.MapFS{"api/a.go": file("// Package api.\npackage api\n"), "api/b.go": file("// Package api.\npackage api\n")},
			[]string{"api: 2 files have a package comment, one must"},
		},
		{
			"environment",
			fstest.MapFS{"api/a.go": file("// Package api.\npackage api\nimport sys \"os\"\nvar _ = sys.Getenv\n")},
			[]string{"api/a.go: os.Getenv; only cmd reads the environment"},
		},
		{
			"global logger",
			fstest.MapFS{"cmd/rig/a.go": file("// Package rig.\npackage rig\nimport \"go.uber.org/zap\"\nvar _ = zap.L()\n")},
			[]string{"cmd/rig/a.go: zap.L; a logger is handed over, never global"},
		},
		{"folder", fstest.MapFS{"deploy/util/x.txt": file("")}, []string{"deploy/util: a folder's name says what is in it"}},
		{
			"long",
			fstest.MapFS{"api/a.go": file("// Package api.\npackage api\n" + long)},
			[]string{"api/a.go: 402 lines, at most 400 without a reason"},
		},
		{"long with a reason", fstest.MapFS{"api/a.go": file("// Package api.\npackage api\n// Longer than 400 lines because of a table.\n" + long)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _ := survey(t, c.tree)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
