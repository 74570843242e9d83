package api

import (
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
)

// methods are the methods of each path of a document. A path may have
// parameters: /admin/keys/{id}.
type methods map[string][]string

func methodsOf(document *huma.OpenAPI) methods {
	m := methods{}
	for template, item := range document.Paths {
		for method, operation := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put,
			http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
		} {
			if operation != nil {
				m[template] = append(m[template], method)
			}
		}
		slices.Sort(m[template])
	}
	return m
}

// of lists the methods of the path that an address names, nil for none.
func (m methods) of(address string) []string {
	if list, ok := m[address]; ok {
		return list
	}
	for template, list := range m {
		if strings.Contains(template, "{") && fits(template, address) {
			return list
		}
	}
	return nil
}

// fits compares segment by segment.
func fits(template, address string) bool {
	want, got := strings.Split(template, "/"), strings.Split(address, "/")
	if len(want) != len(got) {
		return false
	}
	for i, segment := range want {
		if strings.HasPrefix(segment, "{") && got[i] != "" {
			continue
		}
		if segment != got[i] {
			return false
		}
	}
	return true
}

// strict answers for what the library leaves to the mux: unknown paths and
// methods, in our words, and a panic. HEAD is no exception: a route that takes
// GET takes GET.
func strict(mux *http.ServeMux, m methods, log *zap.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("panic in a route", zap.String("path", r.Pattern), zap.Stack("stack"))
				writeError(w, http.StatusInternalServerError, codeInternal, "The gateway failed. Please retry; the error is in its log.")
			}
		}()
		allowed := m.of(r.URL.Path)
		if allowed != nil && !slices.Contains(allowed, r.Method) {
			methodNotAllowed(w, allowed...)
			return
		}
		// The mux would redirect an address that is not clean: nobody has a
		// reason to write one, and it is no path of ours.
		if _, pattern := mux.Handler(r); pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
			unknownPath(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func unknownPath(w http.ResponseWriter) {
	writeError(w, http.StatusNotFound, codeNotFound, "Unknown path.")
}

func methodNotAllowed(w http.ResponseWriter, allowed ...string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeError(w, http.StatusMethodNotAllowed, codeMethodNotAllowed, "This path only takes "+strings.Join(allowed, ", ")+".")
}
