package demo

// The types of this file are OpenAI's objects "chat.completion", "chat.completion.chunk" and
// "text_completion", field by field as the API reference has them.

const fingerprint = "fp_llm_gateway_demo"

type envelope struct {
	ID          string `json:"id"`
	Object      string `json:"object"`
	Created     int64  `json:"created"`
	Model       string `json:"model"`
	Fingerprint string `json:"system_fingerprint"`
	Choices     []any  `json:"choices"`
}

type usage struct {
	PromptTokens     int64 `json:"prompt_tokens"`
	CompletionTokens int64 `json:"completion_tokens"`
	TotalTokens      int64 `json:"total_tokens"`
	PromptDetails    struct {
		Cached int64 `json:"cached_tokens"`
		Audio  int64 `json:"audio_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionDetails struct {
		Reasoning int64 `json:"reasoning_tokens"`
		Audio     int64 `json:"audio_tokens"`
		Accepted  int64 `json:"accepted_prediction_tokens"`
		Rejected  int64 `json:"rejected_prediction_tokens"`
	} `json:"completion_tokens_details"`
}

type chatMessage struct {
	Role    string    `json:"role"`
	Content string    `json:"content"`
	Refusal *struct{} `json:"refusal"` // always null
}

type chatChoice struct {
	Index    int         `json:"index"`
	Message  chatMessage `json:"message"`
	Logprobs *struct{}   `json:"logprobs"` // always null
	Finish   string      `json:"finish_reason"`
}

type chatDelta struct {
	Index    int       `json:"index"`
	Delta    any       `json:"delta"`
	Logprobs *struct{} `json:"logprobs"` // always null
	Finish   *string   `json:"finish_reason"`
}

type textChoice struct {
	Text     string    `json:"text"`
	Index    int       `json:"index"`
	Logprobs *struct{} `json:"logprobs"` // always null
	Finish   *string   `json:"finish_reason"`
}

// shape is what differs between the two completion endpoints.
type shape struct {
	object, chunk string
	choice        func(index int, a answer) any
	opening       func(index int) any // nil where a stream has none
	piece         func(index int, text string) any
	closing       func(index int, finish string) any
}

func chatShape() shape {
	return shape{
		object: "chat.completion",
		chunk:  "chat.completion.chunk",
		choice: func(i int, a answer) any {
			return chatChoice{Index: i, Message: chatMessage{Role: "assistant", Content: a.text()}, Finish: a.finish}
		},
		opening: func(i int) any { return chatDelta{Index: i, Delta: chatMessage{Role: "assistant"}} },
		piece: func(i int, text string) any {
			return chatDelta{Index: i, Delta: struct {
				Content string `json:"content"`
			}{text}}
		},
		closing: func(i int, finish string) any { return chatDelta{Index: i, Delta: struct{}{}, Finish: &finish} },
	}
}

func textShape() shape {
	return shape{
		object:  "text_completion",
		chunk:   "text_completion",
		choice:  func(i int, a answer) any { return textChoice{Text: a.text(), Index: i, Finish: &a.finish} },
		piece:   func(i int, text string) any { return textChoice{Text: text, Index: i} },
		closing: func(i int, finish string) any { return textChoice{Index: i, Finish: &finish} },
	}
}
