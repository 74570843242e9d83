package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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
)

// composeFile is what docker-compose.yaml may say. A key that is not here is an
// error: whoever adds one decides whether it weakens the container, and whether
// docker-compose 1.29 knows it too.
type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]any            `yaml:"volumes"`
}

type composeService struct {
	Image       string            `yaml:"image"`
	Build       composeBuild      `yaml:"build"`
	Ports       []string          `yaml:"ports"`
	Environment map[string]string `yaml:"environment"`
	ExtraHosts  []string          `yaml:"extra_hosts"`
	Volumes     []string          `yaml:"volumes"`
	ReadOnly    bool              `yaml:"read_only"`
	Tmpfs       []string          `yaml:"tmpfs"`
	Privileged  bool              `yaml:"privileged"`
	CapDrop     []string          `yaml:"cap_drop"`
	CapAdd      []string          `yaml:"cap_add"`
	SecurityOpt []string          `yaml:"security_opt"`
	MemLimit    string            `yaml:"mem_limit"`
	Restart     string            `yaml:"restart"`
	StopGrace   string            `yaml:"stop_grace_period"`
}

type composeBuild struct {
	Context    string            `yaml:"context"`
	Dockerfile string            `yaml:"dockerfile"`
	Args       map[string]string `yaml:"args"`
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
	directive := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(readFile(t, "../../go.mod"))
	if directive == nil || !strings.HasPrefix(args["GO_IMAGE"], "golang:"+string(directive[1])+"-") {
		t.Errorf("GO_IMAGE is %q, go.mod wants %s", args["GO_IMAGE"], directive)
	}
}

