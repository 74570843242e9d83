package billing

import (
	"context"
	"fmt"
)

// AnswerUsage sums the charges of one day, one model and one provenance, as the
// provider of the model would count them.
type AnswerUsage struct {
	Day        string // UTC, "2006-01-02"
	Model      string // that the answer named; the request's where it named none
	Provenance Provenance
	// Tokens, corrections included. CachedTokens are part of PromptTokens.
	PromptTokens, CompletionTokens, CachedTokens int64
	Requests                                     int64 // charges without corrections
}

// UsageByAnswer sums the charges of the days from first to last ("2006-01-02",
// both included), from one state of the books. One day and model may have
// several sums of one provenance. ErrInvalid: a day that is none.
func (a *Admin) UsageByAnswer(ctx context.Context, first, last string) ([]AnswerUsage, error) {
	for _, day := range []string{first, last} {
		if _, err := parseDay(day); err != nil {
			return nil, fmt.Errorf("usage: %w: a day is written 2006-01-02", ErrInvalid)
		}
	}
	var sums []AnswerUsage
	// The two columns have different collations in PostgreSQL, so which of them
	// counts is decided after the grouping.
	err := a.store.read.WithContext(ctx).Raw(`SELECT day, CASE WHEN answer_model = '' THEN model ELSE answer_model END AS model, provenance,
			prompt_tokens, completion_tokens, cached_tokens, requests
		FROM (SELECT day, model, answer_model, provenance, CAST(sum(prompt) AS BIGINT) AS prompt_tokens,
				CAST(sum(completion) AS BIGINT) AS completion_tokens, CAST(sum(cached) AS BIGINT) AS cached_tokens,
				count(CASE WHEN kind = 'charge' THEN 1 END) AS requests
			FROM charges WHERE day >= ? AND day <= ? GROUP BY day, model, answer_model, provenance) AS sums`, first, last).Scan(&sums).Error
	if err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	return sums, nil
}
