package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// finding is one comparison of what was delivered with what the books say. Figures
// are tokens, prompts included.
type finding struct {
	Scenario       string      `json:"scenario"`
	Requests       int         `json:"requests"`
	Answered       int         `json:"answered"` // with status 200
	Budget         int64       `json:"budget,omitempty"`
	Delivered      int64       `json:"delivered_tokens"` // to the clients
	Used           int64       `json:"used_tokens"`      // by the gateway's books
	UsageChunks    int         `json:"usage_chunks"`     // streams whose client received one
	ServerFinished int         `json:"server_finished"`  // answers that the model server sent to their end
	Statuses       map[int]int `json:"statuses"`         // 0: no answer
}

// cost is CPU time of the gateway's processes.
type cost struct {
	Load      string  `json:"load"`
	Requests  int     `json:"requests"`
	Failed    int     `json:"failed"`
	PerSecond float64 `json:"per_second"`
	CPUMicros float64 `json:"cpu_us_per_request"`
	RSSMB     float64 `json:"rss_mb"`
}

// report is everything that a run found.
type report struct {
	Findings []finding `json:"findings"`
	Costs    []cost    `json:"costs"`
}

func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if len(r.Findings) > 0 {
		fmt.Fprintln(w, "scenario\tbudget\tanswered\tdelivered\tin the books\tdifference\tusage chunks\tserver finished\tstatuses")
	}
	for _, f := range r.Findings {
		budget := "-"
		if f.Budget > 0 {
			budget = fmt.Sprint(f.Budget)
		}
		fmt.Fprintf(w, "%s\t%s\t%d of %d\t%d\t%d\t%+d\t%d\t%d\t%s\n", f.Scenario, budget, f.Answered, f.Requests,
			f.Delivered, f.Used, f.Used-f.Delivered, f.UsageChunks, f.ServerFinished, statuses(f.Statuses))
	}
	if len(r.Costs) > 0 {
		fmt.Fprintln(w, "load\trequests\tfailed\ta second\tCPU us a request\tRSS MB")
	}
	for _, c := range r.Costs {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.0f\t%.0f\n", c.Load, c.Requests, c.Failed, c.PerSecond, c.CPUMicros, c.RSSMB)
	}
	return w.Flush()
}

func statuses(m map[int]int) string {
	var out []string
	for _, status := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%d x %d", m[status], status))
	}
	return strings.Join(out, ", ")
}
