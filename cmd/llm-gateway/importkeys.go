package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

func newImportKeysCommand(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "import-keys --path FILE",
		Short: "Import the keys of a keys.json of the original gateway",
		Long: `Import the keys of a keys.json, in which the original gateway's commands kept
them, or of a backup that they made: an object of keys, each with the tokens per
month that it may use.

  {"<key>": {"max_tokens": 10000, "name": "...", "description": "...", "created_at": "2025-06-01"}}

Only max_tokens is required; a time without a zone counts as UTC. All keys are
imported or, when there is any mistake in the file, none. The books win over the
file: a key that they know is left as it is, revoked and expired ones too. The one
exception is a key that came from ALLOWED_API_KEYS and has no limit of its own: it
takes limit, name and description from the file. So the same file can be imported
again. A running gateway accepts the keys within a second.

A gateway imports the file of LLMGW_AUTH__KEYS_FILE, or keys.json in its data
directory, at each start.`,
		Example: `  llm-gateway import-keys --path billing/keys.json
  llm-gateway import-keys --path keys_backup.json --json | jq .added`,
	}
	cmd.Flags().StringVar(&path, "path", "", "`file` to import (required)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "path"); err != nil {
			return err
		}
		f, err := billing.ReadKeysFile(path)
		if err != nil {
			return notImported(err)
		}
		for _, warning := range f.Warnings {
			a.message(warning)
		}
		return a.withBooks(cmd, true, func(ctx context.Context, c Config, books *billing.Admin) error {
			done, err := books.ImportFile(ctx, f.Keys)
			if err != nil {
				return err
			}
			return a.printImported(c, done)
		})
	}
	return cmd
}

// notImported adds to the mistakes of a file what they led to.
func notImported(err error) error {
	if wrong := billing.KeysFileError(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%w\nnothing was imported", err)
	}
	return err
}

// importView is the document of import-keys --json.
type importView struct {
	Added     int             `json:"added"`
	Updated   int             `json:"updated"`
	Unchanged int             `json:"unchanged"`
	Revoked   int             `json:"revoked"` // or expired
	Keys      []importKeyView `json:"keys"`
}

type importKeyView struct {
	ID     string               `json:"id"`
	Name   string               `json:"name"`
	Limit  int64                `json:"limit"` // tokens per month that hold now
	Result billing.ImportResult `json:"result"`
}

func newImportView(c Config, done []billing.ImportedKey) importView {
	v := importView{Keys: make([]importKeyView, 0, len(done))}
	defaults := c.keyDefaults()
	for i := range done {
		k := &done[i]
		switch k.Result {
		case billing.ImportAdded:
			v.Added++
		case billing.ImportUpdated:
			v.Updated++
		case billing.ImportUnchanged:
			v.Unchanged++
		case billing.ImportRevoked:
			v.Revoked++
		}
		v.Keys = append(v.Keys, importKeyView{ID: k.ID, Name: k.Name, Limit: defaults.Limits(k.Key).Limit, Result: k.Result})
	}
	return v
}

func (a *app) printImported(c Config, done []billing.ImportedKey) error {
	v := newImportView(c, done)
	if a.json {
		return a.printJSON(v)
	}
	if len(v.Keys) > 0 {
		g := grid{columns: []string{"id", "name", "limit", "result"}, numeric: []string{"limit"}}
		for _, k := range v.Keys {
			g.rows = append(g.rows, []string{k.ID, k.Name, thousands(k.Limit), string(k.Result)})
		}
		if err := a.printGrid(g); err != nil {
			return err
		}
		if err := a.printf("\n"); err != nil {
			return err
		}
	}
	return a.printPairs([]pair{
		{"added", thousands(int64(v.Added))},
		{"updated", thousands(int64(v.Updated))},
		{"unchanged", thousands(int64(v.Unchanged))},
		{"revoked", thousands(int64(v.Revoked)) + " (or expired; left so)"},
	})
}

// keysFile is the keys.json that a start imports, "" for none: the configured
// one, or the one that lies in the data directory.
func (c Config) keysFile() string {
	if c.Auth.KeysFile != "" {
		return c.Auth.KeysFile
	}
	if path := filepath.Join(c.Data, "keys.json"); !missing(path) {
		return path
	}
	return ""
}

// importKeysFile makes the keys of the keys.json valid, if there is one.
func importKeysFile(ctx context.Context, book *billing.Book, c Config, log *zap.Logger) error {
	path := c.keysFile()
	if path == "" {
		return nil
	}
	f, err := billing.ReadKeysFile(path)
	if err != nil {
		return fmt.Errorf("%w\nthe gateway does not start: correct the file, move it away, or name another one with LLMGW_AUTH__KEYS_FILE", err)
	}
	for _, warning := range f.Warnings {
		log.Warn("keys file", zap.String("note", warning))
	}
	done, err := book.ImportFile(ctx, f.Keys)
	if err != nil {
		return err
	}
	v := newImportView(c, done)
	log.Info("keys file imported", zap.String("file", path), zap.Int("added", v.Added), zap.Int("updated", v.Updated),
		zap.Int("unchanged", v.Unchanged), zap.Int("revoked", v.Revoked))
	return nil
}

// checkKeysFile reads what the next start would import.
func checkKeysFile(path string) (string, error) {
	f, err := billing.ReadKeysFile(path)
	if wrong := billing.KeysFileError(nil); errors.As(err, &wrong) && len(wrong) > 1 {
		return "", fmt.Errorf("%s (and %d more mistakes: see import-keys)", wrong[0], len(wrong)-1)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d keys", path, len(f.Keys)), nil
}
