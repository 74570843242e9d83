package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/MaksimVF/llm-gateway/envoy"
)

const (
	composePath    = "../../docker-compose.yaml"
	dockerfilePath = "../../deploy/Dockerfile"
	containerUser  = "65532:65532"
	metricsAddress = "0.0.0.0:9464"
	// replicasSetting has another default in the gateways of the replica profile.
	replicasSetting = "LLMGW_RATELIMIT__REPLICAS"
)

// composeFile is what docker-compose.yaml may say. A key that is not here is an
// error: whoever adds one decides whether it weakens a container, and whether
// docker-compose 1.29 knows it too.
type composeFile struct {
	Services   map[string]composeService `yaml:"services"`
	Networks   map[string]composeNetwork `yaml:"networks"`
	Volumes    map[string]any            `yaml:"volumes"`
	Secrets    map[string]composeSecret  `yaml:"secrets"`
	Extensions map[string]any            `yaml:",inline"` // x-…, what services have in common
}

type composeNetwork struct {
	Internal bool `yaml:"internal"`
}

// composeSecret has no value of its own that could be written into the file.
type composeSecret struct {
	File string `yaml:"file"`
}

type composeService struct {
	Image       string                       `yaml:"image"`
	Build       composeBuild                 `yaml:"build"`
	Command     []string                     `yaml:"command"`
	Profiles    []string                     `yaml:"profiles"`
	User        string                       `yaml:"user"`
	Ports       []string                     `yaml:"ports"`
	Networks    any                          `yaml:"networks"`
	Environment map[string]string            `yaml:"environment"`
	ExtraHosts  []string                     `yaml:"extra_hosts"`
	Volumes     []string                     `yaml:"volumes"`
	Secrets     []string                     `yaml:"secrets"`
	ReadOnly    bool                         `yaml:"read_only"`
	Tmpfs       []string                     `yaml:"tmpfs"`
	Privileged  bool                         `yaml:"privileged"`
	CapDrop     []string                     `yaml:"cap_drop"`
	CapAdd      []string                     `yaml:"cap_add"`
	SecurityOpt []string                     `yaml:"security_opt"`
	MemLimit    string                       `yaml:"mem_limit"`
	Restart     string                       `yaml:"restart"`
	StopSignal  string                       `yaml:"stop_signal"`
	StopGrace   string                       `yaml:"stop_grace_period"`
	DependsOn   map[string]map[string]string `yaml:"depends_on"`
	Healthcheck struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		StartPeriod string   `yaml:"start_period"`
		Retries     int      `yaml:"retries"`
	} `yaml:"healthcheck"`
}

type composeBuild struct {
	Context    string            `yaml:"context"`
	Dockerfile string            `yaml:"dockerfile"`
	Target     string            `yaml:"target"`
	Args       map[string]string `yaml:"args"`
}

// composeWants is what differs between the services by intent.
var composeWants = map[string]struct {
	target, user, profile string
	networks, volumes     []string
	command               []string // words that must be in it
	ports, secrets        []string
}{
	"envoy":     {target: "envoy", user: containerUser, networks: []string{"private", "public"}, command: []string{"envoy", "--demo"}},
	"gateway":   {target: "gateway", user: containerUser, networks: []string{"private"}, volumes: []string{"data:/data"}, command: []string{"serve", "--public-url"}},
	"gateway-2": {target: "gateway", user: containerUser, profile: "replicas", networks: []string{"private"}, volumes: []string{"data-2:/data"}, command: []string{"serve", "--replica"}},
	"gateway-3": {target: "gateway", user: containerUser, profile: "replicas", networks: []string{"private"}, volumes: []string{"data-3:/data"}, command: []string{"serve", "--replica"}},
	"redis":     {user: "redis", networks: []string{"private"}, command: []string{"redis-server", "noeviction"}},
	"prometheus": {
		user: "65534:65534", profile: "observability", networks: []string{"private", "watching"},
		volumes: []string{"./deploy/prometheus:/etc/prometheus:ro", "prometheus:/prometheus"},
		ports:   []string{"127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"}, command: []string{"--config.file=/etc/prometheus/compose.yml"},
	},
	"grafana": {
		user: "472:0", profile: "observability", networks: []string{"watching"},
		volumes: []string{"./deploy/grafana/provisioning:/etc/grafana/provisioning:ro", "./deploy/grafana/dashboards:/etc/grafana/dashboards:ro", "grafana:/var/lib/grafana"},
		ports:   []string{"127.0.0.1:${GRAFANA_PORT:-3000}:3000"}, secrets: []string{"grafana_admin_password"},
	},
	"postgres": {user: "postgres", profile: "replicas", networks: []string{"private"}, volumes: []string{"postgres:/var/lib/postgresql/data"}},
}

