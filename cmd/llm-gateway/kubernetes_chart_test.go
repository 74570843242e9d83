package main

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// A chart and Kustomize read nothing outside of their folders: there are copies.
func TestKubernetes_copiesAreEqual(t *testing.T) {
	for copied, source := range map[string]string{
		chartFolder + "files/alerts.yml":     prometheusFolder + "alerts.yml",
		chartFolder + "files/dashboard.json": "../../deploy/grafana/dashboards/llm-gateway.json",
	} {
		if string(readFile(t, copied)) != string(readFile(t, source)) {
			t.Errorf("%s is not %s any more: copy it", copied, source)
		}
	}
	var alerts struct{ Groups []any }
	if err := yamlv3.Unmarshal(readFile(t, prometheusFolder+"alerts.yml"), &alerts); err != nil {
		t.Fatal(err)
	}
	type rules struct {
		Kind string
		Spec struct{ Groups []any }
		Data map[string]string
	}
	rendered := 0
	for _, manifests := range []string{renderChart(t, everything...), buildKustomize(t, "overlays/replicas")} {
		for _, object := range documents[rules](t, manifests) {
			if object.Kind != "PrometheusRule" {
				continue
			}
			rendered++
			if diff := cmp.Diff(alerts.Groups, object.Spec.Groups); diff != "" {
				t.Errorf("alerts.yml and what Prometheus gets (-want +got):\n%s", diff)
			}
		}
	}
	if rendered != 2 {
		t.Errorf("%d PrometheusRules, want 2", rendered)
	}
}

// defined reads a list, or the names of a map, that a template of the chart defines.
func defined(t *testing.T, name string) []string {
	t.Helper()
	pattern := regexp.MustCompile(`(?s)define "llm-gateway\.` + name + `" -}}\n(.*?){{- end`)
	match := pattern.FindSubmatch(readFile(t, chartFolder+"templates/_settings.tpl"))
	if match == nil {
		t.Fatalf("%s is not defined", name)
	}
	var list []string
	if yamlv3.Unmarshal(match[1], &list) == nil {
		return slices.Sorted(slices.Values(list))
	}
	var names map[string]string
	if err := yamlv3.Unmarshal(match[1], &names); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(names))
}

// The chart knows which settings are secrets, which it sets itself, and which need a
// start of the pods; its schema knows all of them.
func TestChart_knowsTheSettings(t *testing.T) {
	secret, own := defined(t, "secretSettings"), defined(t, "ownSettings")
	var secrets, restart []string
	known := map[string]bool{}
	for _, s := range settings() {
		known[s.path] = true
		switch {
		case s.secret:
			secrets = append(secrets, s.path)
		case s.change != atReload && !slices.Contains(own, s.path):
			restart = append(restart, s.path)
		}
	}
	slices.Sort(secrets)
	slices.Sort(restart)
	if diff := cmp.Diff(secrets, secret); diff != "" {
		t.Errorf("secretSettings (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(restart, defined(t, "restartSettings")); diff != "" {
		t.Errorf("restartSettings (-want +got):\n%s", diff)
	}
	for _, path := range own {
		if !known[path] {
			t.Errorf("ownSettings: %s is no setting", path)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(known)), schemaSettings(t)); diff != "" {
		t.Errorf("values.schema.json (-want +got):\n%s", diff)
	}
}

// schemaSettings are the paths below settings in the schema of the values.
func schemaSettings(t *testing.T) (paths []string) {
	t.Helper()
	type node struct{ Properties map[string]node }
	var schema node
	if err := json.Unmarshal(readFile(t, chartFolder+"values.schema.json"), &schema); err != nil {
		t.Fatal(err)
	}
	for name, section := range schema.Properties["settings"].Properties {
		if section.Properties == nil {
			paths = append(paths, name)
		}
		for member := range section.Properties {
			paths = append(paths, name+"."+member)
		}
	}
	slices.Sort(paths)
	return paths
}

func TestChart_startsAnewForWhatCannotChange(t *testing.T) {
	digest := func(set string) string {
		for _, m := range documents[manifest](t, renderChart(t, "--set", set)) {
			if m.Kind == "StatefulSet" {
				return m.Spec.Template.Metadata.Annotations["llm-gateway/restart-settings"]
			}
		}
		return ""
	}
	nothing := digest("replicas=1")
	if nothing == "" || digest("settings.limits.monthly=7") != nothing {
		t.Error("a limit starts the pods anew")
	}
	if one, other := digest("settings.upstream.url=http://a:1"), digest("settings.upstream.url=http://a:2"); one == nothing || one == other {
		t.Error("another model server starts no pod anew")
	}
	if digest("settings.cors.max_age=0") == nothing {
		t.Error("a setting of 0 is none")
	}
}

// What cannot work is refused with what to do; what is unknown, too.
func TestChart_refuses(t *testing.T) {
	const shared = "secrets.databaseURL.name=x,secrets.redisURL.name=x,"
	for set, want := range map[string]string{
		"replicas=2":                                                            "several gateways need books that they share",
		"autoscaling.enabled=true":                                              "several gateways need books that they share",
		"replicas=2,secrets.databaseURL.name=x":                                 "several gateways need a Redis",
		"persistence.enabled=false":                                             "the books would be lost with the pod",
		shared + "settings.redis.host=r":                                        "keep one of them",
		shared + "autoscaling.enabled=true,autoscaling.minReplicas=7":           "minReplicas is above",
		shared + "autoscaling.enabled=true,metrics.enabled=false":               "set metrics.enabled: true",
		"settings.upstream.api_key=canary":                                      "settings.upstream.api_key is a secret: put it into a Secret and name that in secrets.upstreamKey",
		"settings.database.url=canary":                                          "name that in secrets.databaseURL",
		"settings.auth.allowed_keys={canary}":                                   "name that in secrets.allowedKeys",
		"settings.envoy.drain=60s":                                              "settings.envoy.drain follows from the chart's drainSeconds",
		"settings.listen=0.0.0.0:80":                                            "settings.listen follows from",
		"settings.limits.dayly=7":                                               "dayly",
		"gateway.extraEnv[0].name=LLM_API_KEY,gateway.extraEnv[0].value=canary": "gateway.extraEnv: LLM_API_KEY is a secret",
		"secrets.pepper.value=canary":                                           "value",
		"replica=2":                                                             "replica",
		"image.tag=latest":                                                      "tag",
		"serviceAccount.create=false":                                           "name the account that exists",
		"envoy.enabled=false,networkPolicy.envoys=null":                         "say which pods' Envoys",
	} {
		_, err := runHelm(t, "template", "llm-gateway", chartFolder, "--set", set)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: a secret is repeated: %v", set, err)
		}
	}
}

