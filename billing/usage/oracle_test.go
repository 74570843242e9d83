package usage

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The scanner reads JSON as the standard library does: what that accepts it accepts, with the same text.
func TestScannerAgreesWithTheStandardLibrary(t *testing.T) {
	accepted, refused := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.String().Draw(r, "text")
		if rapid.Bool().Draw(r, "escapes") {
			text = strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{`\n`, `\"`, `\ud83d`, `\ude00`, `\u00e9`, "é", `\\`, `\q`, `\u12`, "\x01", "x"})).Draw(r, "parts"), "")
		} else {
			quoted, err := json.Marshal(text)
			if err != nil {
				r.Fatal(err)
			}
			text = strings.Trim(string(quoted), `"`)
			text = strings.TrimSuffix(text, `\`) // Trim may have halved an escape: then both must refuse
		}
		body := []byte(`{"choices":[{"message":{"content":"` + text + `"}}]}`)
		var want struct {
			Choices []struct{ Message struct{ Content string } }
		}
		err := json.Unmarshal(body, &want)
		got := read(t, Options{}, split(r, body)...).report
		if whole := got.Verdict == Absent && got.Complete && got.OutputBytes != got.BodyBytes; err == nil != whole {
			r.Fatalf("%s: the standard library says %v, the meter %+v", body, err, got)
		}
		if err != nil {
			refused++
			return
		}
		accepted++
		if got.OutputText != want.Choices[0].Message.Content {
			r.Fatalf("%s: %q, want %q", body, got.OutputText, want.Choices[0].Message.Content)
		}
	})
	if accepted == 0 || refused == 0 {
		t.Errorf("%d accepted, %d refused: one side was never tried", accepted, refused)
	}
}

// Damage to a valid answer must be found wherever the standard library finds it, numbers apart.
func TestScannerFindsDamage(t *testing.T) {
	body := `{"id":"a\u00e9","n":[1,{"b":null,"c":[true,false]},"x"],"o":{"":{}},"e":[],"choices":[{"index":0}]}`
	for i := range body {
		for _, c := range []byte(`{}[]:,"\ntx` + "\n") {
			damaged := []byte(body)
			damaged[i] = c
			s := scanner{to: &tally{choices: 1}}
			s.start()
			n, o := s.feed(damaged)
			valid := o == closed && n == len(damaged)
			if want := json.Valid(damaged); valid != want {
				t.Errorf("%s: scanner %v, standard library %v", damaged, valid, want)
			}
		}
	}
}
