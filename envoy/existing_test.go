package envoy

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// goldenAdditions are the shapes of additions that are kept as files.
func goldenAdditions(t *testing.T) map[string]Additions {
	t.Helper()
	own := goldenOptions(t, goldenUpstreams["http"])
	own.Upstream = Upstream{}
	return map[string]Additions{
		"existing-own-cluster":  {Options: own, Cluster: "models"},
		"existing-own-host":     {Options: goldenOptions(t, goldenUpstreams["https"]), Cluster: "outbound|443||models"},
		"existing-new-cluster":  {Options: goldenOptions(t, goldenUpstreams["https"])},
		"existing-new-replicas": {Options: goldens(t)["replicas-by-name"]},
	}
}

func TestAdditions_golden(t *testing.T) {
	for name, a := range goldenAdditions(t) {
		wantGolden(t, name, a.YAML)
	}
}

// additionsOf reads the document back.
func additionsOf(t *testing.T, a Additions) map[string]any {
	t.Helper()
	text, err := a.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := yaml.UnmarshalStrict(text, &document); err != nil {
		t.Fatal(err)
	}
	return document
}

// TestAdditions_closed holds what the e2e tests prove on one shape for all.
func TestAdditions_closed(t *testing.T) {
	for name, a := range goldenAdditions(t) {
		d := additionsOf(t, a)
		var chain []string
		for _, f := range d["http_filters"].([]any) {
			f := f.(map[string]any)
			off, _ := f["disabled"].(bool)
			chain = append(chain, fmt.Sprint(f["name"], " ", off))
		}
		if diff := cmp.Diff([]string{"llmgw.strip true", "llmgw.ext_proc true", "llmgw.lock false"}, chain); diff != "" {
			t.Errorf("%s: filters and whether they are off (-want +got):\n%s", name, diff)
		}
		lock, err := RenderYAML(lockBefore(a.cluster()))
		if err != nil || !strings.Contains(string(lock), "string_value: "+a.cluster()+"\n") {
			t.Errorf("%s: the lock does not name %s: %v\n%s", name, a.cluster(), err, lock)
		}
		gated := 0
		for _, r := range d["routes"].([]any) {
			r := r.(map[string]any)
			if !strings.HasPrefix(r["name"].(string), addedPrefix) {
				t.Errorf("%s: route %s would not get our local replies", name, r["name"])
			}
			settings, _ := r["typed_per_filter_config"].(map[string]any)
			switch cluster := r["route"].(map[string]any)["cluster"]; {
			case cluster == a.cluster() && settings[addedGate] != nil && settings[addedStrip] != nil:
				gated++
			case cluster != apiCluster || settings != nil:
				t.Errorf("%s: route %s leads to %s with %v", name, r["name"], cluster, settings)
			}
			if match := r["match"].(map[string]any); match["path"] == "/" {
				t.Errorf("%s: the site's front page is taken", name)
			}
		}
		if gated != 1 {
			t.Errorf("%s: %d routes to the model server, want 1", name, gated)
		}
	}
}

func TestAdditions_refusesBadOptions(t *testing.T) {
	good := goldenAdditions(t)["existing-own-cluster"]
	for name, change := range map[string]func(*Additions){
		"nobody to go to":     func(a *Additions) { a.Cluster = "" },
		"a quote":             func(a *Additions) { a.Cluster = "a' || true || '" },
		"a line":              func(a *Additions) { a.Cluster = "a\nb" },
		"the sidecar":         func(a *Additions) { a.Cluster = sidecarCluster },
		"the sidecar's pages": func(a *Additions) { a.Cluster = apiCluster },
		"no gate":             func(a *Additions) { a.ExtProc = nil },
		"no pages":            func(a *Additions) { a.API = nil },
		"a bad host":          func(a *Additions) { a.Upstream = Upstream{Host: "a b"} },
		"a negative time":     func(a *Additions) { a.UpstreamTimeout = -1 },
	} {
		a := good
		change(&a)
		if text, err := a.YAML(); !errors.Is(err, ErrOptions) && !errors.Is(err, ErrUpstream) || text != nil {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
}
