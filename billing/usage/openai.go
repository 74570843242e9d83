package usage

import (
	"math"
	"strconv"

	"github.com/tidwall/gjson"
)

// maxTokens is the largest count that is believed; no model reads or writes as much in one answer.
const maxTokens = 10_000_000

// statement is what one usage object says. The names are OpenAI's (chat and completions: prompt_tokens, completion_tokens; responses and audio: input_tokens, output_tokens) and those of the compatible servers.
type statement struct {
	prompt, input, completion, output, total gjson.Result
	cached, cacheHit, cacheWrite, audioIn    gjson.Result
	reasoning, audioOut                      gjson.Result
}

// readUsage normalises one usage object, given as raw JSON.
// stated is false when it holds no token count at all, such as {} or {"seconds":9}: then it says nothing.
// A non-empty reason means that the figure is not believed.
func readUsage(raw []byte, embeddings bool) (t Tokens, reason string, stated bool) {
	if !gjson.ValidBytes(raw) {
		return Tokens{}, ReasonMalformed, true
	}
	object := gjson.ParseBytes(raw)
	if !object.IsObject() {
		return Tokens{}, ReasonMalformed, true
	}
	var s statement
	object.ForEach(s.member)

	prompt, statedPrompt, reason := count(first(s.prompt, s.input))
	if reason != "" {
		return Tokens{}, reason, true
	}
	completion, statedCompletion, reason := count(first(s.completion, s.output))
	if reason != "" {
		return Tokens{}, reason, true
	}
	total, statedTotal, reason := count(s.total)
	if reason != "" {
		return Tokens{}, reason, true
	}
	if !statedPrompt && !statedCompletion && !statedTotal {
		return Tokens{}, "", false
	}

	// Some providers show hidden reasoning in the total only, so a surplus is output. Embeddings have none.
	if surplus := total - prompt - completion; surplus > 0 {
		if embeddings && prompt+completion == 0 {
			prompt = surplus
		} else {
			completion += surplus
		}
	}
	t = Tokens{Prompt: prompt, Completion: completion, Total: prompt + completion}
	if t.Total > maxTokens {
		return Tokens{}, ReasonTooLarge, true
	}
	t.CachedPrompt = detail(first(s.cached, s.cacheHit), t.Prompt)
	t.CacheWrite = detail(s.cacheWrite, t.Prompt)
	t.AudioPrompt = detail(s.audioIn, t.Prompt)
	t.Reasoning = detail(s.reasoning, t.Completion)
	t.AudioCompletion = detail(s.audioOut, t.Completion)
	return t, "", true
}

// member files one member of the usage object; of duplicates the last wins, as in the clients' JSON readers.
func (s *statement) member(key, value gjson.Result) bool {
	switch key.Str {
	case "prompt_tokens":
		s.prompt = value
	case "input_tokens":
		s.input = value
	case "completion_tokens":
		s.completion = value
	case "output_tokens":
		s.output = value
	case "total_tokens":
		s.total = value
	case "prompt_tokens_details", "input_tokens_details":
		s.cached = first(value.Get("cached_tokens"), s.cached)
		s.cacheWrite = first(first(value.Get("cache_write_tokens"), value.Get("cache_creation_tokens")), s.cacheWrite)
		s.audioIn = first(value.Get("audio_tokens"), s.audioIn)
	case "prompt_cache_hit_tokens":
		s.cacheHit = value
	case "cache_creation_input_tokens": // Anthropic's name, which compatible servers keep
		s.cacheWrite = first(s.cacheWrite, value)
	case "completion_tokens_details", "output_tokens_details":
		s.reasoning = first(value.Get("reasoning_tokens"), s.reasoning)
		s.audioOut = first(value.Get("audio_tokens"), s.audioOut)
	case "reasoning_tokens":
		s.reasoning = first(s.reasoning, value)
	}
	return true
}

// first returns a, or b when a is absent or null.
func first(a, b gjson.Result) gjson.Result {
	if a.Type == gjson.Null {
		return b
	}
	return a
}

// count reads one token count. An integer may be written with a point or an exponent (5.0, 1e3): SDKs of several languages do.
func count(r gjson.Result) (n int64, stated bool, reason string) {
	switch r.Type {
	case gjson.Null:
		return 0, false, ""
	case gjson.Number:
	default:
		return 0, true, ReasonNotANumber
	}
	f, err := strconv.ParseFloat(r.Raw, 64) // out of range gives an infinity with the right sign
	switch {
	case f < 0:
		return 0, true, ReasonNegative
	case f > maxTokens:
		return 0, true, ReasonTooLarge
	case f != math.Trunc(f):
		return 0, true, ReasonNotAnInteger
	case err != nil:
		return 0, true, ReasonNotANumber
	}
	return int64(f), true, ""
}

// detail reads a part of whole. It decides no budget, so a part that is not believed is dropped without spoiling the figure, and one above its whole is the whole.
func detail(r gjson.Result, whole int64) int64 {
	n, _, reason := count(r)
	if reason != "" {
		return 0
	}
	return min(n, whole)
}

// figure is the last cumulative usage of an answer.
type figure struct {
	seen    bool
	tokens  Tokens
	reason  string // why the last one is not believed
	highest int64  // the highest believed total so far
}

// take notes the next figure. middle says that it rides on a chunk in the middle of the answer, where servers send zeros before they know better.
func (f *figure) take(t Tokens, reason string, middle bool) {
	switch {
	case reason == "" && t.Total == 0 && middle && f.seen:
		return
	case reason == "" && t.Total < f.highest:
		reason = ReasonFalling
	}
	f.seen, f.tokens, f.reason = true, t, reason
	if reason != "" {
		f.tokens = Tokens{}
		return
	}
	f.highest = t.Total
}

// judge is the verdict on the figure, given how much output was delivered.
func (f *figure) judge(embeddings bool, outputBytes int64) (Verdict, Tokens, string) {
	switch {
	case !f.seen:
		return Absent, Tokens{}, ""
	case f.reason != "":
		return Implausible, Tokens{}, f.reason
	case embeddings && f.tokens.Prompt == 0,
		!embeddings && f.tokens.Completion == 0 && outputBytes > 0:
		return Implausible, Tokens{}, ReasonZeroForOutput
	}
	return Reported, f.tokens, ""
}
