package envoy

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wantGolden compares what is rendered with testdata/NAME.golden.yaml, or writes
// that with -update. The same options give the same bytes.
func wantGolden(t *testing.T, name string, render func() ([]byte, error)) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden.yaml")
	got, err := render()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if again, err := render(); err != nil || !bytes.Equal(got, again) {
		t.Errorf("%s: two renderings of the same options differ (%v)", name, err)
	}
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), see -update:\n%s", file, diff)
	}
}
