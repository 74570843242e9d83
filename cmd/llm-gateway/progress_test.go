package main

import (
	"bytes"
	"testing"
)

func TestProgressLine(t *testing.T) {
	var out bytes.Buffer
	p := &progressLine{to: &out, label: "packing", after: "checking"}
	p.show("copying the books …")
	for _, done := range []int64{0, 0, 1, 500, 999, 1000, 1001} {
		p.at(done, 1000)
	}
	p.at(5, 0)
	p.end()
	p.end()
	want := "\rcopying the books …\rpacking   0 %      \rpacking  50 %\rpacking  99 %\rchecking …   \n"
	if got := out.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	quiet := &progressLine{label: "packing"}
	quiet.at(1, 2)
	quiet.end()
}