// instruction is one of a Dockerfile, with its continuation lines.
type instruction struct{ name, text string }

func TestDeploy(t *testing.T) {
	compose, dockerfile := string(readFile(t, composePath)), string(readFile(t, dockerfilePath))
	for _, problem := range deployProblems(compose, dockerfile) {
		t.Error(problem)
	}
}

// TestDeploy_baseImages holds the images to the versions that the code says.
func TestDeploy_baseImages(t *testing.T) {
	args := arguments(instructions(string(readFile(t, dockerfilePath))))
	if want := "-v" + envoy.Version; !strings.HasSuffix(args["ENVOY_IMAGE"], want) {
		t.Errorf("ENVOY_IMAGE is %q, want …%s", args["ENVOY_IMAGE"], want)
	}
	directive := regexp.MustCompile(`(?m)^go (\d+\.\d+\.\d+)$`).FindSubmatch(readFile(t, "../../go.mod"))
	if directive == nil || !strings.HasPrefix(args["GO_IMAGE"], "golang:"+string(directive[1])+"-") {
		t.Errorf("GO_IMAGE is %q, go.mod wants %s", args["GO_IMAGE"], directive)
	}
}

// TestDeploy_prometheusFindsTheGateways holds its configuration to the name and
// the port that the gateways have.
func TestDeploy_prometheusFindsTheGateways(t *testing.T) {
	compose, config := string(readFile(t, composePath)), string(readFile(t, prometheusFolder+"compose.yml"))
	_, port, _ := strings.Cut(metricsAddress, ":")
	for text, wants := range map[string][]string{
		compose: {"aliases: [gateways]"}, config: {"names: [gateways]", "port: " + port + "\n"},
	} {
		for _, want := range wants {
			if strings.Count(text, want) != 1 {
				t.Errorf("%q is not in it once", want)
			}
		}
	}
}

