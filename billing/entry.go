package billing

// entry is one charge, as it is posted and as it is spilled.
type entry struct {
	ID          string `json:"id"` // of the charge; of the charge to correct when Adjust
	Adjust      bool   `json:"adjust,omitempty"`
	KeyID       string `json:"key_id,omitempty"`
	Day         string `json:"day,omitempty"`
	Model       string `json:"model,omitempty"`
	AnswerModel string `json:"answer_model,omitempty"`
	Endpoint    string `json:"endpoint,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
	Tokens
	Price      int64      `json:"price,omitempty"` // id of the price, 0 = none
	Cost       int64      `json:"cost,omitempty"`  // nano-units
	Provenance Provenance `json:"provenance"`
	HoldTokens int64      `json:"hold_tokens,omitempty"`
	HoldCost   int64      `json:"hold_cost,omitempty"`
	Note       string     `json:"note,omitempty"`
	AdmittedAt int64      `json:"admitted_at,omitempty"` // microseconds UTC
	SettledAt  int64      `json:"settled_at"`
}

func (e *entry) total() int64 { return e.Prompt + e.Completion }

// amount is what the entry adds to what is used.
func (e *entry) amount() amount { return amount{e.total(), e.Cost} }

// settling is what posting the entry moves while its hold is open: held becomes
// used.
func (e *entry) settling() delta {
	return delta{used: e.amount(), held: amount{-e.HoldTokens, -e.HoldCost}}
}

// priced reckons the entry's cost; nil = the model has no price.
func (e *entry) priced(p *Price) {
	e.Price, e.Cost = 0, 0
	if p != nil {
		e.Price, e.Cost = p.ID, int64(p.Cost(e.Tokens))
	}
}

// pricer finds the price that a hold or a charge refers to.
type pricer func(id int64) (*Price, error)

// add takes a correction into the sum of a charge.
func (e *entry) add(c *entry) {
	sum, more := e.parts(), c.parts()
	for i := range sum {
		*sum[i] += *more[i]
	}
	e.Cost += c.Cost
}

// parts are all figures of tokens.
func (t *Tokens) parts() [7]*int64 {
	return [7]*int64{&t.Prompt, &t.Completion, &t.Cached, &t.CacheWrite, &t.AudioPrompt, &t.Reasoning, &t.AudioCompletion}
}

// beyond is the correction that brings what stands in the books up to the
// cumulative figures of e, nil when nothing is missing. The hold is long gone,
// so all of it is overshoot. It has the price of the charge that it corrects.
func (e *entry) beyond(standing *entry, priceOf pricer) (*entry, error) {
	more := e.total() - standing.total()
	if more <= 0 {
		return nil, nil
	}
	row := *standing
	now := e.parts()
	for i, part := range row.parts() {
		*part = max(0, *now[i]-*part)
	}
	row.Completion = min(more, row.Completion)
	row.Prompt = more - row.Completion
	row.HoldTokens, row.HoldCost = 0, 0
	row.Provenance, row.Note, row.SettledAt = e.Provenance, e.Note, e.SettledAt
	if e.AnswerModel != "" {
		row.AnswerModel = e.AnswerModel
	}
	price, err := priceOf(standing.Price)
	if err != nil {
		return nil, err
	}
	row.priced(price)
	return &row, nil
}

// standingColumns are what is read of a charge to correct it, by standing.
const standingColumns = `prompt, completion, cached, cache_write, audio_prompt, reasoning, audio_completion, price, cost,
	key_id, day, model, answer_model, endpoint, request_id, admitted_at`

// standing is where standingColumns are scanned to.
func (e *entry) standing() []any {
	return []any{
		&e.Prompt, &e.Completion, &e.Cached, &e.CacheWrite, &e.AudioPrompt, &e.Reasoning, &e.AudioCompletion, &e.Price, &e.Cost,
		&e.KeyID, &e.Day, &e.Model, &e.AnswerModel, &e.Endpoint, &e.RequestID, &e.AdmittedAt,
	}
}
