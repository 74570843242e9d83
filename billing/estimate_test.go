package billing

import (
	"math"
	"strings"
	"sync"
	"testing"
)

func TestCountTokens(t *testing.T) {
	for model, want := range map[string]bool{
		"gpt-4o": true, "gpt-4o-2024-08-06": true, "gpt-4.1-mini": true, "gpt-4": true, "gpt-3.5-turbo-0125": true,
		"o3-mini": true, "ft:gpt-4o-mini-2024-07-18:org::id": true, "text-embedding-3-small": true,
		"gpt-4x": false, "gpt-40": false, "llama-3": false, "": false, "gpt": false, "o11": false,
	} {
		n, known := CountTokens(model, "hello world")
		if known != want || known && n != 2 {
			t.Errorf("%q: %d, %v, want 2, %v", model, n, known, want)
		}
	}
	if a, b := codecOf("ft:gpt-4o:x"), codecOf("gpt-4"); countOf(t, a) == countOf(t, b) {
		t.Error("a fine-tuned gpt-4o has the vocabulary of gpt-4")
	}
	if _, known := CountTokens("gpt-4o", strings.Repeat("x", countMax+1)); known {
		t.Error("an enormous text was counted")
	}
}

func countOf(t *testing.T, c codecFunc) int64 {
	t.Helper()
	n, ok := count(c, []string{"Пример текста на русском языке"})
	if !ok {
		t.Fatal("not counted")
	}
	return n
}

func TestEstimateTokens(t *testing.T) {
	for _, c := range []struct {
		model, text string
		total, want int64
	}{
		{"gpt-4o", "", 0, 0},
		{"gpt-4o", "x", 0, 1},
		{"unknown", "hello world", 11, 2},
		{"gpt-4o", "hello world", 0, 2},
		{"gpt-4o", "hello world", 110, 20},
		{"gpt-4o", "", 3, 1},
		{"gpt-4o", "", 400, 100},
	} {
		if n := EstimateTokens(c.model, c.total, c.text); n != c.want {
			t.Errorf("%q of %d bytes: %d, want %d", c.text, c.total, n, c.want)
		}
	}
	if n := EstimateTokens("m", math.MaxInt64, "a"); n != math.MaxInt64 {
		t.Errorf("the largest text has %d tokens", n)
	}
	// "user" and "What" are no one word, and nothing stands between them.
	if n := EstimateTokens("gpt-4o", 0, "user", "hello", " world"); n != 3 {
		t.Errorf("three texts have %d tokens", n)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if n, _ := CountTokens("gpt-4", strings.Repeat("hello ", 100)); n < 100 {
				t.Error(n)
			}
		})
	}
	wg.Wait()
}
