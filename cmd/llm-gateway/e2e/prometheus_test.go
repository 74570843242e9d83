//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

const deployFolder = "../../../deploy/"

// TestPrometheusFindsAllThatIsAskedOfIt: a Prometheus with the project's own
// configuration scrapes a gateway to which everything happens. Each query of the
// dashboard then has an answer, each metric that an alert reads exists, and each
// alert can be worked out.
func TestPrometheusFindsAllThatIsAskedOfIt(t *testing.T) {
	metrics, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	redis := rig.StartRedis(t)
	g := start(t, setup{env: []string{
		"LLMGW_METRICS__LISTEN=" + metrics, "LLMGW_METRICS__MODELS=m-1,m-2",
		"REDIS_URL=redis://" + redis.Addr, "LLM_TIMEOUT=5s",
	}})
	p := startPrometheus(t, metrics)
	everything(g, redis)

	queries := dashboardQueries(t)
	if len(queries) < 30 {
		t.Fatalf("%d queries only", len(queries))
	}
	alerts := p.alerts()
	if len(alerts) < 20 {
		t.Fatalf("%d alerts only", len(alerts))
	}
	for _, a := range alerts {
		if a.Health != "ok" {
			t.Errorf("%s is %q: %s", a.Name, a.Health, a.LastError)
		}
		for _, name := range metricName.FindAllStringSubmatch(a.Query, -1) {
			queries = append(queries, query{a.Name, name[1] + `{job="llm-gateway"}`})
		}
	}
	for _, q := range queries {
		end := time.Now().Add(10 * time.Second)
		n, err := p.finite(q.expr)
		for ; err == nil && n == 0 && time.Now().Before(end); n, err = p.finite(q.expr) {
			time.Sleep(200 * time.Millisecond)
		}
		if n == 0 {
			t.Errorf("%s: no data for %s (%v)", q.where, q.expr, err)
		}
	}
	if n, err := p.finite(`llmgw_no_such_metric{job="llm-gateway"}`); n != 0 || err != nil {
		t.Errorf("a metric that does not exist has %d series, %v", n, err)
	}
}

// metricName finds the metrics in an alert: what stands before a selector.
var metricName = regexp.MustCompile(`\b([a-z_]+)\{`)

// everything lets all that the metrics tell apart happen, again and again until
// the test ends; Redis goes away once it was used.
func everything(g *gateway, redis *rig.Redis) {
	g.t.Helper()
	free, limited := g.key(), g.key("--rpm", "1")
	poor, err := g.cli.CreateKey(1)
	if err != nil {
		g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	g.t.Cleanup(func() { cancel(); running.Wait() })
	client := g.client(false)
	chat := func(key string, c rig.Chat, leave rig.Abort) {
		client.Do(ctx, rig.Request{Key: key, Body: c.Body(), Abort: leave})
	}
	used := rig.Script{Prompt: 11, Completion: 7}
	round := func(n int) {
		model := fmt.Sprintf("m-%d", 1+n%3)
		chat(free.Key, rig.Chat{Model: model, Script: used}, rig.Abort{})
		chat(free.Key, rig.Chat{Model: model, Stream: true, Script: used}, rig.Abort{})
		chat(free.Key, rig.Chat{Model: model, Script: rig.Script{Prompt: 1, Completion: 7, Usage: rig.UsageNone}}, rig.Abort{})
		chat(free.Key, rig.Chat{Model: model, Stream: true, Script: rig.Script{Prompt: 3, Completion: 7, ChunkDelayMS: 50}}, rig.Abort{Events: 1})
		chat(free.Key, rig.Chat{Model: model, Script: rig.Script{Status: 500}}, rig.Abort{})
		chat(free.Key, rig.Chat{Model: model, Script: rig.Script{End: rig.EndReset}}, rig.Abort{})
		chat(limited.Key, rig.Chat{Model: model, Script: used}, rig.Abort{})
		chat(poor.Key, rig.Chat{Model: model, Script: used}, rig.Abort{})
		chat("sk-unknown", rig.Chat{Model: model}, rig.Abort{})
	}
	round(0)
	redis.Kill()
	running.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			round(n)
			pause(ctx, 100*time.Millisecond)
		}
	})
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// query is one of a panel, or what an alert reads.
type query struct{ where, expr string }

// dashboardQueries are those of all panels, as Grafana would ask them of all
// gateways. Its rate interval is four scrapes.
func dashboardQueries(t *testing.T) (all []query) {
	t.Helper()
	text, err := os.ReadFile(deployFolder + "grafana/dashboards/llm-gateway.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "4s", "$instance", ".*")
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			expr := variables.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: a variable that nobody replaces: %s", panel.Title, expr)
			}
			all = append(all, query{panel.Title, expr})
		}
	}
	return all
}

// prometheus is a server of a test's own.
type prometheus struct {
	t   *testing.T
	url string
}

// startPrometheus runs it with deploy/prometheus/prometheus.yml, in which only
// the target and the intervals are others.
func startPrometheus(t *testing.T, target string) prometheus {
	t.Helper()
	binary := rig.Tool(t, "prometheus")
	addr, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config, err := os.ReadFile(deployFolder + "prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("127.0.0.1:9464", target, "_interval: 15s", "_interval: 1s").Replace(string(config))
	if strings.Count(changed, target) < 2 || strings.Count(changed, "_interval: 1s") != 2 { // the head of the file names the target too
		t.Fatalf("the target and the intervals are not where they were:\n%s", changed)
	}
	rules, err := os.ReadFile(deployFolder + "prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"prometheus.yml": []byte(changed), "alerts.yml": rules} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	proc, err := rig.Start(rig.Spec{Name: "prometheus", Path: binary, Dir: dir, Logs: dir, Args: []string{
		"--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--web.listen-address=" + addr,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(proc.Tail(20))
		}
		proc.Kill()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := rig.WaitHealthy(ctx, "http://"+addr+"/-/ready", proc); err != nil {
		t.Fatal(err)
	}
	return prometheus{t, "http://" + addr}
}

// get asks the HTTP API.
func (p prometheus) get(path string, data any) error {
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Data  any
		Error string
	}{Data: data}
	if err := json.Unmarshal(text, &answer); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%d %s, %w", res.StatusCode, answer.Error, err)
	}
	return nil
}

// finite counts the series of an expression that have a number now.
func (p prometheus) finite(expr string) (n int, err error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := p.get("/api/v1/query?query="+url.QueryEscape(expr), &data); err != nil {
		return 0, err
	}
	for _, series := range data.Result {
		v, err := strconv.ParseFloat(fmt.Sprint(series.Value[1]), 64)
		if err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			n++
		}
	}
	return n, nil
}

// alertState is what Prometheus thinks of one alert.
type alertState struct {
	Name, Query, Health, LastError string
}

// alerts waits until each alert has been worked out.
func (p prometheus) alerts() (all []alertState) {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var data struct {
			Groups []struct{ Rules []alertState }
		}
		if err := p.get("/api/v1/rules", &data); err != nil {
			p.t.Fatal(err)
		}
		all = nil
		waiting := false
		for _, group := range data.Groups {
			for _, rule := range group.Rules {
				waiting = waiting || rule.Health == "unknown"
				all = append(all, rule)
			}
		}
		if !waiting {
			break
		}
	}
	return all
}