// TestDeployProblems breaks each rule once: a check that finds nothing proves
// nothing.
func TestDeployProblems(t *testing.T) {
	compose, dockerfile := string(readFile(t, composePath)), string(readFile(t, dockerfilePath))
	for _, c := range []struct{ file, old, fresh, want string }{
		{composePath, "read_only: true", "read_only: false", "gateway: the root file system must be read-only"},
		{composePath, "read_only: true", "read_only: true\n    privileged: true", "gateway: privileged"},
		{composePath, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "gateway: cap_drop must be ALL"},
		{composePath, "    cap_drop: [ALL]\n", "", "gateway: cap_drop must be ALL"},
		{composePath, "cap_drop: [ALL]", "cap_drop: [ALL]\n    cap_add: [NET_ADMIN]", "gateway: cap_add"},
		{composePath, `["no-new-privileges:true"]`, "[]", "gateway: no-new-privileges is missing"},
		{composePath, "mem_limit: 1g", "network_mode: host", "docker-compose.yaml: yaml"},
		{composePath, ":-12000}:12000", ":-12000}:8000", "gateway: ports must be ${LLMGW_PORT:-12000}:12000"},
		{composePath, "- data:/data", "- data:/data\n      - /:/host", "gateway: volumes must be data:/data"},
		{composePath, "stop_grace_period: 40s", "stop_grace_period: 30s", "gateway: stop_grace_period is not above the drain time 30s"},
		{composePath, "LOG_LEVEL: ${LOG_LEVEL:-}", "LOGLEVEL: ${LOGLEVEL:-}", "gateway: LOGLEVEL is no setting"},
		{composePath, "${API_DAILY_LIMIT:-}", "${API_MONTHLY_LIMIT:-}", "gateway: API_DAILY_LIMIT must be ${API_DAILY_LIMIT:-}"},
		{composePath, "${LOG_LEVEL:-}", "${LOG_LEVEL:-info}", "gateway: LOG_LEVEL must be ${LOG_LEVEL:-}"},
		{composePath, "${VERSION:-dev}", "${LLMGW_VERSION:-dev}", "docker-compose.yaml: LLMGW_VERSION in a .env is refused by the gateway itself"},
		{composePath, ":-dev}", ":-1.0}", "gateway: argument VERSION defaults to 1.0, in the Dockerfile to dev"},
		{dockerfilePath, "USER 65532:65532", "USER root", "Dockerfile: USER must be 65532:65532"},
		{dockerfilePath, "USER 65532:65532\n", "", "Dockerfile: USER must be 65532:65532"},
		{dockerfilePath, "EXPOSE 12000", "EXPOSE 8080", "Dockerfile: EXPOSE must be 12000"},
		{dockerfilePath, "VOLUME /data", "VOLUME /var", "Dockerfile: VOLUME must be /data"},
		{dockerfilePath, "--chown=65532:65532 ", "", "Dockerfile: no COPY gives 65532:65532 the volume"},
		{dockerfilePath, "ENV LLMGW_DATA=", "ENV LLMGW_DATE=", "Dockerfile: LLMGW_DATE is no setting"},
		{dockerfilePath, `"healthcheck"]`, `"healthchecks"]`, "Dockerfile: HEALTHCHECK runs no command of ours"},
		{dockerfilePath, `["up", "--data", "/data"]`, `["up", "--dat", "/data"]`, "Dockerfile: CMD runs no command of ours"},
		{dockerfilePath, `ENTRYPOINT ["/usr/local/bin/llm-gateway"]`, "ENTRYPOINT llm-gateway", "Dockerfile: ENTRYPOINT: write a JSON list, the image has no shell"},
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
	if diff := cmp.Diff([]string{"gateway"}, slices.Sorted(maps.Keys(file.Services))); diff != "" {
		problems = append(problems, "docker-compose.yaml: services (-want +got):\n"+diff)
	}
	for name, service := range file.Services {
		problems = append(problems, prefixed(name, hardeningProblems(service))...)
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

// hardeningProblems: what the container may do is what the gateway needs.
func hardeningProblems(s composeService) (problems []string) {
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	wrong(s.Privileged, "privileged")
	wrong(!s.ReadOnly, "the root file system must be read-only")
	wrong(!slices.Equal(s.CapDrop, []string{"ALL"}), "cap_drop must be ALL, not %q", s.CapDrop)
	wrong(len(s.CapAdd) > 0, "cap_add %q", s.CapAdd)
	wrong(!slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "no-new-privileges is missing")
	wrong(!slices.Equal(s.Volumes, []string{"data:/data"}), "volumes must be data:/data, not %q", s.Volumes)
	wrong(s.MemLimit == "", "mem_limit is missing")
	port := listenPort()
	want := "${LLMGW_PORT:-" + port + "}:" + port
	wrong(!slices.Equal(s.Ports, []string{want}), "ports must be %s, not %q", want, s.Ports)
	drain := Default().Envoy.Drain
	grace, err := time.ParseDuration(s.StopGrace)
	wrong(err != nil || grace <= drain, "stop_grace_period is not above the drain time %s", drain)
	return problems
}

// passingProblems: the environment passes settings on under their own names,
// empty for "not set", and the build arguments have one default, not two.
func passingProblems(s composeService, args map[string]string) (problems []string) {
	for name, value := range s.Environment {
		if !slices.Contains(envNames(), name) {
			problems = append(problems, name+" is no setting")
		}
		if want := "${" + name + ":-}"; value != want {
			problems = append(problems, fmt.Sprintf("%s must be %s", name, want))
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
		if len(unknownNames(map[string]string{match[1]: "x"})) > 0 {
			problems = append(problems, match[1]+" in a .env is refused by the gateway itself")
		}
	}
	return problems
}

// dockerfileProblems looks at the last stage, which becomes the image.
func dockerfileProblems(all []instruction) (problems []string) {
	last := map[string]string{}
	chown := false
	for _, i := range all {
		if i.name == "FROM" {
			last, chown = map[string]string{}, false
		}
		last[i.name] = i.text
		chown = chown || i.name == "COPY" && strings.Contains(i.text, "--chown="+containerUser+" ")
		if i.name == "ENV" {
			for _, assignment := range strings.Fields(i.text) {
				if name, _, _ := strings.Cut(assignment, "="); !slices.Contains(envNames(), name) {
					problems = append(problems, name+" is no setting")
				}
			}
		}
		if flag := buildKitFlag.FindString(i.text); flag != "" && (i.name == "RUN" || i.name == "COPY" || i.name == "FROM") {
			problems = append(problems, i.name+" "+flag+" needs BuildKit")
		}
	}
	for name, want := range map[string]string{"USER": containerUser, "EXPOSE": listenPort(), "VOLUME": "/data"} {
		if last[name] != want {
			problems = append(problems, fmt.Sprintf("%s must be %s, not %q", name, want, last[name]))
		}
	}
	if !chown {
		problems = append(problems, "no COPY gives "+containerUser+" the volume")
	}
	return prefixed("Dockerfile", append(problems, commandProblems(last)...))
}

// buildKitFlag are the options of instructions that the classic builder lacks.
var buildKitFlag = regexp.MustCompile(`^--(mount|network|security|link|chmod|exclude|parents|platform)`)

// commandProblems reads what the image runs the way the program will.
func commandProblems(last map[string]string) (problems []string) {
	_, health, _ := strings.Cut(last["HEALTHCHECK"], "CMD ")
	lists := map[string][]string{}
	for name, text := range map[string]string{"ENTRYPOINT": last["ENTRYPOINT"], "CMD": last["CMD"], "HEALTHCHECK": health} {
		var words []string
		if err := json.Unmarshal([]byte(text), &words); err != nil || len(words) == 0 {
			problems = append(problems, name+": write a JSON list, the image has no shell")
			continue
		}
		lists[name] = words
	}
	if len(problems) > 0 {
		return problems
	}
	program := lists["ENTRYPOINT"]
	if !slices.Equal(program, lists["HEALTHCHECK"][:1]) || !strings.HasPrefix(program[0], "/") {
		problems = append(problems, fmt.Sprintf("ENTRYPOINT %q and HEALTHCHECK must be the program by its path", program))
	}
	for name, args := range map[string][]string{"CMD": lists["CMD"], "HEALTHCHECK": lists["HEALTHCHECK"][1:]} {
		root := newRootCommand(&app{stdout: io.Discard, stderr: io.Discard})
		cmd, rest, err := root.Find(args)
		if err != nil || cmd == root || cmd.ParseFlags(rest) != nil {
			problems = append(problems, fmt.Sprintf("%s runs no command of ours: %q", name, args))
		}
	}
	return problems
}

// listenPort is the port of a gateway that nobody has configured.
func listenPort() string {
	listen := Default().Listen
	return listen[strings.LastIndex(listen, ":")+1:]
}

// instructions reads a Dockerfile: comments go, continuation lines are joined.
func instructions(dockerfile string) (all []instruction) {
	var text strings.Builder
	for line := range strings.Lines(dockerfile) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		more, continued := strings.CutSuffix(line, `\`)
		text.WriteString(more)
		if continued {
			continue
		}
		name, rest, _ := strings.Cut(text.String(), " ")
		all = append(all, instruction{strings.ToUpper(name), strings.TrimSpace(rest)})
		text.Reset()
	}
	return all
}

// arguments are the ARGs of a Dockerfile and their defaults.
func arguments(all []instruction) map[string]string {
	args := map[string]string{}
	for _, i := range all {
		if i.name == "ARG" {
			name, value, _ := strings.Cut(i.text, "=")
			args[name] = value
		}
	}
	return args
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
}
