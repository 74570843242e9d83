package demo

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"testing"
)

type embeddings struct {
	Object, Model string
	Data          []struct {
		Object    string
		Index     int
		Embedding json.RawMessage
	}
	Usage struct {
		Prompt int64 `json:"prompt_tokens"`
		Total  int64 `json:"total_tokens"`
	}
}

func embed(t *testing.T, body string) embeddings {
	t.Helper()
	w := post("/v1/embeddings", body)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return decode[embeddings](t, w.Body.Bytes())
}

func TestEmbeddingsAreUnitVectorsInBothFormats(t *testing.T) {
	for dimensions, more := range map[int]string{8: "", 3: `,"dimensions":3`, 1536: `,"dimensions":1536`} {
		q := `{"model":"e","input":["Ünïcödé","b","Ünïcödé"]` + more
		floats, packed := embed(t, q+`}`), embed(t, q+`,"encoding_format":"base64"}`)
		if floats.Object != "list" || floats.Model != "e" || floats.Usage.Prompt != 7 || floats.Usage.Total != 7 || len(floats.Data) != 3 {
			t.Fatalf("%+v", floats)
		}
		for i, d := range floats.Data {
			v := decode[[]float32](t, d.Embedding)
			raw, err := base64.StdEncoding.DecodeString(decode[string](t, packed.Data[i].Embedding))
			if err != nil || len(raw) != 4*dimensions || len(v) != dimensions || d.Index != i || d.Object != "embedding" {
				t.Fatalf("%v: %d bytes, %d numbers, index %d", err, len(raw), len(v), d.Index)
			}
			square := 0.0
			for j, x := range v {
				square += float64(x) * float64(x)
				if y := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*j:])); y != x {
					t.Fatalf("number %d is %v in base64 and %v in JSON", j, y, x)
				}
			}
			if math.Abs(square-1) > 1e-5 {
				t.Errorf("length² %v", square)
			}
		}
		if string(floats.Data[0].Embedding) != string(floats.Data[2].Embedding) || string(floats.Data[0].Embedding) == string(floats.Data[1].Embedding) {
			t.Error("a vector must depend on its text and on nothing else")
		}
	}
}

func TestEmbeddingInputs(t *testing.T) {
	for in, want := range map[string][2]int64{`"a b"`: {1, 2}, `["a","b c"]`: {2, 3}, `[1,2,3]`: {1, 3}, `[[1],[2,3]]`: {2, 3}} {
		e := embed(t, `{"model":"e","input":`+in+`}`)
		if got := [2]int64{int64(len(e.Data)), e.Usage.Prompt}; got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}
