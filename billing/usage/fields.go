package usage

// node says what a JSON value is in the grammar of OpenAI's answers.
type node uint8

const (
	nodeOther     node = iota // nothing we read
	nodePayload               // a top-level member that is content of its own
	nodeRoot                  // the answer, or one chunk of it
	nodeModel                 // model
	nodeKind                  // object: "chat.completion", or "error" at servers that do not wrap their errors
	nodeError                 // error
	nodeUsage                 // usage
	nodeGroq                  // x_groq
	nodeGroqUsage             // x_groq.usage
	nodeChoices               // choices
	nodeChoice                // choices[]
	nodeIndex                 // choices[].index
	nodeFinish                // choices[].finish_reason
	nodeMessage               // choices[].message or .delta
	nodeContent               // its content: text, or an array of parts
	nodePart                  // one part
	nodeToolCalls             // its tool_calls
	nodeToolCall              // one of them
	nodeFunction              // what is called, and with what
	nodeText                  // output text wherever it stands
)

// member says what the member named key of an object is.
func (n node) member(key string) node {
	switch n {
	case nodeRoot:
		return rootMember(key)
	case nodeGroq:
		if key == "usage" {
			return nodeGroqUsage
		}
	case nodeChoice:
		switch key {
		case "index":
			return nodeIndex
		case "finish_reason":
			return nodeFinish
		case "message", "delta":
			return nodeMessage
		case "text":
			return nodeText
		}
	case nodeMessage:
		switch key {
		case "content":
			return nodeContent
		case "refusal", "reasoning_content", "reasoning":
			return nodeText
		case "tool_calls":
			return nodeToolCalls
		case "function_call":
			return nodeFunction
		}
	case nodePart:
		switch key {
		case "text", "refusal":
			return nodeText
		case "thinking": // Mistral nests the parts of its reasoning
			return nodeContent
		}
	case nodeToolCall:
		switch key {
		case "function", "custom":
			return nodeFunction
		}
	case nodeFunction:
		switch key {
		case "name", "arguments", "input":
			return nodeText
		}
	default: // no object, or one without members that we read
	}
	return nodeOther
}

// rootMember tells the members that every chunk has, and the accounting ones, from those that are content of their own.
// llama.cpp puts its timings on the last chunk, which is the usage chunk once that is asked for, so they do not make it anybody else's.
func rootMember(key string) node {
	switch key {
	case "choices":
		return nodeChoices
	case "usage":
		return nodeUsage
	case "x_groq":
		return nodeGroq
	case "model":
		return nodeModel
	case "object":
		return nodeKind
	case "error":
		return nodeError
	case "id", "created", "system_fingerprint", "service_tier", "provider", "obfuscation", "timings", "usage_breakdown":
		return nodeOther
	}
	return nodePayload
}

// element says what an element of an array is.
func (n node) element() node {
	switch n {
	case nodeChoices:
		return nodeChoice
	case nodeContent:
		return nodePart
	case nodeToolCalls:
		return nodeToolCall
	default:
		return nodeOther
	}
}

// isText says whether a string of this kind is output.
func (n node) isText() bool { return n == nodeText || n == nodeContent }

// isWord says whether a string or number of this kind is gathered to be looked at.
func (n node) isWord() bool {
	return n == nodeModel || n == nodeKind || n == nodeFinish || n == nodeIndex
}

// part is what one JSON value of an answer says: all of it, or one chunk.
type part struct {
	choices   int  // choices in it
	extra     bool // it has content of its own beside choices and usage
	failed    bool // it is or holds an error
	hasUsage  bool // usage below is whole
	hasGroq   bool
	usageOpen bool // usage is an object
	usage     []byte
	groq      []byte
}

// figure returns the raw usage value, nil when there is none.
func (p *part) figure() []byte {
	switch {
	case p.hasUsage:
		return p.usage
	case p.hasGroq:
		return p.groq
	}
	return nil
}

// usageOnly says whether this is the chunk that servers send when, and only when, stream_options.include_usage was asked for.
func (p *part) usageOnly() bool {
	return p.hasUsage && p.usageOpen && p.choices == 0 && !p.extra && !p.failed
}

// reset forgets the value and keeps the buffers.
func (p *part) reset() {
	*p = part{usage: p.usage[:0], groq: p.groq[:0]}
}
