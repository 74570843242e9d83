//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// podContainer is what a kubelet would run of a container here, and ask.
type podContainer struct {
	Name string   `json:"name"`
	Args []string `json:"args"`
	Env  []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"env"`
	Ports []struct {
		Name string `json:"name"`
		Port int    `json:"containerPort"`
	} `json:"ports"`
	Startup   *podProbe `json:"startupProbe"`
	Liveness  *podProbe `json:"livenessProbe"`
	Readiness *podProbe `json:"readinessProbe"`
}

type podProbe struct {
	Exec struct {
		Command []string `json:"command"`
	} `json:"exec"`
	HTTP *struct {
		Path string `json:"path"`
		Port string `json:"port"`
	} `json:"httpGet"`
	TCP struct {
		Port string `json:"port"`
	} `json:"tcpSocket"`
}

// pod runs the containers of a rendered pod as processes of this machine: the same
// arguments, variables and files, at other paths and ports.
type pod struct {
	*gateway
	containers []podContainer // sidecars first
	procs      map[string]*rig.Process
	config     string // the file of the settings
}

// startPod renders the chart, starts each container when the start-up probe of the
// one before it succeeds, and waits until all are ready.
func startPod(t *testing.T, secrets map[string]string, helm ...string) *pod {
	t.Helper()
	p := &pod{gateway: prepare(t, setup{}), procs: map[string]*rig.Process{}}
	settings := `settings={"upstream":{"url":"` + p.up.URL + `"},"limits":{"requests":1000000},"reserve":{"max_wait":"3s"}}`
	cmd := exec.CommandContext(t.Context(), rig.GoTool(t, "helm", "v4.3.1"),
		append([]string{"template", "llm-gateway", deployFolder + "helm/llm-gateway", "--set-json", settings}, helm...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	manifests, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	p.read(p.moved(string(manifests)))
	for name, text := range secrets {
		p.put(filepath.Join("secrets", name), text)
	}
	for _, c := range p.containers {
		p.run(c)
		p.eventually(c.Name+" starts", func() bool { return p.probe(c, c.Startup) })
	}
	if len(p.containers) == 1 { // somebody else runs Envoy
		p.envoy, err = rig.Start(rig.Spec{
			Name: "envoy", Path: p.cli.Binary, Dir: p.dir, Logs: p.dir, Env: rig.MinimalEnv("ENVOY_PATH=" + p.envoyBinary),
			Args: []string{
				"envoy", "--data", filepath.Join(p.dir, "envoy"), "--listen", p.addr, "--upstream", p.up.URL,
				p.containers[0].Args[2], p.containers[0].Args[3],
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.envoy.Kill)
	}
	for _, c := range p.containers {
		p.eventually(c.Name+" is ready", func() bool { return p.probe(c, c.Readiness) && p.probe(c, c.Liveness) })
	}
	p.proc = p.procs["gateway"]
	p.ready()
	return p
}

// moved puts other paths and ports into the place of those of a container.
func (p *pod) moved(manifests string) string {
	changes := []string{
		"/usr/local/bin/llm-gateway", p.cli.Binary, "/run/secrets/llm-gateway", filepath.Join(p.dir, "secrets"),
		"/run/llm-gateway", filepath.Join(p.dir, "s"), "/etc/llm-gateway", filepath.Join(p.dir, "etc"),
		"/data/llm-gateway", p.data, "/tmp/llm-gateway", filepath.Join(p.dir, "tmp"), "0.0.0.0:12000", p.addr,
	}
	_, port, _ := strings.Cut(p.addr, ":")
	changes = append(changes, "containerPort: 12000", "containerPort: "+port)
	for _, old := range []string{"9464", "12001", "12002"} {
		addr, err := ports.Next()
		if err != nil {
			p.t.Fatal(err)
		}
		_, port, _ := strings.Cut(addr, ":")
		changes = append(changes, "0.0.0.0:"+old, addr, "containerPort: "+old, "containerPort: "+port)
	}
	return strings.NewReplacer(changes...).Replace(manifests)
}

// read takes the pod and its settings out of the manifests.
func (p *pod) read(manifests string) {
	p.t.Helper()
	for text := range strings.SplitSeq(manifests, "\n---\n") {
		var object struct {
			Kind string            `json:"kind"`
			Data map[string]string `json:"data"`
			Spec struct {
				Template struct {
					Spec struct {
						Inits      []podContainer `json:"initContainers"`
						Containers []podContainer `json:"containers"`
					} `json:"spec"`
				} `json:"template"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			p.t.Fatal(err)
		}
		switch object.Kind {
		case "StatefulSet":
			p.containers = slices.Concat(object.Spec.Template.Spec.Inits, object.Spec.Template.Spec.Containers)
		case "ConfigMap":
			p.config = p.put(filepath.Join("etc", "config.yaml"), object.Data["config.yaml"])
		}
	}
}

func (p *pod) put(name, text string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *pod) environmentOf(c podContainer) []string {
	env := rig.MinimalEnv("ENVOY_PATH=" + p.envoyBinary) // of the image
	for _, v := range c.Env {
		env = append(env, v.Name+"="+v.Value)
	}
	return env
}

func (p *pod) run(c podContainer) {
	p.t.Helper()
	proc, err := rig.Start(rig.Spec{
		Name: c.Name, Path: p.cli.Binary, Args: c.Args, Env: p.environmentOf(c), Dir: p.dir, Logs: p.dir,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.procs[c.Name] = proc
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Log(proc.Tail(30))
		}
		proc.Kill()
	})
}

