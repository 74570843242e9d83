package api

import (
	"context"
	"encoding/csv"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/MaksimVF/llm-gateway/billing"
)

// usageDays is how far GET /usage looks back unless it is told: 30 days,
// today included.
const usageDays = 30

// usageQuestion is what GET /usage may be asked.
type usageQuestion struct {
	From    string   `query:"from" format:"date" doc:"First UTC day. Without it 30 days are told, the last one included."`
	To      string   `query:"to" format:"date" doc:"Last UTC day, today without it. At most 366 days are told."`
	GroupBy []string `query:"group_by" enum:"day,model" uniqueItems:"true" nullable:"false" doc:"Adds one row for each day, model, or both."`
	Format  string   `query:"format" enum:"json,csv" doc:"csv gives the rows alone, by day unless group_by says otherwise. Without it Accept decides, and JSON where that leaves it open."`
	Accept  []string `header:"Accept" hidden:"true"` // OpenAPI has the content types of the answer for it
}

// usageOperation documents both forms of the answer.
func (s *server) usageOperation(op huma.Operation) huma.Operation {
	op.Responses["200"] = csvAndJSON[usageReport](s.contract, "What the key used.")
	return op
}

func (s *server) getUsage(ctx context.Context, q *usageQuestion) (*huma.StreamResponse, error) {
	from, to, bad := q.period(s.o.Book.Now())
	if bad != nil {
		return nil, bad
	}
	if q.Format == "" && prefersCSV(q.Accept) {
		q.Format = "csv"
	}
	if q.Format == "csv" && len(q.GroupBy) == 0 {
		q.GroupBy = []string{"day"}
	}
	key := callerOf(ctx)
	var table billing.UsageTable
	var err error
	if len(q.GroupBy) > 0 {
		if table, err = s.o.Book.Usage(ctx, billing.UsageQuery{KeyRef: key.ID, From: from, To: to, By: q.GroupBy}); err != nil {
			return nil, s.away(ctx, "usage", err)
		}
	}
	if q.Format == "csv" {
		return usageCSV(table, q.GroupBy, from, to), nil
	}
	report, err := s.usage(ctx, key, from, to)
	if err != nil {
		return nil, s.away(ctx, "usage", err)
	}
	report.Rows = rowsOf(table)
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Content-Type", "application/json")
		c.SetHeader("Vary", "Accept")
		_ = compactJSON().Marshal(c.BodyWriter(), report) // the client may be gone
	}}, nil
}

// period fills in the days that were not given.
func (q *usageQuestion) period(now time.Time) (from, to string, bad *errorReport) {
	last := now.UTC()
	if q.To != "" {
		last, _ = time.Parse(time.DateOnly, q.To) // checked by its format
	}
	first := last.AddDate(0, 0, 1-usageDays)
	if q.From != "" {
		first, _ = time.Parse(time.DateOnly, q.From)
	}
	from, to = first.Format(time.DateOnly), last.Format(time.DateOnly)
	switch days := daysBetween(from, to); {
	case days < 1:
		return "", "", fail(http.StatusBadRequest, codeInvalidValue, "from is after to.").about("from")
	case days > 366:
		return "", "", fail(http.StatusBadRequest, codeInvalidValue, "At most 366 days can be told at once.").about("from")
	}
	return from, to, nil
}

func (s *server) usage(ctx context.Context, key billing.Key, from, to string) (u usageReport, err error) {
	report, err := s.o.Book.Report(ctx, key.ID, from, to)
	if err != nil {
		return u, err
	}
	d, err := s.peek(ctx)
	if err != nil {
		return u, err
	}
	limits := s.o.Book.Effective(key)
	u.Billing.Usage = billingUsageOf(key, report)
	u.Billing.Limits = limitsOf(key, limits, report.KeyAccount)
	u.Tariff = termsOf(key, limits)
	u.RateLimit = reportOf(key, d)
	last := report.LastCharge
	if last.IsZero() {
		last = s.o.Book.Now()
	}
	u.Tracker = trackerReport{APIKey: maskedKey(key), UsedTokens: report.Month.Tokens, LastUpdated: stamp(last), StorageType: d.Storage}
	return u, nil
}

// usageCSV is the CSV form: the rows alone.
func usageCSV(t billing.UsageTable, by []string, from, to string) *huma.StreamResponse {
	columns := slices.DeleteFunc([]string{"day", "model"}, func(name string) bool { return !slices.Contains(by, name) })
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Content-Type", "text/csv; charset=utf-8")
		c.SetHeader("Vary", "Accept")
		c.SetHeader("Content-Disposition", `attachment; filename="usage-`+from+"-"+to+`.csv"`)
		w := csv.NewWriter(c.BodyWriter())
		w.UseCRLF = true              // as RFC 4180 has it
		_ = writeUsage(w, t, columns) // the client may be gone
	}}
}
