package usage

import (
	"os"
	"strings"
	"testing"
)

// pacedChunk is what most pieces of a stream are.
const pacedChunk = `data: {"id":"chatcmpl-CfGk2x8aVb3T9sQmZ0","object":"chat.completion.chunk","created":1763900000,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_560af6e559","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n"

func BenchmarkPacedChunk(b *testing.B) {
	for name, drop := range map[string]bool{"plain": false, "drop": true} {
		b.Run(name, func(b *testing.B) {
			m := NewMeter(stream1(drop))
			defer m.Close()
			piece := []byte(pacedChunk)
			m.Write(piece, false)
			b.SetBytes(int64(len(piece)))
			b.ReportAllocs()
			for b.Loop() {
				m.Write(piece, false)
			}
		})
	}
}

func BenchmarkUsageChunk(b *testing.B) {
	piece := []byte(usageEvent)
	m := NewMeter(stream1(true))
	defer m.Close()
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	for b.Loop() {
		m.Write(piece, false)
	}
}

func BenchmarkJSON(b *testing.B) {
	raw, err := os.ReadFile("testdata/openai/chat.json")
	if err != nil {
		b.Fatal(err)
	}
	body := []byte(strings.Replace(string(raw), "Bonjour", strings.Repeat("Bonjour et \\n", 140), 1))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		m := NewMeter(Options{ContentType: "application/json"})
		m.Write(body, true)
		if m.Report().Verdict != Reported {
			b.Fatal("not read")
		}
		m.Close()
	}
}

func BenchmarkEmbeddings(b *testing.B) {
	body := []byte(`{"data":[{"embedding":[` + strings.Repeat("-0.0093272,", 1<<16) + `0]}],"usage":{"prompt_tokens":8,"total_tokens":8}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		m := NewMeter(Options{Embeddings: true})
		m.Write(body, true)
		m.Close()
	}
}
