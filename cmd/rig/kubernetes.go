package rig

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
)

// StartEmptyKubernetes serves a Kubernetes API in which there is nothing: every
// list is empty, no watch ever tells of a change, and what is created is
// accepted and forgotten. It is for programs that do not start without one.
func StartEmptyKubernetes() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(emptyKubernetes))
}

func emptyKubernetes(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	say := func(status int, body string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
	query := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type")) // JSON or Kubernetes' protobuf
		say(http.StatusCreated, string(body))
	case r.URL.Path == "/version":
		say(http.StatusOK, `{"major":"1","minor":"35","gitVersion":"v1.35.0"}`)
	case query.Get("sendInitialEvents") == "true": // an older server has no such thing, and clients then list
		say(http.StatusUnprocessableEntity, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
	case query.Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case !isList(r.URL.Path):
		say(http.StatusNotFound, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	case strings.Contains(r.Header.Get("Accept"), "PartialObjectMetadataList"):
		say(http.StatusOK, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	default:
		say(http.StatusOK, `{"metadata":{"resourceVersion":"1"},"items":[]}`)
	}
}

// isList tells the path of a list, /api/v1/pods or
// /apis/apps/v1/namespaces/NAME/deployments, from that of an object.
func isList(path string) bool {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	skip := map[string]int{"api": 2, "apis": 3}[parts[0]] // the version, the group and the version
	if skip == 0 || len(parts) <= skip {
		return false
	}
	parts = parts[skip:]
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = slices.Delete(parts, 0, 2)
	}
	return len(parts) == 1
}
