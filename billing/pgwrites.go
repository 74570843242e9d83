package billing

import "github.com/jackc/pgx/v5"

// pgWrites are the rows of pgWrite, a slice for each column.
type pgWrites struct {
	replica string // whose holds these are
	writer  string // whose chain seals the charges
	marks   []progressMark

	newKeys, newDays []string // accounts that have no row yet

	hID, hKey, hDay, hModel, hEndpoint, hRequest         []string
	hTokens, hCost, hPrice, hBound, hEstimate, hAdmitted []int64

	ends, voids []string

	cID, cRef, cKey, cDay, cModel, cAnswer, cEndpoint, cRequest, cProvenance, cNote []string

	cPrompt, cCompletion, cCached, cWrite, cAudioIn, cReasoning, cAudioOut []int64
	cPrice, cCost, cHeld, cHoldCost, cAdmitted, cSettled                   []int64

	cSeal [][]byte
}

func (w *pgWrites) account(keyID, day string) {
	w.newKeys = append(w.newKeys, keyID)
	w.newDays = append(w.newDays, day)
}

func (w *pgWrites) hold(h *openHold) {
	w.hID = append(w.hID, h.id)
	w.hKey = append(w.hKey, h.keyID)
	w.hDay = append(w.hDay, h.day)
	w.hModel = append(w.hModel, h.model)
	w.hEndpoint = append(w.hEndpoint, h.endpoint)
	w.hRequest = append(w.hRequest, h.requestID)
	w.hTokens = append(w.hTokens, h.tokens)
	w.hCost = append(w.hCost, h.cost)
	w.hPrice = append(w.hPrice, h.priceID())
	w.hBound = append(w.hBound, h.promptBound)
	w.hEstimate = append(w.hEstimate, h.promptEstimate)
	w.hAdmitted = append(w.hAdmitted, h.admittedAt)
}

// settle posts a charge and ends its hold.
func (w *pgWrites) settle(e *entry) error {
	w.ends = append(w.ends, e.ID)
	return w.charge(e.charge())
}

// charge posts a row.
func (w *pgWrites) charge(c *charge) error {
	one, err := c.seal()
	if err != nil {
		return err
	}
	ref := ""
	if c.Ref != nil {
		ref = *c.Ref
	}
	w.cID = append(w.cID, c.ID)
	w.cRef = append(w.cRef, ref)
	w.cKey = append(w.cKey, c.KeyID)
	w.cDay = append(w.cDay, c.Day)
	w.cModel = append(w.cModel, c.Model)
	w.cAnswer = append(w.cAnswer, c.AnswerModel)
	w.cEndpoint = append(w.cEndpoint, c.Endpoint)
	w.cRequest = append(w.cRequest, c.RequestID)
	w.cPrompt = append(w.cPrompt, c.Prompt)
	w.cCompletion = append(w.cCompletion, c.Completion)
	w.cCached = append(w.cCached, c.Cached)
	w.cWrite = append(w.cWrite, c.CacheWrite)
	w.cAudioIn = append(w.cAudioIn, c.AudioPrompt)
	w.cReasoning = append(w.cReasoning, c.Reasoning)
	w.cAudioOut = append(w.cAudioOut, c.AudioCompletion)
	w.cPrice = append(w.cPrice, c.Price)
	w.cCost = append(w.cCost, c.Cost)
	w.cProvenance = append(w.cProvenance, c.Provenance)
	w.cHeld = append(w.cHeld, c.HoldTokens)
	w.cHoldCost = append(w.cHoldCost, c.HoldCost)
	w.cNote = append(w.cNote, c.Note)
	w.cAdmitted = append(w.cAdmitted, c.AdmittedAt)
	w.cSettled = append(w.cSettled, c.SettledAt)
	w.cSeal = append(w.cSeal, one[:])
	return nil
}

func (w *pgWrites) args(now int64) []any {
	return []any{
		w.replica, w.hID, w.hKey, w.hDay, w.hModel, w.hEndpoint, w.hRequest, w.hTokens, w.hCost, w.hPrice, w.hBound, w.hEstimate, w.hAdmitted,
		w.ends, now, w.voids, w.writer,
		w.cID, w.cRef, w.cKey, w.cDay, w.cModel, w.cAnswer, w.cEndpoint, w.cRequest,
		w.cPrompt, w.cCompletion, w.cCached, w.cWrite, w.cAudioIn, w.cReasoning, w.cAudioOut, w.cPrice, w.cCost,
		w.cProvenance, w.cHeld, w.cHoldCost, w.cNote, w.cAdmitted, w.cSettled, w.cSeal,
	}
}

// queue appends the statements that have something to do.
func (w *pgWrites) queue(out *pgx.Batch, now int64) {
	if len(w.newKeys) > 0 {
		out.Queue(pgEnsure, w.newKeys, w.newDays)
	}
	if len(w.marks) > 0 {
		ids, prompts, completions := make([]string, len(w.marks)), make([]int64, len(w.marks)), make([]int64, len(w.marks))
		for i, m := range w.marks {
			ids[i], prompts[i], completions[i] = m.id, m.PromptTokens, m.CompletionTokens
		}
		out.Queue(pgMark, ids, prompts, completions)
	}
	if len(w.hID)+len(w.ends)+len(w.voids)+len(w.cID) > 0 {
		out.Queue(pgWrite, w.args(now)...)
	}
}
