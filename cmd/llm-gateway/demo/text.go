package demo

import (
	"strings"
	"unicode/utf8"
)

const (
	greeting = "Hello! I am the demo model that is built into llm-gateway, not a real language model. " +
		"To reach a real one, set LLM_SERVER_URL to its address (for example https://api.openai.com/v1) and start llm-gateway again."
	echoWords = 12
	echoBytes = 200
)

// countTokens is the counting rule of the package comment.
func countTokens(text string) int64 {
	return max(int64(len(strings.Fields(text))), int64(len(text)+3)/4)
}

// answerTo is the whole answer to a prompt: who speaks, how to get more, and the prompt's first words.
func answerTo(prompt string) string {
	words := strings.Fields(prompt)
	if len(words) == 0 {
		return greeting
	}
	echo := strings.Join(words[:min(len(words), echoWords)], " ")
	if short := cutBytes(echo, echoBytes); len(words) > echoWords || len(short) < len(echo) {
		echo = short + " …"
	}
	return greeting + " You said: " + echo
}

// cutBytes shortens text to at most n bytes without splitting a character.
func cutBytes(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// answer is a text in the pieces in which it is streamed.
type answer struct {
	pieces []string // words, all but the first with the space before them
	tokens int64
	finish string // "stop" or "length"
}

func (a answer) text() string { return strings.Join(a.pieces, "") }

// limited is the longest beginning of text that has at most ceiling tokens; it may end inside a word.
// A ceiling of 0 is none.
func limited(text string, ceiling int64) answer {
	a := answer{finish: "stop"}
	length := 0
	for i, piece := range pieces(text) {
		if ceiling > 0 && (int64(i) >= ceiling || countTokens(text[:length+len(piece)]) > ceiling) {
			a.finish = "length"
			if rest := cutBytes(piece, int(4*ceiling)-length); int64(i) < ceiling && strings.TrimSpace(rest) != "" {
				a.pieces = append(a.pieces, rest)
			}
			break
		}
		a.pieces = append(a.pieces, piece)
		length += len(piece)
	}
	a.tokens = countTokens(a.text())
	return a
}

// pieces splits before every space.
func pieces(text string) []string {
	var out []string
	for text != "" {
		end := strings.IndexByte(text[1:], ' ') + 1
		if end == 0 {
			end = len(text)
		}
		out = append(out, text[:end])
		text = text[end:]
	}
	return out
}
