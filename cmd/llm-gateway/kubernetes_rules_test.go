package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestKubernetes_rules(t *testing.T) {
	for name, manifests := range renderings(t) {
		for _, problem := range manifestProblems(t, manifests) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

// TestKubernetes_rulesCanFail breaks each rule once.
func TestKubernetes_rulesCanFail(t *testing.T) {
	manifests := renderChart(t, everything...)
	for _, c := range []struct{ old, fresh, want string }{
		{"readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "gateway: the root file system must be read-only"},
		{"drop: [ALL]", "drop: [NET_RAW]", "gateway: capabilities"},
		{"allowPrivilegeEscalation: false", "privileged: true", "gateway: privileges can grow"},
		{"type: RuntimeDefault", "type: Unconfined", "pod: seccomp"},
		{"runAsUser: 65532", "runAsUser: 0", "pod: user"},
		{"automountServiceAccountToken: false\n      enable", "enable", "pod: the account's token is mounted"},
		{"enableServiceLinks: false", "enableServiceLinks: true", "pod: enableServiceLinks"},
		{"terminationGracePeriodSeconds: 65", "terminationGracePeriodSeconds: 35", "pod: terminationGracePeriodSeconds"},
		{"- serve", "- server", "gateway: runs no command of ours"},
		{"healthcheck, --unix-socket", "healthcheck, --socket", "gateway: a probe runs no command of ours"},
		{"api.sock, --url", "ap1.sock, --url", "gateway: a probe asks another socket"},
		{"restartPolicy: Always", "restartPolicy: OnFailure", "gateway: is no sidecar"},
		{"livenessProbe:", "livelinessProbe:", "gateway: probes"},
		{"path: /healthz/ready", "path: /healthz/readiness", "envoy: a probe asks for /healthz/readiness"},
		{"port: http}", "port: https}", "envoy: a probe asks port \"https\""},
		{"llm-gateway-envoy:0.1.0", "llm-gateway-envoy:latest", "envoy: image must be pinned"},
		{"memory: 512Mi", "memory: 256Mi", "gateway: GOMEMLIMIT"},
		{"name: LLMGW_DATA", "name: LLMGW_DATE", "gateway: LLMGW_DATE is no setting"},
		{"name: DATABASE_URL_FILE", "name: DATABASE_URL", "gateway: DATABASE_URL is a secret"},
		{"value: /run/secrets/llm-gateway/pepper", "value: /run/secrets/llm-gateway/peper", "gateway: /run/secrets/llm-gateway/peper is not mounted"},
		{"  monthly: 1000000", "  monthly: 1e6", "gateway: configuration:"},
		{"  monthly: 1000000", "  monthy: 1000000", "envoy: configuration:"},
		{"mountPath: /etc/llm-gateway", "mountPath: /etc/llmgateway", "gateway: no configuration"},
		{"value: 30s", "value: 30seconds", "gateway: configuration:"},
		{"--grpc=unix:///run/llm-gateway/extproc.sock", "--grpc=unix:///run/llm-gateway/ext.sock", "pod: --grpc"},
		{"mountPath: /run/llm-gateway", "mountPath: /run/gateway", "gateway: /run/llm-gateway is not mounted"},
		{"- name: envoy-tmp\n          emptyDir", "- name: envoy-temp\n          emptyDir", "envoy: there is no volume envoy-tmp"},
		{"targetPort: 12000", "targetPort: 12001", "Service llm-gateway: no container has port 12001"},
		{"serviceName: llm-gateway-pods", "serviceName: llm-gateway", "StatefulSet: serviceName"},
		{"- port: metrics", "- port: figures", "ServiceMonitor: no Service has the port figures"},
		{"{port: 9464, protocol: TCP}", "{port: 9465, protocol: TCP}", "NetworkPolicy: no container has port 9465"},
		{"    kind: StatefulSet", "    kind: Deployment", "HorizontalPodAutoscaler: scales Deployment llm-gateway"},
		{"podSelector:\n    matchLabels:\n      app.kubernetes.io/name: llm-gateway\n", "podSelector:\n    matchLabels:\n      app.kubernetes.io/name: gateway\n", "NetworkPolicy: selects nothing"},
		{"clusterIP: None\n  selector:\n    app.kubernetes.io/name: llm-gateway\n", "clusterIP: None\n  selector:\n    app.kubernetes.io/name: gateway\n", "Service llm-gateway-pods: selects nothing"},
		{"kind: ServiceAccount", "kind: Secret", "a Secret: it holds values"},
	} {
		changed := strings.Replace(manifests, c.old, c.fresh, 1)
		if changed == manifests {
			t.Errorf("%q is not there", c.old)
			continue
		}
		got := manifestProblems(t, changed)
		if !slices.ContainsFunc(got, func(problem string) bool { return strings.HasPrefix(problem, c.want) }) {
			t.Errorf("%q instead of %q: got %q, want %q", c.fresh, c.old, got, c.want)
		}
	}
}

// manifestProblems is what Kubernetes' schemas cannot know.
func manifestProblems(t *testing.T, text string) (problems []string) {
	t.Helper()
	in := installationOf(documents[manifest](t, text))
	pod := in.workload.Spec.Template.Spec
	if len(pod.Containers) == 0 {
		return []string{"no pods"}
	}
	var wrong complaints
	wrong.when(slices.Contains(in.kinds, "Secret"), "a Secret: it holds values")
	wrong = append(wrong, prefixed("pod", podProblems(pod))...)
	for i, c := range pod.all() {
		wrong = append(wrong, prefixed(c.Name, containerProblems(c))...)
		wrong = append(wrong, prefixed(c.Name, probeProblems(c, i < len(pod.Inits)))...)
		wrong = append(wrong, prefixed(c.Name, mountProblems(in, c))...)
		wrong = append(wrong, prefixed(c.Name, settingsProblems(t, in, c))...)
	}
	for _, m := range in.others {
		if m.Kind == "Pod" { // of helm test
			for _, c := range m.Spec.Containers {
				wrong = append(wrong, prefixed(m.Metadata.Name, containerProblems(c))...)
			}
		}
	}
	return append(wrong, selectionProblems(in)...)
}

func podProblems(p podSpec) []string {
	var wrong complaints
	s := p.Security
	wrong.when(!s.NonRoot || s.User != 65532 || s.FSGroup != 65532, "user must be 65532, for files too")
	wrong.when(s.Seccomp.Type != "RuntimeDefault", "seccomp %q", s.Seccomp.Type)
	wrong.when(p.Automount == nil || *p.Automount, "the account's token is mounted")
	wrong.when(p.ServiceLinks == nil || *p.ServiceLinks, "enableServiceLinks: variables of Services are not ours")
	wrong.when(p.HostNetwork || p.HostPID, "uses the node's network or processes")
	last := p.Containers[len(p.Containers)-1]
	least := last.Lifecycle.PreStop.Sleep.Seconds + int(Default().Envoy.Drain.Seconds()) + 5
	wrong.when(p.Grace < least, "terminationGracePeriodSeconds %d is below %d: preStop, drain and the books", p.Grace, least)
	for _, v := range p.Volumes {
		wrong.when(v.HostPath != nil, "%s is the node's", v.Name)
	}
	if len(p.Inits) > 0 {
		for i, flag := range []string{"--grpc=", "--http=", "--demo="} {
			gateway, envoy := p.Inits[0].Args, p.Containers[0].Args
			a, b := gateway[len(gateway)-3:][i], envoy[len(envoy)-3:][i]
			wrong.when(a != b || !strings.HasPrefix(a, flag+"unix:///"), "%s is %q and %q", strings.TrimSuffix(flag, "="), a, b)
		}
	}
	return wrong
}

// pinnedByVersion is an image with a version or a digest.
var pinnedByVersion = regexp.MustCompile(`^[a-z0-9./:-]+(:v?[0-9][0-9A-Za-z.-]*|@sha256:[0-9a-f]{64})$`)

func containerProblems(c container) []string {
	var wrong complaints
	s := c.Safety
	wrong.when(!s.ReadOnly, "the root file system must be read-only")
	wrong.when(s.Privileged || s.Escalation == nil || *s.Escalation, "privileges can grow")
	wrong.when(!slices.Equal(s.Drop.Drop, []string{"ALL"}) || len(s.Drop.Add) > 0, "capabilities %v", s.Drop)
	wrong.when(!s.NonRoot || s.Seccomp.Type != "RuntimeDefault", "user or seccomp")
	wrong.when(!pinnedByVersion.MatchString(c.Image), "image must be pinned, not %q", c.Image)
	wrong.when(len(c.Command) > 0 || !isCommand(c.Args), "runs no command of ours: %q", c.Args)
	limit := mebibytes(c.Resources.Limits["memory"])
	wrong.when(limit == 0, "no limit of memory")
	goLimit := c.variables()["GOMEMLIMIT"]
	wrong.when(c.Name == "gateway" && goLimit == "", "GOMEMLIMIT is missing")
	wrong.when(goLimit != "" && mebibytes(goLimit) >= limit*9/10, "GOMEMLIMIT %s is not well below the limit of memory, %d MiB", goLimit, limit)
	return wrong
}

func mebibytes(text string) int {
	for unit, factor := range map[string]int{"MiB": 1, "Mi": 1, "GiB": 1024, "Gi": 1024} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, _ := strconv.Atoi(number) // 0 is told
			return n * factor
		}
	}
	return 0
}

// probeProblems: probes ask what there is to ask.
func probeProblems(c container, sidecar bool) []string {
	var wrong complaints
	wrong.when(sidecar && c.Restart != "Always", "is no sidecar: it would have to end before Envoy starts")
	wrong.when(c.Startup == nil || c.Liveness == nil || !sidecar && c.Readiness == nil, "probes are missing")
	for _, p := range []*containerProbe{c.Startup, c.Liveness, c.Readiness} {
		switch {
		case p == nil:
		case len(p.Exec.Command) > 0:
			command := p.Exec.Command
			if command[0] != installedAt || !isCommand(command[1:]) {
				wrong.when(true, "a probe runs no command of ours: %q", command)
				continue
			}
			at := command[slices.Index(command, "--unix-socket")+1]
			wrong.when(!slices.Contains(c.Args, "--http=unix://"+at), "a probe asks another socket: %s", at)
		case p.HTTP.Path != "":
			wrong.when(p.HTTP.Path != "/healthz/live" && p.HTTP.Path != "/healthz/ready", "a probe asks for %s", p.HTTP.Path)
			wrong.when(!slices.Contains(c.portNames(), p.HTTP.Port), "a probe asks port %q", p.HTTP.Port)
		default:
			wrong.when(!slices.Contains(c.portNames(), p.TCP.Port), "a probe asks port %q", p.TCP.Port)
		}
	}
	return wrong
}

func mountProblems(in installation, c container) []string {
	var wrong complaints
	spec := in.workload.Spec
	var volumes, places []string
	for _, v := range spec.Template.Spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, claim := range spec.Claims {
		volumes = append(volumes, claim.Metadata.Name)
	}
	for _, mount := range c.Mounts {
		wrong.when(!slices.Contains(volumes, mount.Name), "there is no volume %s", mount.Name)
		wrong.when((mount.Name == "secrets" || mount.Name == "config") && !mount.ReadOnly, "%s can be written", mount.Name)
		places = append(places, mount.Path)
	}
	needed := []string{filepath.Dir(c.variables()["LLMGW_DATA"]), "/tmp"}
	for _, arg := range c.Args {
		if _, path, ok := strings.Cut(arg, "=unix://"); ok {
			needed = append(needed, filepath.Dir(path))
		}
	}
	for _, place := range needed {
		wrong.when(!slices.Contains(places, place), "%s is not mounted", place)
	}
	return wrong
}

// settingsProblems: what a container is told is what the program understands.
func settingsProblems(t *testing.T, in installation, c container) []string {
	t.Helper()
	var wrong complaints
	folder := t.TempDir()
	examples := map[string]string{
		"DATABASE_URL_FILE": "postgres://llmgw:secret@db/llmgw", "REDIS_URL_FILE": "redis://redis:6379/0",
		"LLMGW_KEY_PEPPER_FILE": strings.Repeat("p", 16), "LLMGW_ADMIN__TOKEN_FILE": "0123456789abcdef0123456789abcdef",
	}
	var env []string
	for _, v := range c.Env {
		value := v.Value
		base, isFile := strings.CutSuffix(v.Name, "_FILE")
		index := slices.IndexFunc(settings(), func(s setting) bool { return s.secret && (s.env == v.Name || isFile && s.env == base) })
		switch {
		case v.Name == "GOMEMLIMIT", strings.HasPrefix(v.Name, "OTEL_"):
			continue
		case !slices.Contains(envNames(), v.Name):
			wrong.when(true, "%s is no setting", v.Name)
			continue
		case index >= 0 && !isFile:
			wrong.when(true, "%s is a secret: name a file", v.Name)
			continue
		case isFile:
			wrong.when(!slices.Contains(in.secretFiles(c), value), "%s is not mounted", value)
			example := examples[v.Name]
			if example == "" {
				example = "sk-example-of-a-secret"
			}
			value = write(t, folder, v.Name, example)
		case v.Name == envConfig:
			text, found := in.settingsFile(c)
			wrong.when(!found, "no configuration is at %s", value)
			value = write(t, folder, "config.yaml", text)
		}
		env = append(env, v.Name+"="+value)
	}
	if _, err := loadConfig(sources{dir: folder, env: env}); err != nil {
		wrong.when(true, "configuration: %v", err)
	}
	return wrong
}

// selectionProblems: who selects finds, and finds the ports that it wants.
func selectionProblems(in installation) []string {
	var wrong complaints
	labels := in.workload.Spec.Template.Metadata.Labels
	wrong.when(!in.workload.Spec.Selector.picks(labels), "%s: selects nothing", in.workload.Kind)
	var ports []int
	for _, c := range in.workload.Spec.Template.Spec.all() {
		for _, p := range c.Ports {
			ports = append(ports, p.Port)
		}
	}
	headless := false
	for _, s := range in.services {
		name := "Service " + s.Metadata.Name
		wrong.when(!s.Spec.Selector.picks(labels), "%s: selects nothing", name)
		for _, p := range s.Spec.Ports {
			wrong.when(!slices.Contains(ports, p.Target), "%s: no container has port %d", name, p.Target)
		}
		headless = headless || s.Spec.ClusterIP == "None" && s.Metadata.Name == in.workload.Spec.ServiceName
	}
	wrong.when(in.workload.Kind == "StatefulSet" && !headless, "StatefulSet: serviceName is no headless Service")
	for _, m := range in.others {
		switch m.Kind {
		case "PodDisruptionBudget":
			wrong.when(!m.Spec.Selector.picks(labels), "%s: selects nothing", m.Kind)
		case "NetworkPolicy":
			wrong.when(!m.Spec.PodSelector.picks(labels), "%s: selects nothing", m.Kind)
			for _, rule := range m.Spec.Ingress {
				for _, p := range rule.Ports {
					wrong.when(!slices.Contains(ports, p.Port), "%s: no container has port %d", m.Kind, p.Port)
				}
			}
		case "HorizontalPodAutoscaler":
			want := objectReference{in.workload.Kind, in.workload.Metadata.Name}
			wrong.when(m.Spec.Scaled != want, "%s: scales %s %s", m.Kind, m.Spec.Scaled.Kind, m.Spec.Scaled.Name)
		case "ServiceMonitor":
			wrong = append(wrong, prefixed(m.Kind, monitorProblems(m, in.services))...)
		}
	}
	return wrong
}

func monitorProblems(m manifest, services []manifest) []string {
	var ports []string
	for _, s := range services {
		if m.Spec.Selector.picks(s.Metadata.Labels) {
			for _, p := range s.Spec.Ports {
				ports = append(ports, p.Name)
			}
		}
	}
	var wrong []string
	for _, e := range m.Spec.Endpoints {
		if !slices.Contains(ports, e.Port) {
			wrong = append(wrong, fmt.Sprintf("no Service has the port %s", e.Port))
		}
	}
	return wrong
}
