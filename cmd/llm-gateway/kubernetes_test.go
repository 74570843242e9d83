package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const (
	chartFolder     = "../../deploy/helm/llm-gateway/"
	kustomizeFolder = "../../deploy/kustomize/"
	// kubernetesVersion is the oldest that the chart supports: what is newer is refused.
	kubernetesVersion = "1.30"
	// operatorModule has the types of ServiceMonitor and PrometheusRule.
	operatorModule = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
)

// everything switches all of the chart on that the shapes leave off.
var everything = []string{
	"--values", chartFolder + "ci/replicas-values.yaml", "--set-json", `{
	"autoscaling":{"enabled":true},"secrets":{"adminToken":{"name":"other","key":"token"},"allowedKeys":{"name":"other"}},
	"metrics":{"dashboard":{"enabled":true},"serviceMonitor":{"labels":{"release":"prometheus"}},"prometheusRule":{"labels":{"release":"prometheus"}}},
	"settings":{"limits":{"monthly":1000000,"window":"30s"},"request":{"max_bytes":33554432},"cors":{"origins":["https://app.example.com"]},"metrics":{"models":["gpt-4o"]}},
	"gateway":{"extraEnv":[{"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"http://collector:4318"}]},
	"networkPolicy":{"clients":[{"namespaceSelector":{}}],"upstream":{"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}}]},"database":{"to":[{"podSelector":{}}]},"redis":{"to":[{"podSelector":{}}]},"extraEgress":[{"ports":[{"port":4318}]}]},
	"service":{"type":"LoadBalancer","annotations":{"a":"b"}},"serviceAccount":{"annotations":{"a":"b"}},"commonLabels":{"team":"ml"},"podLabels":{"team":"ml"},"podAnnotations":{"a":"b"},
	"imagePullSecrets":[{"name":"pull"}],"image":{"repository":"registry.example.com/llm-gateway","digest":"sha256:0123456789012345678901234567890123456789012345678901234567890123"},
	"nodeSelector":{"pool":"edge"},"tolerations":[{"operator":"Exists"}],"affinity":{"nodeAffinity":{}},"priorityClassName":"high","persistence":{"storageClassName":"fast"},
	"extraVolumes":[{"name":"authorities","configMap":{"name":"authorities"}}],"extraVolumeMounts":[{"name":"authorities","mountPath":"/etc/authorities"}]}`,
}

// renderings are the ways to install it: the chart with values, and Kustomize.
func renderings(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{
		"helm default":       renderChart(t),
		"helm pod":           renderChart(t, "--values", chartFolder+"ci/pod-values.yaml"),
		"helm replicas":      renderChart(t, "--values", chartFolder+"ci/replicas-values.yaml"),
		"helm gateways":      renderChart(t, "--values", chartFolder+"ci/gateways-values.yaml"),
		"helm everything":    renderChart(t, everything...),
		"helm without disks": renderChart(t, "--values", chartFolder+"ci/gateways-values.yaml", "--set", "persistence.enabled=false"),
		"helm nothing": renderChart(t, "--set",
			"metrics.enabled=false,networkPolicy.enabled=false,podDisruptionBudget.enabled=false,serviceAccount.create=false,serviceAccount.name=default,preStopSeconds=0,envoy.enabled=false"),
		"kustomize base":     buildKustomize(t, "base"),
		"kustomize pod":      buildKustomize(t, "overlays/pod"),
		"kustomize replicas": buildKustomize(t, "overlays/replicas"),
		"kustomize gateways": buildKustomize(t, "overlays/gateways"),
	}
}

func renderChart(t *testing.T, args ...string) string {
	t.Helper()
	out, err := runHelm(t, append([]string{"template", "llm-gateway", chartFolder, "--namespace", "llm"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// runHelm returns what helm prints, or what it complains of.
func runHelm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), rig.GoTool(t, "helm", "v4.3.1"), args...)
	home := t.TempDir() // repositories and plugins of the tester's have no say
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+home+"/none")
	return outputOf(cmd)
}

func buildKustomize(t *testing.T, folder string) string {
	t.Helper()
	out, err := outputOf(exec.CommandContext(t.Context(), rig.GoTool(t, "kustomize", "v5.8.2"), "build", kustomizeFolder+folder))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func outputOf(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.New(err.Error() + ": " + stdout.String() + stderr.String())
	}
	return stdout.String(), nil
}

// validateManifests holds Kubernetes manifests to the schemas of its API, and
// resources of others to those in folders of CustomResourceDefinitions.
func validateManifests(t *testing.T, manifests string, crdFolders ...string) error {
	t.Helper()
	folder := t.TempDir()
	write(t, folder, "manifests.yaml", manifests)
	args := []string{folder, "--version", kubernetesVersion}
	for _, crds := range crdFolders {
		args = append(args, "--local-crds", crds)
	}
	_, err := outputOf(exec.CommandContext(t.Context(), rig.GoTool(t, "kubectl-validate", "v0.0.4"), args...))
	return err
}

