package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
)

// assets hold the documentation pages and what they load: nothing comes from
// anywhere else. The larger files are kept, and mostly sent, compressed; see
// assets/update.sh.
//
//go:embed assets/pages assets/swagger-ui assets/redoc
var assets embed.FS

// docsFiles says which embedded file is served where.
func docsFiles() map[string]string {
	return map[string]string{
		"/docs/favicon-32x32.png":    "swagger-ui/favicon-32x32.png",
		"/docs/init.js":              "pages/docs.js",
		"/docs/page.css":             "pages/page.css",
		"/docs/swagger-ui-bundle.js": "swagger-ui/swagger-ui-bundle.js.gz",
		"/docs/swagger-ui.css":       "swagger-ui/swagger-ui.css.gz",
		"/redoc/init.js":             "pages/redoc.js",
		"/redoc/page.css":            "pages/page.css",
		"/redoc/redoc.standalone.js": "redoc/redoc.standalone.js.gz",
	}
}

// docsPages says which page is made from which template.
func docsPages() map[string]string {
	return map[string]string{"/docs": "pages/docs.html", "/redoc": "pages/redoc.html"}
}

// docsPaths are all paths that documentation answers, but for the document.
func docsPaths() []string {
	var paths []string
	for path := range docsFiles() {
		paths = append(paths, path)
	}
	for path := range docsPages() {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// documentation serves /docs and /redoc, which show the document of the routes.
func documentation(mux *http.ServeMux) {
	files := make(map[string]*asset)
	for path, file := range docsFiles() {
		files[path] = loadAsset(file)
		route(mux, http.MethodGet, path, files[path].ServeHTTP)
	}
	for path, file := range docsPages() {
		page := &page{renderPage(file, files), policyOf(path)}
		route(mux, http.MethodGet, path, page.ServeHTTP)
	}
}

// asset is one embedded file.
type asset struct {
	stored      []byte
	compressed  bool // stored is gzip
	contentType string
	version     string // of the content; in addresses and ETags
}

// loadAsset panics for a file that is not there: that is a mistake in the
// tables above.
func loadAsset(file string) *asset {
	stored, err := assets.ReadFile("assets/" + file)
	if err != nil {
		panic(fmt.Sprintf("api: %v", err))
	}
	plain, compressed := strings.CutSuffix(file, ".gz")
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".png": "image/png"}
	sum := sha256.Sum256(stored)
	return &asset{
		stored: stored, compressed: compressed,
		contentType: types[path.Ext(plain)], version: hex.EncodeToString(sum[:8]),
	}
}

// ServeHTTP sends the file. Whoever asks for it by its version, as our pages
// do, need never ask again.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == a.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	packed := a.compressed && acceptsGzip(r.Header.Values("Accept-Encoding"))
	etag := `"` + a.version + `"`
	if a.compressed {
		h.Set("Vary", "Accept-Encoding")
	}
	if packed {
		etag = `"` + a.version + `-gzip"` // another representation has another tag
	}
	h.Set("ETag", etag)
	if sameTag(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.contentType)
	// The client may be gone; there is nobody left to tell.
	switch {
	case packed:
		h.Set("Content-Encoding", "gzip")
		fallthrough
	case !a.compressed:
		h.Set("Content-Length", strconv.Itoa(len(a.stored)))
		_, _ = w.Write(a.stored)
	default:
		z, err := gzip.NewReader(bytes.NewReader(a.stored))
		if err != nil {
			panic(fmt.Sprintf("api: an embedded file is no gzip: %v", err)) // a test reads them all
		}
		_, _ = io.Copy(w, z) //nolint:gosec // our own files, of known size
	}
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3).
func acceptsGzip(values []string) bool {
	star := false
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, parameters, _ := strings.Cut(item, ";")
		key, value, _ := strings.Cut(parameters, "=")
		weight, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		refused := strings.EqualFold(strings.TrimSpace(key), "q") && err == nil && weight == 0
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip", "x-gzip":
			return !refused
		case "*":
			star = !refused
		}
	}
	return star
}

// sameTag reads If-None-Match (RFC 9110, section 13.1.2). Proxies that repack
// an answer make its tag weak.
func sameTag(values []string, etag string) bool {
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if item = strings.TrimSpace(item); item == "*" || strings.TrimPrefix(item, "W/") == etag {
			return true
		}
	}
	return false
}

// policyOf is the Content-Security-Policy of a page: what it may do at all. No
// style attribute is let in, which Swagger UI would make for the columns of an
// aligned table in a description (|:--|--:|): write tables without.
func policyOf(path string) string {
	style := "style-src 'self'"
	if path == "/redoc" {
		// Redoc makes style elements: empty ones, which it fills rule by rule, and
		// one for its scroll bars. These are their hashes; any other is refused.
		style += " 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
	}
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'",
		style,
		"img-src 'self' data:",
		"connect-src 'self'",
		"worker-src blob:", // Redoc's search
		"form-action 'none'",
		"frame-ancestors 'none'",
		"base-uri 'none'",
	}, "; ")
}

// page is a ready HTML page.
type page struct {
	text   []byte
	policy string
}

func renderPage(file string, files map[string]*asset) []byte {
	// Addresses in a page are relative, so that it works behind a proxy that
	// serves the gateway under a path.
	versioned := func(address string) string { return address + "?v=" + files["/"+address].version }
	t := template.Must(template.New(path.Base(file)).Funcs(template.FuncMap{"asset": versioned}).ParseFS(assets, "assets/"+file))
	var text bytes.Buffer
	if err := t.Execute(&text, nil); err != nil {
		panic(fmt.Sprintf("api: %v", err)) // a test renders them
	}
	return text.Bytes()
}

// ServeHTTP sends the page.
func (p *page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Length", strconv.Itoa(len(p.text)))
	_, _ = w.Write(p.text) // the client may be gone
}
