package billing

import (
	"context"
	"sync"
	"testing"
)

// A report is of one instant: while charges are posted, its days, its total and
// its split by provenance agree in every answer.
func testAReportIsOfOneInstant(t *testing.T, at home) {
	const reports, spenders = 40, 4
	b, k := setup(t, at.options(t, newClock("2026-11-24T12:00:00Z")), Limits{})
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range spenders {
		wg.Go(func() {
			for ctx.Err() == nil {
				h, err := b.Reserve(context.Background(), ask(k.ID, 30))
				if err == nil {
					err = b.Settle(context.Background(), h.ID, Outcome{Prompt: 10, Completion: 13, Provenance: Reported})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range reports {
		r := report(t, b, k.ID, "2026-11-24", "2026-11-24")
		split := r.Provenance[Reported]
		used := DayUsage{Day: r.Today.Day, Tokens: r.Total.Tokens, Requests: r.Total.Requests}
		today := r.Today
		today.Held = 0 // a day with holds alone is none with use
		if (UsagePart{r.Total.Tokens, r.Total.Requests}) != split || r.Total.Tokens != 23*r.Total.Requests || today != used {
			t.Fatalf("%d tokens in %d requests, by provenance %+v, today %+v", r.Total.Tokens, r.Total.Requests, split, r.Today)
		}
		if (r.Total.Requests == 0) != r.LastCharge.IsZero() {
			t.Fatalf("%d requests, the newest at %s", r.Total.Requests, r.LastCharge)
		}
	}
}
