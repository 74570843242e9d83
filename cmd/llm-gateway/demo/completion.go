package demo

import (
	"cmp"
	"net/http"
)

// chat serves POST chat/completions.
func (m *model) chat(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		options
		MaxCompletionTokens *int64 `json:"max_completion_tokens"`
		Messages            []struct {
			Role    string  `json:"role"`
			Content content `json:"content"`
		} `json:"messages"`
	}
	body, err := read(w, r, &q)
	if err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	if q.Model == "" {
		return badRequest("model", "you must provide a model parameter")
	}
	if err := checkCeiling("max_completion_tokens", q.MaxCompletionTokens); err != nil {
		return err
	}
	if len(q.Messages) == 0 {
		return badRequest("messages", "messages must be a list with at least one message")
	}
	prompt, last := int64(0), ""
	for _, message := range q.Messages {
		if message.Role == "" {
			return badRequest("messages", "every message must have a role")
		}
		prompt += 3
		text := ""
		for _, t := range message.Content {
			prompt += countTokens(t)
			text += t + " "
		}
		if message.Role == "user" {
			last = text
		}
	}
	a := limited(answerTo(last), ceiling(q.MaxTokens, q.MaxCompletionTokens))
	c := completion{shape: chatShape(), id: idOf("chatcmpl", body), model: q.Model, prompt: prompt}
	for range q.choices() {
		c.answers = append(c.answers, a)
	}
	return m.send(w, r, &q.options, c)
}

// complete serves POST completions: every prompt gets n answers.
func (m *model) complete(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		options
		Prompt input `json:"prompt"`
	}
	body, err := read(w, r, &q)
	if err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	if len(q.Prompt) == 0 {
		return badRequest("prompt", "you must provide a prompt")
	}
	if len(q.Prompt)*q.choices() > maxChoices {
		return badRequest("n", "prompts times n must be at most %d", maxChoices)
	}
	// This server has one model, so here, as on others, it need not be named.
	c := completion{shape: textShape(), id: idOf("cmpl", body), model: cmp.Or(q.Model, modelName), prompt: q.Prompt.tokens()}
	for _, p := range q.Prompt {
		a := limited(answerTo(p.text), ceiling(q.MaxTokens))
		for range q.choices() {
			c.answers = append(c.answers, a)
		}
	}
	return m.send(w, r, &q.options, c)
}

func (m *model) send(w http.ResponseWriter, r *http.Request, o *options, c completion) error {
	if o.Stream {
		return m.stream(w, r, c, o.includeUsage())
	}
	writeJSON(w, http.StatusOK, c.whole())
	return nil
}

// completion is everything that an answer says, before it has a wire format.
type completion struct {
	shape   shape
	id      string
	model   string
	prompt  int64 // tokens
	answers []answer
}

func (c *completion) usage() *usage {
	u := &usage{PromptTokens: c.prompt}
	for _, a := range c.answers {
		u.CompletionTokens += a.tokens
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

func (c *completion) whole() any {
	out := envelope{ID: c.id, Object: c.shape.object, Created: created, Model: c.model, Choices: []any{}, Fingerprint: fingerprint}
	for i, a := range c.answers {
		out.Choices = append(out.Choices, c.shape.choice(i, a))
	}
	return struct {
		envelope
		Usage *usage `json:"usage"`
	}{out, c.usage()}
}
