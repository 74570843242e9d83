package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const prometheusFolder = "../../deploy/prometheus/"

// alertFile is what is read of alerts.yml here; promtool reads all of it.
type alertFile struct {
	Groups []struct {
		Rules []struct {
			Alert       string            `yaml:"alert"`
			Expr        string            `yaml:"expr"`
			Labels      map[string]string `yaml:"labels"`
			Annotations map[string]string `yaml:"annotations"`
		} `yaml:"rules"`
	} `yaml:"groups"`
}

// alertTests is what is read of alerts_test.yml here.
type alertTests struct {
	Tests []struct {
		Name    string `yaml:"name"`
		Queries []struct {
			Expected []struct {
				Labels string `yaml:"labels"`
			} `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	} `yaml:"tests"`
}

func TestPromtool(t *testing.T) {
	promtool := rig.Tool(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", prometheusFolder + "prometheus.yml"},
		{"check", "config", prometheusFolder + "compose.yml"},
		{"check", "rules", "--lint-fatal", prometheusFolder + "alerts.yml"},
		{"test", "rules", prometheusFolder + "alerts_test.yml"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Whoever is woken by an alert finds in it what happened and what to do, and
// each alert was seen firing and keeping quiet.
func TestAlerts_areExplainedAndTested(t *testing.T) {
	alerts, tests := string(readFile(t, prometheusFolder+"alerts.yml")), string(readFile(t, prometheusFolder+"alerts_test.yml"))
	for _, problem := range alertProblems(t, alerts, tests) {
		t.Error(problem)
	}
	for _, c := range []struct{ old, fresh, want string }{
		{"runbook:", "notes:", "LLMGatewayDown: no runbook"},
		{"  severity: critical", "  severity: page", `LLMGatewayDown: severity "page"`},
		{`up{job="llm-gateway"} == 0`, "up == 0", "LLMGatewayDown: looks at every job"},
		{"alert: LLMGatewayAbsent", "alert: LLMGatewayMissing", "LLMGatewayMissing: no test lets it fire"},
	} {
		got := strings.Join(alertProblems(t, strings.Replace(alerts, c.old, c.fresh, 1), tests), "\n")
		if !strings.Contains(got, c.want) {
			t.Errorf("%q instead of %q: %q, want %q", c.fresh, c.old, got, c.want)
		}
	}
}

func alertProblems(t *testing.T, alerts, tests string) (problems []string) {
	t.Helper()
	var file alertFile
	if err := yamlv3.Unmarshal([]byte(alerts), &file); err != nil {
		t.Fatal(err)
	}
	var tested alertTests
	if err := yamlv3.Unmarshal([]byte(tests), &tested); err != nil {
		t.Fatal(err)
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range tested.Tests {
		for _, query := range test.Queries {
			quiet[test.Name] = quiet[test.Name] || len(query.Expected) == 0
			for _, sample := range query.Expected {
				fires[test.Name] = fires[test.Name] || strings.Contains(sample.Labels, `alertname="`+test.Name+`"`)
			}
		}
	}
	seen := 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			seen++
			var wrong complaints
			for _, name := range []string{"summary", "description", "runbook"} {
				wrong.when(rule.Annotations[name] == "", "no %s", name)
			}
			severity := rule.Labels["severity"]
			wrong.when(severity != "critical" && severity != "warning", "severity %q", severity)
			wrong.when(!strings.Contains(rule.Expr, `{job="llm-gateway"`), "looks at every job")
			wrong.when(!fires[rule.Alert], "no test lets it fire")
			wrong.when(!quiet[rule.Alert], "no test sees it quiet")
			problems = append(problems, prefixed(rule.Alert, wrong)...)
		}
	}
	if seen == 0 {
		problems = append(problems, "no alerts")
	}
	return problems
}

// dashboard is what is read of a Grafana dashboard here.
type dashboard struct {
	UID    string           `json:"uid"`
	Panels []dashboardPanel `json:"panels"`
}

type dashboardPanel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct {
		Expr       string `json:"expr"`
		Datasource struct {
			UID string `json:"uid"`
		} `json:"datasource"`
	} `json:"targets"`
}

var selector = regexp.MustCompile(`\{[^}]*\}`)

// The end-to-end tests ask each query of a Prometheus; here is what a person
// sees in Grafana.
func TestDashboard_isReadable(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal(readFile(t, "../../deploy/grafana/dashboards/llm-gateway.json"), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || len(d.Panels) == 0 {
		t.Fatal("no dashboard")
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: no title, or an id that another has", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, problem := range panelProblems(p) {
			t.Errorf("%s: %s", p.Title, problem)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken || x >= 24 {
					t.Fatalf("%s lies on %q, or outside", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
	}
}

func panelProblems(p dashboardPanel) (problems []string) {
	if p.Type == "row" || p.Type == "text" {
		return nil
	}
	if p.Description == "" || len(p.Targets) == 0 {
		problems = append(problems, "no description, or no query")
	}
	for _, target := range p.Targets {
		if target.Datasource.UID != "${datasource}" {
			problems = append(problems, "a query asks a data source of its own")
		}
		for _, s := range selector.FindAllString(target.Expr, -1) {
			if !strings.HasPrefix(s, `{job="llm-gateway",instance=~"$instance"`) {
				problems = append(problems, fmt.Sprintf("%s looks at other jobs, or not at the gateways that were chosen", s))
			}
		}
	}
	return problems
}
