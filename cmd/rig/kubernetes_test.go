package rig

import (
	"os"
	"strings"
	"testing"
)

// TestIstiod_version: what the tests look for is what is installed.
func TestIstiod_version(t *testing.T) {
	text, err := os.ReadFile("../../deploy/install-test-tools.sh")
	if err != nil {
		t.Fatal(err)
	}
	if line := "go_tool pilot-discovery " + istiodVersion + " "; !strings.Contains(string(text), line) {
		t.Errorf("deploy/install-test-tools.sh has no line %q", line)
	}
}

func TestIsList(t *testing.T) {
	for path, want := range map[string]bool{
		"/api/v1/pods":                                 true,
		"/api/v1/namespaces":                           true,
		"/api/v1/namespaces/a":                         false,
		"/api/v1/namespaces/a/secrets":                 true,
		"/api/v1/namespaces/a/secrets/b":               false,
		"/apis/apps/v1/deployments":                    true,
		"/apis/apps/v1/namespaces/a/deployments":       true,
		"/apis/apps/v1/namespaces/a/deployments/b":     false,
		"/apis/networking.k8s.io/v1/ingressclasses/me": false,
		"/api/v1": false,
		"/":       false,
	} {
		if isList(path) != want {
			t.Errorf("isList(%q) = %v", path, !want)
		}
	}
}
