package ratelimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// Measured with
//
//	go test -run '^$' -bench . -benchmem -count 6 ./ratelimit
func benchmarkTake(b *testing.B, l *Limiter, limits Limits) {
	subjects := make([]string, 1000)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("key_%d", i)
	}
	var worker atomic.Int64
	var refused, away atomic.Int64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		me := worker.Add(1)
		for i := int(me) * 7919; pb.Next(); i++ {
			a := Ask{ID: fmt.Sprintf("id-%d-%d", me, i), Subject: subjects[i%len(subjects)], Limits: limits, Tokens: 1000, MinTokens: 1}
			d, err := l.Take(context.Background(), a)
			if err != nil {
				b.Errorf("%+v, %v", d, err)
				return
			}
			if d.Storage == StorageMemory && l.remote != nil {
				away.Add(1)
			}
			if !d.Allowed {
				refused.Add(1)
				continue
			}
			l.Settle(a, d, 300)
		}
	})
	b.ReportMetric(float64(refused.Load())/float64(b.N), "refused/op")
	b.ReportMetric(float64(away.Load())/float64(b.N), "away/op") // more than 50 ms on a busy machine
}

func BenchmarkTakeAndSettle(b *testing.B) {
	all := Limits{Requests: Limit{1_000_000, time.Minute}, Tokens: Limit{1 << 40, time.Minute}, Concurrent: 1000}
	kinds := []struct {
		name   string
		limits Limits
	}{
		{"requests", requests(1000, time.Second)},
		{"refused", requests(1, time.Hour)},
		{"all", all},
	}
	for _, k := range kinds {
		b.Run("memory/"+k.name, func(b *testing.B) {
			l, err := New(Options{})
			if err != nil {
				b.Fatal(err)
			}
			benchmarkTake(b, l, k.limits)
		})
	}
	for _, k := range kinds {
		b.Run("redis/"+k.name, func(b *testing.B) {
			benchmarkTake(b, onRedis(b, Options{}, rig.StartRedis(b).Addr), k.limits)
		})
	}
}