// The port of the model server is opened, and no other.
func TestChart_networkPolicyFollowsTheModelServer(t *testing.T) {
	for url, want := range map[string]string{
		"https://api.openai.com/v1": "443", "http://models": "80", "http://models:8080/v1": "8080",
		"https://models:8443": "8443", "models:9000": "9000", "http://[fd00::1]:8081/v1": "8081",
	} {
		got := renderChart(t, "--set", "settings.upstream.url="+url)
		if !strings.Contains(got, "# The model server.\n    - ports:\n        - {port: "+want+", protocol: TCP}") {
			t.Errorf("%s: port %s is not open", url, want)
		}
	}
	if strings.Contains(renderChart(t), "# The model server.") {
		t.Error("the demo model needs no way out")
	}
}

// The tools of these tests are those that the script builds.
func TestKubernetes_toolsAreInstalled(t *testing.T) {
	script := string(readFile(t, "../../deploy/install-test-tools.sh"))
	for _, want := range []string{"\ngo_tool helm v4.3.1 ", "\ngo_tool kustomize v5.8.2 ", "\ngo_tool kubectl-validate v0.0.4 ", "go mod download " + operatorModule} {
		if !strings.Contains(script, want) {
			t.Errorf("%q is missing in deploy/install-test-tools.sh", want)
		}
	}
}

// The examples on the page are what they say.
func TestKubernetes_examplesOnThePage(t *testing.T) {
	page := string(readFile(t, "../../docs/kubernetes.md"))
	seen := map[string]bool{}
	for _, match := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		example := match[1]
		switch {
		case strings.HasPrefix(example, "# values.yaml\n"):
			seen["values"] = true
			for _, problem := range manifestProblems(t, renderChart(t, "--values", write(t, t.TempDir(), "values.yaml", example))) {
				t.Error(problem)
			}
		case strings.HasPrefix(example, "# kustomization.yaml\n"):
			seen["kustomization"] = true
			folder := t.TempDir()
			if err := os.Symlink(filepath.Join(repository(t), "deploy"), filepath.Join(folder, "deploy")); err != nil {
				t.Fatal(err)
			}
			example = strings.Replace(example, "../llm-gateway/deploy/kustomize/overlays/pod", "deploy/kustomize/overlays/pod", 1)
			write(t, folder, "kustomization.yaml", example)
			write(t, folder, "config.yaml", "limits: {monthly: 7}\n")
			out, err := outputOf(exec.CommandContext(t.Context(), rig.GoTool(t, "kustomize", "v5.8.2"), "build", folder))
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range manifestProblems(t, out) {
				t.Error(problem)
			}
			if !strings.Contains(out, "limits: {monthly: 7}") || strings.Count(out, "image: registry.example.com/") != 2 {
				t.Errorf("settings or images are not the ones of the example:\n%s", out)
			}
		case strings.HasPrefix(example, "apiVersion: "):
			seen["objects"] = true
			if err := validateManifests(t, example); err != nil {
				t.Error(err)
			}
			for _, command := range regexp.MustCompile(`args: \[(.*)\]`).FindAllStringSubmatch(example, -1) {
				if !isCommand(strings.Split(command[1], ", ")) {
					t.Errorf("no command of ours: %s", command[1])
				}
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("only %v were found", seen)
	}
}

func repository(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