// TestDeployProblems breaks each rule once: a check that finds nothing proves
// nothing.
func TestDeployProblems(t *testing.T) {
	compose, dockerfile := string(readFile(t, composePath)), string(readFile(t, dockerfilePath))
	for _, c := range []struct{ file, old, fresh, want string }{
		{composePath, "read_only: true", "read_only: false", "redis: the root file system must be read-only"},
		{composePath, "read_only: true", "read_only: true\n  privileged: true", "envoy: privileged"},
		{composePath, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "postgres: cap_drop must be ALL"},
		{composePath, "  cap_drop: [ALL]\n", "", "gateway: cap_drop must be ALL"},
		{composePath, "cap_drop: [ALL]", "cap_drop: [ALL]\n  cap_add: [NET_ADMIN]", "gateway-2: cap_add"},
		{composePath, `["no-new-privileges:true"]`, "[]", "gateway-3: no-new-privileges is missing"},
		{composePath, "mem_limit: 1g", "network_mode: host", "docker-compose.yaml: yaml"},
		{composePath, "    mem_limit: 128m\n", "", "redis: mem_limit is missing"},
		{composePath, "restart: unless-stopped", `restart: "no"`, "redis: restart must be"},
		{composePath, "user: redis", "user: root", "redis: user must be redis"},
		{composePath, ":-12000}:12000\"", ":-12000}:8000\"", "envoy: ports must be ${LLMGW_PORT:-12000}:12000"},
		{composePath, "user: postgres", "user: postgres\n    ports: [\"5432:5432\"]", "postgres: ports must be"},
		{composePath, "- data:/data", "- data:/data\n      - /:/host", "gateway: volumes must be [data:/data]"},
		{composePath, "- data-2:/data", "- data:/data", "gateway-2: volumes must be [data-2:/data]"},
		{composePath, "    internal: true\n", "", "docker-compose.yaml: networks"},
		{composePath, "networks: [private]", "networks: [private, public]", "redis: networks must be"},
		{composePath, "    profiles: [replicas]\n", "", "gateway-2: profiles must be"},
		{composePath, `"--replica", `, "", "gateway-2: --replica is missing in its command"},
		{composePath, `"--public-url"`, `"--public-uri"`, "gateway: runs no command of ours"},
		{composePath, "redis:7.4.7-alpine", "redis:latest", "redis: image must be pinned"},
		{composePath, "postgres:17.7-alpine", "postgres:17-alpine", "postgres: image must be pinned"},
		{composePath, "redis:7.4.7-alpine", "redis:7.4-alpine", "redis: image must be pinned"},
		{composePath, "prom/prometheus:v3.5.0", "prom/prometheus:latest", "prometheus: image must be pinned"},
		{composePath, "127.0.0.1:${GRAFANA_PORT", "${GRAFANA_PORT", "grafana: ports must be 127.0.0.1:"},
		{composePath, "127.0.0.1:${PROMETHEUS_PORT", "${PROMETHEUS_PORT", "prometheus: ports must be 127.0.0.1:"},
		{composePath, "profiles: [observability]", "profiles: []", "prometheus: profiles must be"},
		{composePath, "networks: [watching]", "networks: [watching, private]", "grafana: networks must be"},
		{composePath, "PASSWORD__FILE: /run/secrets/grafana_admin_password", "PASSWORD: admin", "grafana: GF_SECURITY_ADMIN_PASSWORD must be"},
		{composePath, "secrets: [grafana_admin_password]", "secrets: []", "grafana: secrets must be"},
		{composePath, "  grafana_admin_password:\n    file:", "  grafana_admin_password:\n    content:", "docker-compose.yaml: yaml"},
		{composePath, ": 0.0.0.0:9464", ": ${LLMGW_METRICS__LISTEN:-}", "gateway: LLMGW_METRICS__LISTEN must be 0.0.0.0:9464"},
		{composePath, "target: envoy", "target: envoy-binary", "envoy: target must be envoy"},
		{composePath, "stop_grace_period: 40s", "stop_grace_period: 30s", "envoy: stop_grace_period is not above the drain time 30s"},
		{composePath, `["CMD", "redis-cli", "ping"]`, "[]", "redis: healthcheck is missing"},
		{composePath, `"healthcheck", "--url"`, `"healthcheck", "--uri"`, "gateway: healthcheck runs no command of ours"},
		{composePath, "condition: service_healthy", "condition: service_started", "gateway: depends_on redis must wait for its health"},
		{composePath, "LOG_LEVEL: ${LOG_LEVEL:-}", "LOGLEVEL: ${LOGLEVEL:-}", "gateway: LOGLEVEL is no setting"},
		{composePath, "${API_DAILY_LIMIT:-}", "${API_MONTHLY_LIMIT:-}", "gateway: API_DAILY_LIMIT must be ${API_DAILY_LIMIT:-}"},
		{composePath, "${LOG_LEVEL:-}", "${LOG_LEVEL:-info}", "gateway: LOG_LEVEL must be ${LOG_LEVEL:-}"},
		{composePath, "${VERSION:-dev}", "${LLMGW_VERSION:-dev}", "docker-compose.yaml: LLMGW_VERSION in a .env is refused by the gateway itself"},
		{composePath, ":-dev}", ":-1.0}", "gateway: argument VERSION defaults to 1.0, in the Dockerfile to dev"},
		{dockerfilePath, "USER 65532:65532", "USER root", "Dockerfile: gateway: USER must be 65532:65532"},
		{dockerfilePath, "USER 65532:65532\n", "", "Dockerfile: gateway: USER must be 65532:65532"},
		{dockerfilePath, "EXPOSE 12000", "EXPOSE 8080", "Dockerfile: envoy: EXPOSE must be 12000"},
		{dockerfilePath, "VOLUME /data", "VOLUME /var", "Dockerfile: gateway: VOLUME must be /data"},
		{dockerfilePath, "--chown=65532:65532 ", "", "Dockerfile: gateway: no COPY gives 65532:65532 the volume"},
		{dockerfilePath, "AS all-in-one", "AS both", "Dockerfile: 2 of 3 images"},
		{dockerfilePath, "ENV LLMGW_DATA=", "ENV LLMGW_DATE=", "Dockerfile: LLMGW_DATE is no setting"},
		{dockerfilePath, `"healthcheck"]`, `"healthchecks"]`, "Dockerfile: envoy: HEALTHCHECK runs no command of ours"},
		{dockerfilePath, `["up", "--data", "/data"]`, `["up", "--dat", "/data"]`, "Dockerfile: all-in-one: CMD runs no command of ours"},
		{dockerfilePath, `ENTRYPOINT ["/usr/local/bin/llm-gateway"]`, "ENTRYPOINT llm-gateway", "Dockerfile: gateway: ENTRYPOINT: write a JSON list, the image has no shell"},
		{dockerfilePath, "RUN go mod", "RUN --mount=type=cache,target=/x go mod", "Dockerfile: RUN --mount needs BuildKit"},
	} {
		changed := map[string]string{composePath: compose, dockerfilePath: dockerfile}
		if strings.Count(changed[c.file], c.old) == 0 {
			t.Errorf("%q is not in %s", c.old, c.file)
			continue
		}
		changed[c.file] = strings.Replace(changed[c.file], c.old, c.fresh, 1)
		got := deployProblems(changed[composePath], changed[dockerfilePath])
		if !slices.ContainsFunc(got, func(problem string) bool { return strings.HasPrefix(problem, c.want) }) {
			t.Errorf("%q instead of %q: got %q, want %q", c.fresh, c.old, got, c.want)
		}
	}
}

