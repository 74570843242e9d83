package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// The modules that the types of the manifests come with. That of Envoy Gateway is
// the version that the end-to-end tests run.
const (
	istioModule        = "istio.io/api@v1.31.4"
	envoyGatewayModule = "github.com/envoyproxy/gateway@v1.9.1"
)

// TestEnvoyConfig_schemas holds what envoy-config prints for Istio and for Envoy
// Gateway to the types that their own releases install in a cluster.
func TestEnvoyConfig_schemas(t *testing.T) {
	istio := t.TempDir()
	text, err := os.ReadFile(filepath.Join(rig.GoModule(t, istioModule), "kubernetes", "customresourcedefinitions.gen.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, istio, "crds.yaml", string(text))
	gateway := t.TempDir()
	crds, err := runHelm(t, "template", "crds", filepath.Join(rig.GoModule(t, envoyGatewayModule), "charts", "gateway-crds-helm"),
		"--set", "crds.gatewayAPI.enabled=true,crds.gatewayAPI.channel=standard,crds.envoyGateway.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	write(t, gateway, "crds.yaml", crds)

	manifests := map[string]string{}
	for _, pattern := range []string{"istio-*", "envoy-gateway*"} {
		files, err := filepath.Glob("../../envoy/testdata/" + pattern + ".golden.yaml")
		if err != nil || len(files) < 2 {
			t.Fatalf("%s: %v %v", pattern, files, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			manifests[filepath.Base(file)] = string(text)
		}
	}
	for name, text := range manifests {
		if strings.HasPrefix(name, "istio") {
			// An addition to a Deployment that exists lacks what that has.
			text, _, _ = strings.Cut(text, "\napiVersion: apps/v1\n")
			text = text[:strings.LastIndex(text, "\n---\n")+1]
		}
		if err := validateManifests(t, text, istio, gateway); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, field := range []string{"\n  workloadSelector:", "\n  targetRefs:"} {
			if strings.Contains(text, field) {
				wrong := strings.Replace(text, field, "\n  misspelt:", 1)
				if err := validateManifests(t, wrong, istio, gateway); err == nil {
					t.Errorf("%s: a field that no type has was accepted in place of %s", name, field)
				}
			}
		}
	}
}
