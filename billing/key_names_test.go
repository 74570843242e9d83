package billing

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func testKeyNamesAreReadOnly(t *testing.T, at home) {
	c := newClock(testNow)
	o := at.options(t, c)
	ctx := context.Background()
	if names, err := KeyNames(ctx, o); err == nil {
		t.Fatalf("%v of no books", names)
	}
	if files, err := os.ReadDir(o.DataDir); err != nil || len(files) > 0 {
		t.Fatalf("it made %v, %v", files, err)
	}
	one, _ := createKey(t, o, Limits{})
	c.Add(time.Second)
	two, _ := createKey(t, o, Limits{})
	third, _ := createKey(t, o, Limits{})
	execSQL(t, raw(t, o), "UPDATE keys SET id = 'sk-not-an-id' WHERE id = '"+third.ID+"'")
	look := func() {
		t.Helper()
		names, err := KeyNames(ctx, o)
		if diff := cmp.Diff([]KeyName{{one.ID, "test", false}, {two.ID, "test", true}}, names); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	a := openAdmin(t, o)
	if _, err := a.Revoke(ctx, two.ID); err != nil {
		t.Fatal(err)
	}
	look() // beside others that have them open
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	look()
}
