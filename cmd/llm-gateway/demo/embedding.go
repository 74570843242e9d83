package demo

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/http"
)

const (
	defaultDimensions = 8
	maxDimensions     = 4096
	maxInputs         = 2048
)

type embedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // []float32, or base64 of its little-endian bytes
}

// embed serves POST embeddings.
func (m *model) embed(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Model      string `json:"model"`
		Input      input  `json:"input"`
		Dimensions *int64 `json:"dimensions"`
		Format     string `json:"encoding_format"`
	}
	if _, err := read(w, r, &q); err != nil {
		return err
	}
	dimensions := int64(defaultDimensions)
	if q.Dimensions != nil {
		dimensions = *q.Dimensions
	}
	switch {
	case q.Model == "":
		return badRequest("model", "you must provide a model parameter")
	case len(q.Input) == 0 || len(q.Input) > maxInputs:
		return badRequest("input", "input must have 1 to %d items", maxInputs)
	case dimensions < 1 || dimensions > maxDimensions:
		return badRequest("dimensions", "dimensions must be between 1 and %d, not %d", maxDimensions, dimensions)
	case q.Format != "" && q.Format != "float" && q.Format != "base64":
		return badRequest("encoding_format", "encoding_format must be float or base64, not '%s'", q.Format)
	}
	data := make([]embedding, len(q.Input))
	for i, item := range q.Input {
		if item.tokens == 0 {
			return badRequest("input", "input must not be empty")
		}
		data[i] = embedding{"embedding", i, format(vector(item.text, int(dimensions)), q.Format)}
	}
	type embeddingUsage struct {
		PromptTokens int64 `json:"prompt_tokens"`
		TotalTokens  int64 `json:"total_tokens"`
	}
	writeJSON(w, http.StatusOK, struct {
		Object string         `json:"object"`
		Data   []embedding    `json:"data"`
		Model  string         `json:"model"`
		Usage  embeddingUsage `json:"usage"`
	}{"list", data, q.Model, embeddingUsage{q.Input.tokens(), q.Input.tokens()}})
	return nil
}

// vector is a point on the unit sphere that depends on nothing but the text and the number of
// dimensions. It carries no meaning: similar texts are not near each other.
func vector(text string, dimensions int) []float32 {
	seed := sha256.Sum256([]byte(text))
	values := make([]float64, dimensions)
	square := 0.0
	for i := range values {
		h := sha256.Sum256(binary.LittleEndian.AppendUint32(seed[:], uint32(i)))
		// An odd number is never zero, so that no vector is.
		values[i] = float64(int32(binary.LittleEndian.Uint32(h[:])|1)) / math.MaxInt32 //nolint:gosec // any 32 bits will do, the sign among them
		square += values[i] * values[i]
	}
	out := make([]float32, dimensions)
	for i, v := range values {
		out[i] = float32(v / math.Sqrt(square))
	}
	return out
}

func format(v []float32, encoding string) any {
	if encoding != "base64" {
		return v
	}
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(raw)
}