// operatorTypes is the folder of the Prometheus operator's types.
func operatorTypes(t *testing.T) string {
	t.Helper()
	return filepath.Join(rig.GoModule(t, operatorModule), "example", "prometheus-operator-crd")
}

func TestKubernetes_schemas(t *testing.T) {
	var all []string
	rendered := renderings(t)
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		all = append(all, "# "+name+"\n"+rendered[name])
	}
	manifests, types := strings.Join(all, "\n---\n"), operatorTypes(t)
	if err := validateManifests(t, manifests, types); err != nil {
		t.Error(err)
	}
	for old, fresh := range map[string]string{
		"maxUnavailable: 1":              "maxUnavailables: 1",
		"podManagementPolicy: Parallel":  "podManagementPolicy: 7",
		"averageValue: \"100\"":          "averageValues: \"100\"",
		"path: /metrics":                 "paths: /metrics",
		"expr: up{job=\"llm-gateway\"} ": "expression: up ",
		"kind: NetworkPolicy":            "kind: NetworkPolice",
	} {
		var one string // the object that has it
		for object := range strings.SplitSeq(manifests, "\n---\n") {
			if strings.Contains(object, old) {
				one = object
			}
		}
		if one == "" {
			t.Errorf("%q is not there", old)
		}
		if err := validateManifests(t, strings.Replace(one, old, fresh, 1), types); err == nil {
			t.Errorf("%q passes", fresh)
		}
	}
}

func TestChart_lint(t *testing.T) {
	for _, args := range [][]string{
		nil, {"--values", chartFolder + "ci/pod-values.yaml"}, {"--values", chartFolder + "ci/replicas-values.yaml"}, {"--values", chartFolder + "ci/gateways-values.yaml"}, everything,
	} {
		if _, err := runHelm(t, append([]string{"lint", "--strict", chartFolder}, args...)...); err != nil {
			t.Error(err)
		}
	}
}

// Who has no Helm gets the same.
func TestKustomize_isWhatTheChartRenders(t *testing.T) {
	all := renderings(t)
	for helm, kustomize := range map[string]string{
		"helm default": "kustomize base", "helm pod": "kustomize pod", "helm replicas": "kustomize replicas", "helm gateways": "kustomize gateways",
	} {
		if diff := cmp.Diff(comparableObjects(t, all[helm]), comparableObjects(t, all[kustomize])); diff != "" {
			t.Errorf("%s (-) and %s (+):\n%s", helm, kustomize, diff)
		}
	}
	changed := strings.Replace(all["kustomize base"], "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", 1)
	if cmp.Equal(comparableObjects(t, all["helm default"]), comparableObjects(t, changed)) {
		t.Error("another container passes for the same")
	}
}

// comparableObjects are the objects by kind and name, without what only Helm knows of.
func comparableObjects(t *testing.T, manifests string) map[string]any {
	t.Helper()
	objects := map[string]any{}
	for _, object := range documents[map[string]any](t, manifests) {
		metadata := object["metadata"].(map[string]any)
		if annotations, _ := metadata["annotations"].(map[string]any); annotations["helm.sh/hook"] != nil {
			continue
		}
		delete(metadata, "namespace")
		for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"} {
			delete(metadata["labels"].(map[string]any), label)
		}
		objects[object["kind"].(string)+" "+metadata["name"].(string)] = sorted(object)
	}
	return objects
}

// sorted puts lists of named things into the order of their names, leaves out what
// is empty, and the digest of settings that Kustomize does not make.
func sorted(value any) any {
	switch v := value.(type) {
	case map[string]any:
		delete(v, "llm-gateway/restart-settings")
		for name, member := range v {
			if list, ok := member.([]any); ok && len(list) == 0 {
				delete(v, name)
				continue
			}
			v[name] = sorted(member)
		}
	case []any:
		for i := range v {
			v[i] = sorted(v[i])
		}
		slices.SortStableFunc(v, func(a, b any) int { return strings.Compare(nameOf(a), nameOf(b)) })
	}
	return value
}

func nameOf(value any) string {
	object, _ := value.(map[string]any)
	name, _ := object["name"].(string)
	return name
}

// documents reads each document of a YAML stream.
func documents[T any](t *testing.T, stream string) (all []T) {
	t.Helper()
	for decoder := yamlv3.NewDecoder(strings.NewReader(stream)); ; {
		var node yamlv3.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if isNull(node.Content[0]) {
			continue
		}
		var document T
		if err := node.Decode(&document); err != nil {
			t.Fatal(err)
		}
		all = append(all, document)
	}
}
