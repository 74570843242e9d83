package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/MaksimVF/llm-gateway/api"
	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// newRegistry holds the metrics of the process and of the rooms that keep
// figures by themselves; the gate adds its own.
func newRegistry(book *billing.Book, limiter *ratelimit.Limiter) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newLimiterMetrics(limiter.Status),
		newBookMetrics(book.Stats),
	)
	return registry
}

// metricsHandler serves GET /metrics. It belongs on an internal listener.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// figures turns a snapshot into metrics whenever somebody looks: nothing is
// counted twice, and a request pays nothing for being counted.
type figures struct {
	descs   []*prometheus.Desc
	collect func(chan<- prometheus.Metric)
}

// Describe implements [prometheus.Collector].
func (f *figures) Describe(out chan<- *prometheus.Desc) {
	for _, d := range f.descs {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (f *figures) Collect(out chan<- prometheus.Metric) { f.collect(out) }

func (f *figures) desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, labels, nil)
	f.descs = append(f.descs, d)
	return d
}

func newLimiterMetrics(status func() ratelimit.Status) prometheus.Collector {
	f := &figures{}
	fallback := f.desc("llmgw_ratelimit_fallback", "1 while a configured Redis is away and each gateway keeps its share of the rate limits in memory.")
	decisions := f.desc("llmgw_ratelimit_decisions_total", "Decisions of the rate limits, by the storage that made them.", "storage")
	switches := f.desc("llmgw_ratelimit_switches_total", "Changes between Redis and memory.")
	failures := f.desc("llmgw_ratelimit_redis_errors_total", "Redis calls that failed, by kind.", "kind")
	subjects := f.desc("llmgw_ratelimit_subjects", "Keys whose windows are held in memory.")
	dropped := f.desc("llmgw_ratelimit_dropped_total", "Corrections and journal entries given up because their queue was full.")
	f.collect = func(out chan<- prometheus.Metric) {
		s := status()
		away := 0.0
		if s.Configured && s.Storage == ratelimit.StorageMemory {
			away = 1
		}
		out <- prometheus.MustNewConstMetric(fallback, prometheus.GaugeValue, away)
		for storage, n := range s.Decisions {
			out <- prometheus.MustNewConstMetric(decisions, prometheus.CounterValue, float64(n), storage)
		}
		for kind, n := range s.RedisErrors {
			out <- prometheus.MustNewConstMetric(failures, prometheus.CounterValue, float64(n), kind)
		}
		out <- prometheus.MustNewConstMetric(switches, prometheus.CounterValue, float64(s.Switches))
		out <- prometheus.MustNewConstMetric(subjects, prometheus.GaugeValue, float64(s.Subjects))
		out <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(s.Dropped))
	}
	return f
}

// newComponentMetrics tells what GET /health tells, to those who only read metrics.
// The components are asked at each scrape, all at the same time and for at most
// [probeWait] together, so that one that hangs costs a scrape no more than that.
func newComponentMetrics(components []api.Component) prometheus.Collector {
	f := &figures{}
	healthy := f.desc("llmgw_component_healthy", "1 while a part of the gateway works, as GET /health names them.", "component")
	f.collect = func(out chan<- prometheus.Metric) {
		ctx, cancel := context.WithTimeout(context.Background(), probeWait)
		defer cancel()
		var asked sync.WaitGroup
		for _, c := range components {
			asked.Go(func() {
				works := 0.0
				if c.Works(ctx) == nil {
					works = 1
				}
				out <- prometheus.MustNewConstMetric(healthy, prometheus.GaugeValue, works, c.Name)
			})
		}
		asked.Wait()
	}
	return f
}

func newBookMetrics(stats func() billing.Stats) prometheus.Collector {
	f := &figures{}
	keys := f.desc("llmgw_books_keys", "Keys in the books, revoked ones included.")
	holds := f.desc("llmgw_books_open_holds", "Holds of this gateway that are open.")
	queue := f.desc("llmgw_books_queue_depth", "Operations that wait for the writer.")
	spilled := f.desc("llmgw_books_spilled", "Charges in the spill file that the database does not have yet.")
	late := f.desc("llmgw_books_settle_late_total", "Charges that went to the spill file because the database was slow.")
	replicas := f.desc("llmgw_books_replicas", "Gateways that share the books and are alive.")
	recovered := f.desc("llmgw_books_recovered_total", "Holds of gateways that died which this one ended.")
	abandoned := f.desc("llmgw_books_reserves_abandoned_total", "Reserves given up because the database was slow.")
	commits := f.desc("llmgw_books_commits_total", "Transactions of the writer, by outcome.", "outcome")
	f.collect = func(out chan<- prometheus.Metric) {
		s := stats()
		for desc, n := range map[*prometheus.Desc]int64{keys: s.Keys, holds: s.OpenHolds, queue: s.QueueDepth, spilled: s.Spilled, replicas: s.Replicas} {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n))
		}
		for desc, n := range map[*prometheus.Desc]int64{late: s.SettleLate, abandoned: s.Abandoned, recovered: s.Recovered} {
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n))
		}
		out <- prometheus.MustNewConstMetric(commits, prometheus.CounterValue, float64(s.Commits), "done")
		out <- prometheus.MustNewConstMetric(commits, prometheus.CounterValue, float64(s.FailedCommits), "failed")
	}
	return f
}
