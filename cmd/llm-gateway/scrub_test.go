package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// Whatever reaches the log, keys and configured secrets do not leave it, and
// each line stays one JSON object.
func TestLog_hidesSecretsAndKeepsLines(t *testing.T) {
	c := Default()
	c.Upstream.APIKey = "upstream-secret-1"
	c.Auth.AllowedKeys = []Secret{"sk-test-key-1"}
	c.Database.URL = "postgres://llmgw:pass-word-77@db/llmgw"
	c.Redis.Password = "short"
	var out bytes.Buffer
	log, err := (&app{stderr: &out}).logger(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"plain", "sk-lgw_0123456789abcdefghijklmnopqrstuvwxyzAB", "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa", "upstream-secret-1", "sk-test-key-1",
		"dial postgres://llmgw:pass-word-77@db/llmgw: refused", "line\nbreak\r\n", "\x1b[31mred", "nul\x00", "\u2028\u2029", "\"quote\\", "bad\xff\xfeutf8",
		strings.Repeat("x", 1<<16), "sk-lgw_…wxyz",
	} {
		log.Error(text, zap.String("path", text), zap.String(text, "name"))
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 14 {
		t.Fatalf("%d lines, want 14", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %.200q", line)
		}
	}
	for _, secret := range []string{"0123456789abcdefghij", "aaaaaaaa", "upstream-secret-1", "sk-test-key-1", "pass-word-77"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
	if !strings.Contains(lines[13], "sk-lgw_…wxyz") {
		t.Error("a masked key was masked again")
	}
}