// probe asks as a kubelet does; without a probe a container is well.
func (p *pod) probe(c podContainer, ask *podProbe) bool {
	p.t.Helper()
	if ask == nil {
		return true
	}
	at := func(name string) string {
		for _, port := range c.Ports {
			if port.Name == name {
				return net.JoinHostPort("127.0.0.1", jsonText(port.Port))
			}
		}
		p.t.Fatalf("%s has no port %q", c.Name, name)
		return ""
	}
	switch {
	case len(ask.Exec.Command) > 0:
		cmd := exec.CommandContext(p.t.Context(), ask.Exec.Command[0], ask.Exec.Command[1:]...)
		cmd.Env, cmd.Dir = p.environmentOf(c), p.dir
		return cmd.Run() == nil
	case ask.HTTP != nil:
		res, err := http.Get("http://" + at(ask.HTTP.Port) + ask.HTTP.Path)
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode/100 == 2
	}
	conn, err := net.DialTimeout("tcp", at(ask.TCP.Port), 3*time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// exec runs a command in a container, as kubectl exec does.
func (p *pod) exec(c podContainer, out any, args ...string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.cli.Binary, append(args, "--json")...)
	cmd.Env, cmd.Dir = p.environmentOf(c), p.dir
	text, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s: %v", args, err)
	}
	if err := json.Unmarshal(text, out); err != nil {
		p.t.Fatal(err)
	}
}

// TestKubernetesPods: the command lines, variables and files of each shape make a
// gateway that answers, and that ends in the order in which Kubernetes ends it.
func TestKubernetesPods(t *testing.T) {
	t.Parallel()
	const upstreamKey = "sk-upstream-0123456789"
	secrets := map[string]string{"upstreamKey": upstreamKey, "pepper": strings.Repeat("p", 32)}
	shared := func(t *testing.T) map[string]string {
		return map[string]string{
			"upstreamKey": upstreamKey, "pepper": strings.Repeat("p", 32),
			"databaseURL": rig.StartPostgres(t).NewDatabase(), "redisURL": "redis://" + rig.StartRedis(t).Addr + "/0",
		}
	}
	const values = deployFolder + "helm/llm-gateway/ci/"
	t.Run("pod", func(t *testing.T) {
		p := startPod(t, secrets, "--set", "secrets.upstreamKey.name=s,secrets.pepper.name=s")
		p.answers(upstreamKey)
		p.takesUpSettings()
		p.ends("envoy", "gateway")
	})
	t.Run("replicas", func(t *testing.T) {
		p := startPod(t, shared(t), "--values", values+"replicas-values.yaml")
		p.answers(upstreamKey)
		p.ends("envoy", "gateway")
	})
	t.Run("gateways", func(t *testing.T) {
		p := startPod(t, shared(t), "--values", values+"gateways-values.yaml")
		p.answers(upstreamKey)
		p.ends("gateway")
	})
}

// answers makes the first key and asks with it.
func (p *pod) answers(upstreamKey string) {
	p.t.Helper()
	inside := p.containers[0]
	var key rig.NewKey
	p.exec(inside, &key, "create-key", "--limit", "100000")
	ask := rig.Request{Key: key.Key, Body: rig.Chat{Model: "m", MaxTokens: 50, Script: rig.Script{Prompt: 11, Completion: 7}}.Body()}
	client := p.client(false)
	p.eventually("the key is accepted", func() bool { return client.Do(p.context(), ask).SawEnd() })
	records := p.up.Records()
	if got := records[len(records)-1].Header.Get("Authorization"); got != "Bearer "+upstreamKey {
		p.t.Error("the model server did not get the key of the Secret")
	}
	var audit rig.AuditReport
	p.exec(inside, &audit, "audit")
	if r := client.Do(p.context(), rig.Request{Body: ask.Body}); r.Status != http.StatusUnauthorized {
		p.t.Errorf("without a key: %d", r.Status)
	}
	res, err := http.Get("http://" + p.variable("LLMGW_METRICS__LISTEN") + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		p.t.Errorf("metrics: %d", res.StatusCode)
	}
}

func (p *pod) variable(name string) string {
	for _, v := range p.containers[0].Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

// takesUpSettings changes the ConfigMap's file in the pod.
func (p *pod) takesUpSettings() {
	p.t.Helper()
	var key rig.NewKey
	p.exec(p.containers[0], &key, "create-key", "--limit", "100000")
	text, err := os.ReadFile(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	changed := strings.Replace(string(text), "requests: 1000000", "requests: 1", 1)
	if changed == string(text) {
		p.t.Fatalf("the limit is not in the file:\n%s", text)
	}
	p.put(filepath.Join("etc", "config.yaml"), changed)
	client := p.client(false)
	body := rig.Chat{Model: "m", MaxTokens: 5, Script: rig.Script{Prompt: 1, Completion: 1}}.Body()
	p.eventually("the new limit", func() bool {
		return client.Do(p.context(), rig.Request{Key: key.Key, Body: body}).Status == http.StatusTooManyRequests
	})
}

// ends stops containers one after the other: each ends by itself, in order, and those
// that are still to end work until then.
func (p *pod) ends(order ...string) {
	p.t.Helper()
	for i, name := range order {
		for _, c := range p.containers {
			if slices.Contains(order[i:], c.Name) && !p.probe(c, c.Liveness) {
				p.t.Errorf("%s is not alive while others end", c.Name)
			}
		}
		p.procs[name].Signal(syscall.SIGTERM)
		if code, err := p.procs[name].Wait(45 * time.Second); err != nil || code != 0 {
			p.t.Errorf("%s: exit code %d, %v", name, code, err)
		}
	}
}

func jsonText(value any) string {
	text, _ := json.Marshal(value) // a number
	return string(text)
}
