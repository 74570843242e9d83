package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/MaksimVF/llm-gateway/billing"
)

// checkpoint is what audit --checkpoint keeps in a file: where the chains of
// charges ended.
type checkpoint struct {
	Chains []billing.ChainHead `json:"chains"`
}

// readCheckpoint reads the file of an earlier audit; one that is not there is of
// a first audit.
func readCheckpoint(path string) (c checkpoint, err error) {
	content, err := readSmall(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read the checkpoint: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || c.Chains == nil {
		return c, fmt.Errorf("%s is no checkpoint: name another file, or move it away for a first one", path)
	}
	return c, nil
}

// writeCheckpoint replaces the file at once: half a checkpoint is none.
func writeCheckpoint(path string, c checkpoint) error {
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	if err := replaceFile(path, append(content, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	return nil
}
