package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// CLI runs the product's commands on a data directory.
type CLI struct {
	Binary string
	Data   string
	Env    []string // complete environment, nil = MinimalEnv
	Dir    string   // working directory
}

// Result is what one command left behind.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run executes one command. An exit code other than 0 is no error.
func (c CLI) Run(args ...string) (Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Binary, append(args, "--data", c.Data)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = &stdout, &stderr, c.Env, c.Dir
	if cmd.Env == nil {
		cmd.Env = MinimalEnv()
	}
	err := cmd.Run()
	out := Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		err = nil
	}
	return out, err
}

// decode runs a command with --json and reads its one document. The exit code
// must be one of ok.
func (c CLI) decode(out any, ok []int, args ...string) error {
	r, err := c.Run(append(args, "--json")...)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	allowed := false
	for _, code := range ok {
		allowed = allowed || code == r.Code
	}
	if !allowed {
		return fmt.Errorf("%s: exit %d: %s", args[0], r.Code, r.Stderr)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(r.Stdout)))
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("%s: %w in %q", args[0], err, r.Stdout)
	}
	if d.More() {
		return fmt.Errorf("%s: more than one JSON document: %q", args[0], r.Stdout)
	}
	return nil
}

// NewKey is the answer of create-key.
type NewKey struct {
	ID    string `json:"id"`
	Key   string `json:"key"`
	Name  string `json:"name"`
	Limit int64  `json:"limit"`
}

// CreateKey makes a key with a tariff of limit tokens a month, more flags as
// given.
func (c CLI) CreateKey(limit int64, flags ...string) (NewKey, error) {
	var k NewKey
	err := c.decode(&k, []int{0}, append([]string{"create-key", "--limit", strconv.FormatInt(limit, 10)}, flags...)...)
	if err == nil && (k.ID == "" || k.Key == "") {
		err = fmt.Errorf("create-key: no id or no key in its answer")
	}
	return k, err
}

// UsageRow is one row of usage.
type UsageRow struct {
	Day        string                     `json:"day"`
	KeyID      string                     `json:"key_id"`
	Model      string                     `json:"model"`
	Prompt     int64                      `json:"prompt_tokens"`
	Completion int64                      `json:"completion_tokens"`
	Total      int64                      `json:"total_tokens"`
	Requests   int64                      `json:"requests"`
	Cost       string                     `json:"cost"` // exact decimal
	Unpriced   int64                      `json:"unpriced_requests"`
	Provenance map[string]json.RawMessage `json:"provenance"`
}

// Is tells whether all of the row's charges have that provenance.
func (r UsageRow) Is(word string) bool {
	_, ok := r.Provenance[word]
	return ok && len(r.Provenance) == 1
}

// Words lists the row's provenances as one string, for messages.
func (r UsageRow) Words() string {
	b, err := json.Marshal(r.Provenance)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// UsageTable is the answer of usage.
type UsageTable struct {
	Rows  []UsageRow `json:"rows"`
	Total UsageRow   `json:"total"`
}

// Usage reads the books by columns such as "key,model".
func (c CLI) Usage(by string, flags ...string) (UsageTable, error) {
	var t UsageTable
	return t, c.decode(&t, []int{0}, append([]string{"usage", "--by", by}, flags...)...)
}

// UsageByModel reads the books by model. With one model name a request it
// tells every single charge.
func (c CLI) UsageByModel(flags ...string) (map[string]UsageRow, error) {
	t, err := c.Usage("model", flags...)
	if err != nil {
		return nil, err
	}
	out := make(map[string]UsageRow, len(t.Rows))
	for _, r := range t.Rows {
		if _, twice := out[r.Model]; twice {
			return nil, fmt.Errorf("usage: two rows for model %q", r.Model)
		}
		out[r.Model] = r
	}
	return out, nil
}

// AuditReport is the answer of audit.
type AuditReport struct {
	Balanced  bool              `json:"balanced"`
	Keys      int64             `json:"keys"`
	Charges   int64             `json:"charges"`
	OpenHolds int64             `json:"open_holds"`
	Problems  []json.RawMessage `json:"problems"`
}

// Audit proves the books; an unbalanced report is no error.
func (c CLI) Audit() (AuditReport, error) {
	var a AuditReport
	return a, c.decode(&a, []int{0, 1}, "audit")
}

// SetLimit changes limits, for example SetLimit(key, "--daily", "100").
func (c CLI) SetLimit(key string, flags ...string) error {
	var any json.RawMessage
	return c.decode(&any, []int{0}, append([]string{"set-limit", "--key", key}, flags...)...)
}

// RevokeKey revokes without asking.
func (c CLI) RevokeKey(key string) error {
	var any json.RawMessage
	return c.decode(&any, []int{0}, "revoke-key", "--key", key, "--force")
}
