package rig

import "encoding/json"

// Chat describes a chat completion request for the mock upstream.
type Chat struct {
	Model     string
	Text      string // the user's message, "" = "hi"
	MaxTokens int64  // 0 = none given
	Stream    bool
	// IncludeUsage is sent as stream_options.include_usage when not nil.
	IncludeUsage *bool
	Script       Script
	Plain        bool // without the script, for gateways that stumble over it
}

// Body renders the request's JSON, members in a fixed order.
func (c Chat) Body() []byte { return c.render("messages") }

// CompletionBody renders the same wish as a legacy completion request.
func (c Chat) CompletionBody() []byte { return c.render("prompt") }

// EmbeddingBody renders the same wish as an embeddings request.
func (c Chat) EmbeddingBody() []byte { return c.render("input") }

// Ask is what the mock upstream must see of this request behind a gateway that
// asks for usage in every stream.
func (c Chat) Ask(path string) Ask {
	return Ask{Path: path, Model: c.Model, Stream: c.Stream, IncludeUsage: c.Stream}
}

// AsksUsage tells whether the client itself wants the usage chunk.
func (c Chat) AsksUsage() bool { return c.IncludeUsage != nil && *c.IncludeUsage }

func (c Chat) render(input string) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	type options struct {
		IncludeUsage bool `json:"include_usage"`
	}
	type metadata struct {
		Rig Script `json:"rig"`
	}
	text := c.Text
	if text == "" {
		text = "hi"
	}
	out := struct {
		Model         string    `json:"model"`
		Messages      []message `json:"messages,omitempty"`
		Prompt        string    `json:"prompt,omitempty"`
		Input         string    `json:"input,omitempty"`
		MaxTokens     int64     `json:"max_tokens,omitempty"`
		Stream        bool      `json:"stream,omitempty"`
		StreamOptions *options  `json:"stream_options,omitempty"`
		Metadata      *metadata `json:"metadata,omitempty"`
	}{Model: c.Model, MaxTokens: c.MaxTokens, Stream: c.Stream}
	if !c.Plain {
		out.Metadata = &metadata{c.Script}
	}
	switch input {
	case "messages":
		out.Messages = []message{{"user", text}}
	case "prompt":
		out.Prompt = text
	case "input":
		out.Input = text
	}
	if c.IncludeUsage != nil {
		out.StreamOptions = &options{*c.IncludeUsage}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // strings, numbers and booleans always encode
	}
	return b
}
