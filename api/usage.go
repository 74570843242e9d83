package api

import (
	"context"
	"encoding/csv"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
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
	schema := s.contract.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[usageReport](), true, "")
	op.Responses["200"] = &huma.Response{Description: "What the key used.", Content: map[string]*huma.MediaType{
		"application/json": {Schema: schema},
		"text/csv":         {Schema: &huma.Schema{Type: huma.TypeString}},
	}}
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

// usageCSV is RFC 4180: a header, and one record for each row.
func usageCSV(t billing.UsageTable, by []string, from, to string) *huma.StreamResponse {
	columns := slices.DeleteFunc([]string{"day", "model"}, func(name string) bool { return !slices.Contains(by, name) })
	sources := []billing.Provenance{billing.Reported, billing.Estimated, billing.Aborted, billing.Recovered, billing.Expired}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Content-Type", "text/csv; charset=utf-8")
		c.SetHeader("Vary", "Accept")
		c.SetHeader("Content-Disposition", `attachment; filename="usage-`+from+"-"+to+`.csv"`)
		w := csv.NewWriter(c.BodyWriter())
		w.UseCRLF = true
		header := append(slices.Clone(columns), "prompt_tokens", "completion_tokens", "total_tokens", "requests")
		for _, p := range sources {
			header = append(header, string(p))
		}
		errs := []error{w.Write(header)}
		for _, r := range t.Rows {
			record := make([]string, 0, len(header))
			for _, name := range columns {
				record = append(record, map[string]string{"day": r.Day, "model": plainCell(r.Model)}[name])
			}
			for _, n := range []int64{r.PromptTokens, r.CompletionTokens, r.TotalTokens, r.Requests} {
				record = append(record, strconv.FormatInt(n, 10))
			}
			for _, p := range sources {
				record = append(record, strconv.FormatInt(r.Provenance[p].Requests, 10))
			}
			errs = append(errs, w.Write(record))
		}
		w.Flush()
		_ = errors.Join(append(errs, w.Error())...) // the client may be gone
	}}
}

// plainCell keeps a client's model name from being run as a formula by whoever
// opens the report in a spreadsheet.
func plainCell(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
