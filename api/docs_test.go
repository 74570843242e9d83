package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func get(t *testing.T, h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func docsHandler() http.Handler {
	return Handler(Options{Docs: func() bool { return true }, Log: zap.NewNop()})
}

var reference = regexp.MustCompile(`(?:href|src)="([^"]*)"`)

func TestDocs_pagesLoadOnlyWhatIsHere(t *testing.T) {
	h := docsHandler()
	for path := range docsPages() {
		w := get(t, h, path)
		page := w.Body.String()
		if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%s: %d %v", path, w.Code, w.Header())
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: no %s in %q", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s: policy %q", path, policy)
		}
		if !strings.Contains(page, `<noscript>`) || strings.Contains(page, "<style") || regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(page) {
			t.Errorf("%s: inline script or style, or nothing for those without:\n%s", path, page)
		}
		references := reference.FindAllStringSubmatch(page, -1)
		if len(references) < 5 {
			t.Errorf("%s: %d references", path, len(references))
		}
		for _, m := range references {
			if m[1] == "openapi.json" {
				continue
			}
			if strings.HasPrefix(m[1], "/") {
				t.Errorf("%s: %s does not work behind a proxy's path", path, m[1])
			}
			a := get(t, h, "/"+m[1])
			if a.Code != 200 || !strings.Contains(a.Header().Get("Cache-Control"), "immutable") || a.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %s: %d %v", path, m[1], a.Code, a.Header())
			}
		}
	}
}

func TestDocs_files(t *testing.T) {
	h := docsHandler()
	for path, file := range docsFiles() {
		plain := get(t, h, path)
		if plain.Code != 200 || plain.Body.Len() == 0 || plain.Header().Get("Content-Encoding") != "" || plain.Header().Get("Content-Type") == "" {
			t.Errorf("%s: %d %v", path, plain.Code, plain.Header())
		}
		if got := plain.Header().Get("Cache-Control"); got != "no-cache" {
			t.Errorf("%s without a version: %q", path, got)
		}
		packed := get(t, h, path, "Accept-Encoding", "br, gzip")
		if strings.HasSuffix(file, ".gz") {
			z, err := gzip.NewReader(packed.Body)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			unpacked, err := io.ReadAll(z)
			if err != nil || !bytes.Equal(unpacked, plain.Body.Bytes()) || packed.Header().Get("Content-Encoding") != "gzip" ||
				packed.Header().Get("Vary") != "Accept-Encoding" || packed.Header().Get("ETag") == plain.Header().Get("ETag") {
				t.Errorf("%s compressed: %v %v", path, err, packed.Header())
			}
		} else if packed.Header().Get("Content-Encoding") != "" || !bytes.Equal(packed.Body.Bytes(), plain.Body.Bytes()) {
			t.Errorf("%s: %v", path, packed.Header())
		}
		again := get(t, h, path, "Accept-Encoding", "gzip", "If-None-Match", `"x", W/`+packed.Header().Get("ETag"))
		if again.Code != 304 || again.Body.Len() != 0 {
			t.Errorf("%s again: %d", path, again.Code)
		}
		if other := get(t, h, path, "If-None-Match", `"x"`); other.Code != 200 {
			t.Errorf("%s with another tag: %d", path, other.Code)
		}
	}
}

func TestDocs_off(t *testing.T) {
	never := Handler(Options{Log: zap.NewNop()})
	on := false
	now := Handler(Options{Log: zap.NewNop(), Docs: func() bool { return on }})
	for _, path := range append(docsPaths(), "/openapi.json") {
		if w, _ := ask(t, never, "GET", path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
		for _, c := range []struct {
			on   bool
			want int
		}{{false, 404}, {true, 200}, {false, 404}} {
			on = c.on
			if w := get(t, now, path); w.Code != c.want {
				t.Errorf("%s while the documents are on: %t: %d, want %d", path, c.on, w.Code, c.want)
			}
		}
	}
	for _, path := range docsPaths() {
		if w, _ := ask(t, docsHandler(), "POST", path); w.Code != 405 || w.Header().Get("Allow") != "GET" {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
}

func TestDocs_paths(t *testing.T) {
	if paths := docsPaths(); !slices.IsSorted(paths) || len(paths) != len(docsFiles())+len(docsPages()) {
		t.Errorf("%q", paths)
	}
}

// What others made is what they published, but for the cuts of the script that
// fetched it.
func TestDocs_whatOthersMadeIsUnchanged(t *testing.T) {
	sums, err := os.ReadFile("assets/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	known := 0
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		content, err := os.ReadFile("assets/" + name)
		if err != nil {
			packed, err := os.ReadFile("assets/" + name + ".gz")
			if err != nil {
				t.Fatal(err)
			}
			z, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			if content, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		known++
		if got := sha256.Sum256(content); hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s is not what was fetched", name)
		}
		if bytes.Contains(content, []byte("cdn.redoc.ly")) || strings.HasSuffix(name, "standalone.js") && bytes.Contains(content, []byte("otel.")) {
			t.Errorf("%s reports to its makers", name)
		}
	}
	for _, folder := range []string{"swagger-ui", "redoc"} {
		files, err := os.ReadDir("assets/" + folder)
		if err != nil {
			t.Fatal(err)
		}
		known -= len(files)
		if _, err := os.Stat("assets/" + folder + "/LICENSE"); err != nil {
			t.Error(err)
		}
	}
	if known != 0 {
		t.Errorf("%d more hashes than files", known)
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "deflate, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.000": false,
		"*": true, "*;q=0": false, "*;q=0, gzip": true, "identity": false, "br": false, "x-gzip": true, "gzipped": false, "gzip;q=x": true,
	} {
		if got := acceptsGzip([]string{header}); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}
