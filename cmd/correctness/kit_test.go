//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestKit runs the whole kit against our own gateway, small.
func TestKit(t *testing.T) {
	binary, err := rig.FindGateway("../../bin/llm-gateway")
	if err != nil {
		t.Fatalf("the binary under test: %v (make build, or set LLMGW_BIN)", err)
	}
	dir, err := os.MkdirTemp("", "kit") // short: socket paths have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var ports rig.Ports
	listen, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := ports.Next()
	if err != nil {
		t.Fatal(err)
	}
	const streams = 3
	data := "--data " + filepath.Join(dir, "d")
	var stdout, stderr bytes.Buffer
	err = run(t.Context(), []string{
		"-gateway", "http://" + listen, "-upstream", upstream, "-json",
		"-run", fmt.Sprintf("env LLMGW_RESERVE__MAX_WAIT=3s %s up %s --listen %s --upstream http://%s", binary, data, listen, upstream),
		"-new-key", fmt.Sprintf(`%s create-key %s --limit $BUDGET --daily 1000000000 --monthly 1000000000 --rpm 1000000 --json | sed 's/.*"key":"\([^"]*\)".*/\1/'`, binary, data),
		"-used", fmt.Sprintf(`%s usage %s --key "$KEY" --json | sed 's/.*"total":{[^}]*"total_tokens":\([0-9]*\).*/\1/'`, binary, data),
		"-fits", "2", "-parallel", "20", "-streams", fmt.Sprint(streams), "-answers", "20", "-settle", "2s",
	}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var got report
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Findings) != 10 {
		t.Fatalf("%d findings, want 10: %s", len(got.Findings), &stdout)
	}
	for i, f := range got.Findings {
		// A prompt that the server never stated is counted, roles included.
		least, most := f.Delivered, f.Delivered+4*int64(f.Requests)
		switch i {
		case 0, 1, 2, 5, 7, 8: // the server's own figures reached the gateway
			most = f.Delivered
		case 9: // killed in the middle: a rough prompt, and what came until the last checkpoint
			least, most = streams*promptTokens, 2*f.Delivered
		}
		if f.Used < least || f.Used > most || f.Answered == 0 && i != 1 || f.UsageChunks > 0 && i != 2 && i != 3 {
			t.Errorf("%q: %+v, want %d to %d used", f.Scenario, f, least, most)
		}
		if f.Budget > 0 && f.Delivered > f.Budget {
			t.Errorf("%q: %d delivered, the budget is %d", f.Scenario, f.Delivered, f.Budget)
		}
	}
	if both := got.Findings[1].Delivered; both != 2*(promptTokens+1000) {
		t.Errorf("a budget for 2 let %d tokens through, want all of %d", both, 2*(promptTokens+1000))
	}
}
