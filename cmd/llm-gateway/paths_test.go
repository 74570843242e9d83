package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/envoy"
	"github.com/MaksimVF/llm-gateway/extproc"
)

// Two rooms that may not know each other list the same paths: what Envoy sends
// past the gate is what the info routes answer, no more and no less.
func TestInfoPaths(t *testing.T) {
	if diff := cmp.Diff(api.Paths(), envoy.InfoPaths()); diff != "" {
		t.Errorf("api serves (-), envoy routes (+):\n%s", diff)
	}
}

// The document describes the routes of models that the gate lets through, and
// the errors that the gate can answer.
func TestModelRoutesAreDocumented(t *testing.T) {
	var served, described []string
	for _, e := range extproc.Endpoints() {
		served = append(served, e.Method+" "+e.Path)
	}
	for _, e := range api.ModelEndpoints() {
		described = append(described, e.Method+" "+e.Path)
	}
	slices.Sort(served)
	slices.Sort(described)
	if diff := cmp.Diff(served, described); diff != "" {
		t.Errorf("served (-), described (+):\n%s", diff)
	}
	documented := map[string]bool{}
	for codes := range maps.Values(api.ErrorCodes()) {
		for _, code := range codes {
			documented[code] = true
		}
	}
	answered := append(extproc.ErrorCodes(), envoy.ErrorCodes()...)
	for _, code := range answered {
		// These two are of paths and methods that the document does not have.
		if !documented[code] && code != "not_found" && code != "method_not_allowed" {
			t.Errorf("%s can be answered and is not documented", code)
		}
	}
	maps.DeleteFunc(documented, func(code string, _ bool) bool { return slices.Contains(answered, code) })
	for code := range documented {
		t.Errorf("%s is documented and cannot be answered", code)
	}
}
