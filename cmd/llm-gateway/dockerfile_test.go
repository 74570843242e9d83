package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// imageStage is one target of the Dockerfile: its base and its instructions, the
// last of each name.
type imageStage struct {
	name, base string
	last       map[string]string
	chown      bool // a COPY gives the volume to the user
}

// imageWants are the stages that become images, and what they say.
var imageWants = map[string]struct {
	expose string
	data   bool // keeps books
}{
	"gateway":    {"12001 12002 12003", true},
	"envoy":      {"12000", false},
	"all-in-one": {"12000", true},
}

// stages cuts a Dockerfile at its FROM lines.
func stages(all []instruction) (list []imageStage) {
	for _, i := range all {
		if i.name == "FROM" {
			base, name, _ := strings.Cut(i.text, " AS ")
			list = append(list, imageStage{name: name, base: base, last: map[string]string{}})
			continue
		}
		if len(list) == 0 {
			continue
		}
		stage := &list[len(list)-1]
		stage.last[i.name] = i.text
		stage.chown = stage.chown || i.name == "COPY" && strings.Contains(i.text, "--chown="+containerUser+" ")
	}
	return list
}

func dockerfileProblems(all []instruction) (problems []string) {
	for _, i := range all {
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
	found := 0
	for _, stage := range stages(all) {
		if _, ok := imageWants[stage.name]; ok {
			found++
			problems = append(problems, prefixed(stage.name, stageProblems(stage))...)
		}
	}
	if found != len(imageWants) {
		problems = append(problems, fmt.Sprintf("%d of %d images", found, len(imageWants)))
	}
	return prefixed("Dockerfile", problems)
}

func stageProblems(stage imageStage) (problems []string) {
	want := imageWants[stage.name]
	values := map[string]string{"USER": containerUser, "EXPOSE": want.expose}
	if want.data {
		values["VOLUME"] = "/data"
		if !stage.chown {
			problems = append(problems, "no COPY gives "+containerUser+" the volume")
		}
	}
	for name, value := range values {
		if stage.last[name] != value {
			problems = append(problems, fmt.Sprintf("%s must be %s, not %q", name, value, stage.last[name]))
		}
	}
	return append(problems, commandProblems(stage.last)...)
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
		if !isCommand(args) {
			problems = append(problems, fmt.Sprintf("%s runs no command of ours: %q", name, args))
		}
	}
	return problems
}

// isCommand says whether the program accepts the arguments.
func isCommand(args []string) bool {
	root := newRootCommand(&app{stdout: io.Discard, stderr: io.Discard})
	cmd, rest, err := root.Find(args)
	return err == nil && cmd != root && cmd.ParseFlags(rest) == nil
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
