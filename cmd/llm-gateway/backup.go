package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

func newBackupCommand(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "backup --path FILE",
		Short: "Write a consistent copy of the books to one file",
		Long: `Write a consistent copy of the books to one file, beside gateways that go on
working. It is a ZIP archive of an SQLite database and a manifest with its digest,
whichever database the books are in, and can be restored into either. It holds
digests of keys, never keys. A backup that is there is replaced when the new one
is complete; any other file is refused.`,
	}
	cmd.Flags().StringVar(&path, "path", "", "`file` to write (required)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(cmd.Flags(), "path"); err != nil {
			return err
		}
		return a.withBooks(cmd, false, func(ctx context.Context, _ Config, books *billing.Admin) error {
			bar := a.progress("copying the books", "packing", "")
			m, err := books.Backup(ctx, path, billing.BackupOptions{GatewayVersion: buildVersion(), Progress: bar.at})
			bar.end()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					Path string `json:"path"`
					billing.Manifest
				}{path, m})
			}
			return a.printPairs(append([]pair{{"written", path}}, manifestPairs(m)...))
		})
	}
	return cmd
}

func newRestoreCommand(a *app) *cobra.Command {
	var path string
	var force, unbalanced bool
	cmd := &cobra.Command{
		Use:   "restore --path FILE",
		Short: "Put the books of a backup in place; keeps the old ones aside",
		Long: `Put the books of a backup in the place of the configured ones. No gateway may be
using those. Everything is checked before anything is touched: that the file is
whole and a backup, that its digest and its schema fit, that the books in it
balance. The books that are there are kept aside, in a folder beside them, or in a
schema of PostgreSQL. Charges made since the backup are in those only.`,
	}
	f := cmd.Flags()
	f.StringVar(&path, "path", "", "backup `file` (required)")
	f.BoolVar(&force, "force", false, "do not ask")
	f.BoolVar(&unbalanced, "accept-unbalanced", false, "restore books that do not balance, too")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := requireFlags(f, "path"); err != nil {
			return err
		}
		c, err := a.config(cmd)
		if err != nil {
			return err
		}
		m, err := billing.ReadBackup(path)
		if errors.Is(err, billing.ErrBackup) && billing.IsKeysFile(path) {
			return fmt.Errorf("%s is a keys.json of the original gateway: use import-keys --path", path)
		}
		if err != nil {
			return err
		}
		if place := c.databasePath(); !force && (place == "" || !missing(place)) && !a.agreed(m) {
			return errors.New("nothing was restored: answer yes, or use --force")
		}
		bar := a.progress("", "unpacking", "checking the books")
		done, err := billing.Restore(cmd.Context(), c.billingOptions(nil), path, billing.RestoreOptions{AcceptUnbalanced: unbalanced, Progress: bar.at})
		bar.end()
		if err != nil {
			return restoreError(err)
		}
		return a.printRestored(done)
	}
	return cmd
}

func (a *app) agreed(m billing.Manifest) bool {
	return a.yes(fmt.Sprintf("Replace the books by those of %s (%s keys, %s charges)? The old ones are kept aside.",
		m.CreatedAt.Format(time.RFC3339), thousands(m.Keys), thousands(m.Charges)))
}

func restoreError(err error) error {
	switch {
	case errors.Is(err, billing.ErrInUse):
		return fmt.Errorf("%w: stop it first", err)
	case errors.Is(err, billing.ErrUnbalanced):
		return fmt.Errorf("%w (--accept-unbalanced restores them all the same)", err)
	}
	return err
}

func (a *app) printRestored(r billing.Restored) error {
	if a.json {
		return a.printJSON(struct {
			billing.Manifest
			Balanced  bool   `json:"balanced"`
			KeptAside string `json:"kept_aside"` // "" = there were no books
		}{r.Manifest, r.Audit.Balanced, r.Aside})
	}
	pairs := append([]pair{{"restored", r.CreatedAt.Format(time.RFC3339)}}, manifestPairs(r.Manifest)...)
	if r.Aside != "" {
		pairs = append(pairs, pair{"old books", "kept in " + r.Aside})
	}
	if !r.Audit.Balanced {
		pairs = append(pairs, pair{"balance", fmt.Sprintf("NOT balanced, problems: %d (see audit)", len(r.Audit.Problems))})
	}
	return a.printPairs(pairs)
}

func manifestPairs(m billing.Manifest) []pair {
	return []pair{
		{"keys", thousands(m.Keys)},
		{"charges", fmt.Sprintf("%s, %s tokens", thousands(m.Charges), thousands(m.UsedTokens))},
		{"open holds", thousands(m.OpenHolds)},
		{"sha256", m.SHA256},
	}
}
