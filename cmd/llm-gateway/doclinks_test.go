package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// pagesOf are all pages for people, by their path from the repository's top.
func pagesOf(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			page, err := filepath.Rel("../..", name)
			if err != nil {
				t.Fatal(err)
			}
			pages[page] = string(text)
		}
	}
	if len(pages) < 10 {
		t.Fatalf("only %d pages found", len(pages))
	}
	return pages
}

// anchorsOf are the fragments that GitHub gives to a page's headings.
func anchorsOf(page string) map[string]bool {
	anchors, code := map[string]bool{}, false
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if code || !strings.HasPrefix(line, "#") {
			continue
		}
		title := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
		anchors[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return r
			}
			return -1
		}, title)] = true
	}
	return anchors
}

// TestPages_links: each link inside the repository leads somewhere, and each
// page can be found from the README.
func TestPages_links(t *testing.T) {
	pages, link := pagesOf(t), regexp.MustCompile(`\]\(([^)\s]+)\)`)
	linked := map[string]bool{}
	for page, text := range pages {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			at := page
			if file != "" {
				at = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join("../..", at)); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
				continue
			}
			if anchor != "" && !anchorsOf(pages[at])[anchor] {
				t.Errorf("%s: the link %s: %s has no such heading", page, m[1], at)
			}
			if page == "README.md" {
				linked[at] = true
			}
		}
	}
	for page := range pages {
		if !linked[page] && page != "README.md" {
			t.Errorf("%s is not linked from README.md", page)
		}
	}
}
