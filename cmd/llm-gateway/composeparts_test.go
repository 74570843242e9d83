package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	yamlv3 "go.yaml.in/yaml/v3"
)

const (
	composeParts = "../../deploy/compose/"
	adminPart    = "admin-token.yaml"
	secretsDir   = "${SECRETS_DIR:-./secrets}/"
)

// theGateways are the services that share what is in the books and in Redis.
var theGateways = []string{"gateway", "gateway-2", "gateway-3"}

// TestComposeParts: each part of deploy/compose brings secrets in files, and
// nothing else but what its secret needs.
func TestComposeParts(t *testing.T) {
	base := readCompose(t, string(readFile(t, composePath)))
	brought := map[string]bool{}
	for name, text := range partsOfCompose(t) {
		for _, problem := range partProblems(name, text, base) {
			t.Errorf("%s: %s", name, problem)
		}
		for _, service := range readCompose(t, text).Services {
			for variable := range service.Environment {
				brought[variable] = true
			}
		}
	}
	// REDIS_URL is for a Redis elsewhere, of which compose knows nothing.
	for _, s := range settings() {
		if s.secret && s.env != "REDIS_URL" && !brought[s.env+"_FILE"] {
			t.Errorf("no part brings %s in a file", s.env)
		}
	}
	if !brought["POSTGRES_PASSWORD_FILE"] {
		t.Error("no part brings POSTGRES_PASSWORD in a file")
	}
}

// TestComposeParts_problems breaks each rule once.
func TestComposeParts_problems(t *testing.T) {
	base, parts := readCompose(t, string(readFile(t, composePath))), partsOfCompose(t)
	for _, c := range []struct{ part, old, fresh, want string }{
		{"llm-api-key.yaml", "LLM_API_KEY_FILE: /run/secrets/llm_api_key", "LLM_API_KEY: sk-1", "gateway: LLM_API_KEY must be"},
		{"llm-api-key.yaml", "/run/secrets/llm_api_key", "/run/secrets/other", "gateway: LLM_API_KEY_FILE must be"},
		{"llm-api-key.yaml", "secrets: [llm_api_key]", "secrets: []", "gateway: LLM_API_KEY_FILE must be"},
		{"llm-api-key.yaml", secretsDir, "/etc/", "llm_api_key must be in"},
		{"llm-api-key.yaml", "  llm_api_key:\n", "  llm_key:\n", "llm_api_key is defined nowhere"},
		{"llm-api-key.yaml", "    secrets:", "    user: root\n    secrets:", "gateway: it changes more"},
		{"llm-api-key.yaml", "    secrets:", "    ports: [\"1:1\"]\n    secrets:", "gateway: it changes more"},
		{"llm-api-key.yaml", "gateway-3", "gateway-4", "gateway-4: there is no such service"},
		{"llm-api-key.yaml", "  gateway-3: *gateway\n", "", "gateway-3 does not get what gateway gets"},
		{"database.yaml", `POSTGRES_PASSWORD: ""`, "POSTGRES_PASSWORD: llmgw", "postgres: POSTGRES_PASSWORD must be"},
		{"redis-password.yaml", `"noeviction"`, `"allkeys-lru"`, "redis: its command differs"},
		{adminPart, "127.0.0.1:${ADMIN_PORT", "${ADMIN_PORT", "gateway: ports must be"},
		{adminPart, "watching:", "public:", "gateway: networks must be"},
	} {
		if !strings.Contains(parts[c.part], c.old) {
			t.Errorf("%q is not in %s", c.old, c.part)
			continue
		}
		got := partProblems(c.part, strings.Replace(parts[c.part], c.old, c.fresh, 1), base)
		if !slices.ContainsFunc(got, func(problem string) bool { return strings.HasPrefix(problem, c.want) }) {
			t.Errorf("%q instead of %q: got %q, want %q", c.fresh, c.old, got, c.want)
		}
	}
}

func partsOfCompose(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(composeParts + "*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("parts of compose: %v, %v", paths, err)
	}
	parts := map[string]string{}
	for _, path := range paths {
		parts[filepath.Base(path)] = string(readFile(t, path))
	}
	return parts
}

func readCompose(t *testing.T, text string) (file composeFile) {
	t.Helper()
	decoder := yamlv3.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	return file
}

func partProblems(name, text string, base composeFile) []string {
	var wrong complaints
	var part composeFile
	decoder := yamlv3.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&part); err != nil {
		return []string{err.Error()}
	}
	for secret, from := range part.Secrets {
		file, below := strings.CutPrefix(from.File, secretsDir)
		wrong.when(!below || strings.Contains(file, "/"), "%s must be in %s, not %s", secret, secretsDir, from.File)
	}
	for service, s := range part.Services {
		of, known := base.Services[service]
		wrong.when(!known, "%s: there is no such service", service)
		for _, secret := range s.Secrets {
			_, defined := part.Secrets[secret]
			wrong.when(!defined, "%s is defined nowhere", secret)
		}
		wrong = append(wrong, prefixed(service, fileProblems(s))...)
		wrong = append(wrong, prefixed(service, moreProblems(name, s, of))...)
	}
	if name != adminPart {
		for _, service := range theGateways {
			wrong.when(fmt.Sprint(part.Services[service]) != fmt.Sprint(part.Services["gateway"]), "%s does not get what gateway gets", service)
		}
	}
	return wrong
}

// fileProblems: the variables of a part name files that it mounts.
func fileProblems(s composeService) []string {
	var wrong complaints
	for _, variable := range slices.Sorted(maps.Keys(s.Environment)) {
		value := s.Environment[variable]
		switch variable {
		case "POSTGRES_PASSWORD":
			wrong.when(value != "", "POSTGRES_PASSWORD must be empty beside the file")
		case "LLMGW_ADMIN__LISTEN":
			wrong.when(value != "0.0.0.0:12090", "LLMGW_ADMIN__LISTEN must be 0.0.0.0:12090")
		default:
			secret, mounted := strings.CutPrefix(value, "/run/secrets/")
			file := strings.HasSuffix(variable, "_FILE") && (slices.Contains(envNames(), variable) || variable == "POSTGRES_PASSWORD_FILE")
			wrong.when(!file || !mounted || !slices.Contains(s.Secrets, secret), "%s must be a file of /run/secrets that is mounted", variable)
		}
	}
	return wrong
}

// moreProblems: but for these two, a part leaves everything else as it is.
func moreProblems(name string, s, base composeService) []string {
	var wrong complaints
	if name == adminPart {
		// Loopback alone: the API is plain HTTP.
		wrong.when(!slices.Equal(s.Ports, []string{"127.0.0.1:${ADMIN_PORT:-12090}:12090"}), "ports must be those of 127.0.0.1, not %q", s.Ports)
		wrong.when(!slices.Equal(networkNames(s.Networks), []string{"watching"}), "networks must be watching, not %v", s.Networks)
		s.Ports, s.Networks = nil, nil
	}
	if len(s.Command) > 1 {
		with := slices.Insert(slices.Clone(base.Command), 1, "/run/secrets/redis_conf")
		wrong.when(!slices.Equal(s.Command, with), "its command differs from docker-compose.yaml by more than the file")
		s.Command = nil
	}
	s.Environment, s.Secrets = nil, nil
	wrong.when(fmt.Sprint(s) != fmt.Sprint(composeService{}), "it changes more than secrets")
	return wrong
}