func deployProblems(compose, dockerfile string) []string {
	var file composeFile
	decoder := yamlv3.NewDecoder(strings.NewReader(compose))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		return []string{"docker-compose.yaml: " + err.Error()}
	}
	image := instructions(dockerfile)
	problems := dockerfileProblems(image)
	for name := range file.Extensions {
		if !strings.HasPrefix(name, "x-") {
			problems = append(problems, "docker-compose.yaml: "+name+" is not known here")
		}
	}
	if diff := cmp.Diff(map[string]composeNetwork{"public": {}, "private": {Internal: true}, "watching": {}}, file.Networks); diff != "" {
		problems = append(problems, "docker-compose.yaml: networks (-want +got):\n"+diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(composeWants)), slices.Sorted(maps.Keys(file.Services))); diff != "" {
		problems = append(problems, "docker-compose.yaml: services (-want +got):\n"+diff)
	}
	for name, service := range file.Services {
		problems = append(problems, prefixed(name, hardeningProblems(service))...)
		problems = append(problems, prefixed(name, roleProblems(name, service))...)
		problems = append(problems, prefixed(name, passingProblems(service, arguments(image)))...)
	}
	return append(problems, prefixed("docker-compose.yaml", sharedNames(compose))...)
}

func prefixed(prefix string, problems []string) []string {
	for i, problem := range problems {
		problems[i] = prefix + ": " + problem
	}
	return problems
}

// complaints collects what is wrong.
type complaints []string

func (c *complaints) when(bad bool, format string, args ...any) {
	if bad {
		*c = append(*c, fmt.Sprintf(format, args...))
	}
}

// hardeningProblems: what a container may do is what its program needs.
func hardeningProblems(s composeService) []string {
	var wrong complaints
	wrong.when(s.Privileged, "privileged")
	wrong.when(!s.ReadOnly, "the root file system must be read-only")
	wrong.when(!slices.Equal(s.CapDrop, []string{"ALL"}), "cap_drop must be ALL, not %q", s.CapDrop)
	wrong.when(len(s.CapAdd) > 0, "cap_add %q", s.CapAdd)
	wrong.when(!slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "no-new-privileges is missing")
	wrong.when(s.MemLimit == "", "mem_limit is missing")
	wrong.when(s.Restart != "unless-stopped", "restart must be unless-stopped, not %q", s.Restart)
	wrong.when(s.StopGrace == "", "stop_grace_period is missing")
	h := s.Healthcheck
	wrong.when(len(h.Test) < 2 || h.Test[0] != "CMD" || h.Interval == "" || h.Timeout == "" || h.Retries == 0, "healthcheck is missing")
	for other, how := range s.DependsOn {
		wrong.when(how["condition"] != "service_healthy", "depends_on %s must wait for its health", other)
	}
	return wrong
}

