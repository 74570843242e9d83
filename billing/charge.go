package billing

// Kinds of a charge.
const (
	kindCharge = "charge"
	kindAdjust = "adjust"
)

// charge is a row of the table charges.
type charge struct {
	ID         string
	Ref        *string // the charge that this one corrects, nil = it is one itself
	Kind       string
	KeyID, Day string

	Model, AnswerModel, Endpoint, RequestID string

	Tokens
	Total       int64
	Price, Cost int64
	Provenance  string
	HoldTokens  int64
	HoldCost    int64
	Overshoot   int64
	Note        string
	AdmittedAt  int64
	SettledAt   int64
}

// chargeColumns are the columns of charges in the order of values, which the
// seal of a charge has too: it is never changed.
const chargeColumns = `id, ref, kind, key_id, day, model, answer_model, endpoint, request_id,
	prompt, completion, cached, cache_write, audio_prompt, reasoning, audio_completion, total, price, cost,
	provenance, hold_tokens, hold_cost, overshoot, note, admitted_at, settled_at`

func (c *charge) values() []any {
	return []any{
		c.ID, c.Ref, c.Kind, c.KeyID, c.Day, c.Model, c.AnswerModel, c.Endpoint, c.RequestID,
		c.Prompt, c.Completion, c.Cached, c.CacheWrite, c.AudioPrompt, c.Reasoning, c.AudioCompletion, c.Total, c.Price, c.Cost,
		c.Provenance, c.HoldTokens, c.HoldCost, c.Overshoot, c.Note, c.AdmittedAt, c.SettledAt,
	}
}

// pointers are where chargeColumns are scanned to.
func (c *charge) pointers() []any {
	return []any{
		&c.ID, &c.Ref, &c.Kind, &c.KeyID, &c.Day, &c.Model, &c.AnswerModel, &c.Endpoint, &c.RequestID,
		&c.Prompt, &c.Completion, &c.Cached, &c.CacheWrite, &c.AudioPrompt, &c.Reasoning, &c.AudioCompletion, &c.Total, &c.Price, &c.Cost,
		&c.Provenance, &c.HoldTokens, &c.HoldCost, &c.Overshoot, &c.Note, &c.AdmittedAt, &c.SettledAt,
	}
}

// charge is the row that posts an entry.
func (e *entry) charge() *charge {
	return &charge{
		ID: e.ID, Kind: kindCharge, KeyID: e.KeyID, Day: e.Day,
		Model: e.Model, AnswerModel: e.AnswerModel, Endpoint: e.Endpoint, RequestID: e.RequestID,
		Tokens: e.Tokens, Total: e.total(), Price: e.Price, Cost: e.Cost,
		Provenance: string(e.Provenance), HoldTokens: e.HoldTokens, HoldCost: e.HoldCost,
		Overshoot: max(0, e.total()-e.HoldTokens), Note: e.Note, AdmittedAt: e.AdmittedAt, SettledAt: e.SettledAt,
	}
}

// correction is the row that adds an entry to another charge.
func (e *entry) correction(id, ref string) *charge {
	c := e.charge()
	c.ID, c.Ref, c.Kind = id, &ref, kindAdjust
	return c
}