// roleProblems: each service is what [composeWants] says.
func roleProblems(name string, s composeService) []string {
	var wrong complaints
	want := composeWants[name]
	wrong.when(s.User != want.user, "user must be %s, not %q", want.user, s.User)
	wrong.when(s.Build.Target != want.target, "target must be %s, not %q", want.target, s.Build.Target)
	wrong.when(strings.Join(s.Profiles, " ") != want.profile, "profiles must be %q, not %q", want.profile, s.Profiles)
	wrong.when(!slices.Equal(networkNames(s.Networks), want.networks), "networks must be %q, not %v", want.networks, s.Networks)
	wrong.when(!slices.Equal(s.Volumes, want.volumes), "volumes must be %s, not %s", want.volumes, s.Volumes)
	wrong.when(!slices.Equal(s.Secrets, want.secrets), "secrets must be %q, not %q", want.secrets, s.Secrets)
	ports := want.ports
	if name == "envoy" {
		ports = []string{"${LLMGW_PORT:-" + listenPort() + "}:" + listenPort()}
	}
	wrong.when(!slices.Equal(s.Ports, ports), "ports must be %s, not %s", strings.Join(ports, " "), s.Ports)
	for _, word := range want.command {
		wrong.when(!slices.Contains(s.Command, word), "%s is missing in its command", word)
	}
	if want.target == "" {
		wrong.when(!pinnedImage.MatchString(s.Image), "image must be pinned, not %q", s.Image)
		return wrong
	}
	wrong.when(!isCommand(s.Command), "runs no command of ours: %q", s.Command)
	wrong.when(len(s.Healthcheck.Test) < 3 || !isCommand(s.Healthcheck.Test[2:]), "healthcheck runs no command of ours: %q", s.Healthcheck.Test)
	drain := Default().Envoy.Drain
	grace, err := time.ParseDuration(s.StopGrace)
	wrong.when(err != nil || grace <= drain, "stop_grace_period is not above the drain time %s", drain)
	return wrong
}

// pinnedImage is an image with a whole version (PostgreSQL's has two numbers),
// which a variable may replace, by one with a digest for example.
var pinnedImage = regexp.MustCompile(`^\$\{[A-Z]+_IMAGE:-([a-z]+/)?([a-z]+:v?[0-9]+\.[0-9]+\.[0-9]+|postgres:[0-9]+\.[0-9]+)(-[0-9a-z.]+)?\}$`)

// networkNames reads both forms: a list, and a map with aliases.
func networkNames(value any) (names []string) {
	switch v := value.(type) {
	case []any:
		for _, name := range v {
			names = append(names, fmt.Sprint(name))
		}
	case map[string]any:
		names = slices.Collect(maps.Keys(v))
	}
	slices.Sort(names)
	return names
}

// passingProblems: the environment passes settings on under their own names,
// empty for "not set", and the build arguments have one default, not two.
func passingProblems(s composeService, args map[string]string) (problems []string) {
	for name, value := range s.Environment {
		wants := []string{"${" + name + ":-}"}
		switch {
		case strings.HasPrefix(name, "GF_") && strings.Contains(name, "PASSWORD"):
			wants = []string{"/run/secrets/grafana_admin_password"}
		case strings.HasPrefix(name, "POSTGRES_"), strings.HasPrefix(name, "GF_"), name == "GOMEMLIMIT":
			continue // of other programs
		case name == "LLMGW_METRICS__LISTEN":
			wants = []string{metricsAddress} // not from a .env, which may say where a gateway beside it listens
		case name == "REDIS_HOST":
			wants = []string{"redis"}
		case name == replicasSetting:
			wants = append(wants, "${"+name+":-3}")
		case !slices.Contains(envNames(), name):
			problems = append(problems, name+" is no setting")
		}
		if !slices.Contains(wants, value) {
			problems = append(problems, fmt.Sprintf("%s must be %s", name, strings.Join(wants, " or ")))
		}
	}
	for name, value := range s.Build.Args {
		byDefault, known := strings.CutPrefix(strings.TrimSuffix(value, "}"), "${"+name+":-")
		if fallback, ok := args[name]; !known || !ok || byDefault != fallback {
			problems = append(problems, fmt.Sprintf("argument %s defaults to %s, in the Dockerfile to %s", name, byDefault, fallback))
		}
	}
	return problems
}

var interpolated = regexp.MustCompile(`\$\{([A-Z0-9_]+)`)

// sharedNames: compose and a gateway that is started beside the file read the
// same .env, so that no variable of the one may be a mistake to the other.
func sharedNames(compose string) (problems []string) {
	for _, match := range interpolated.FindAllStringSubmatch(compose, -1) {
		if len(unknownNames(map[string]given{match[1]: {text: "x", origin: match[1]}})) > 0 {
			problems = append(problems, match[1]+" in a .env is refused by the gateway itself")
		}
	}
	return problems
}

// listenPort is the port of a gateway that nobody has configured.
func listenPort() string {
	listen := Default().Listen
	return listen[strings.LastIndex(listen, ":")+1:]
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
}
