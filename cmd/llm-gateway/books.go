package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/MaksimVF/llm-gateway/billing"
)

// withBooks opens the books of the configured data directory beside a running
// gateway, does something with them and closes them. Commands that only make
// sense on existing books refuse a data directory that is not there: a mistyped
// --data must not look like a gateway without keys.
func (a *app) withBooks(cmd *cobra.Command, mayCreate bool, do func(context.Context, Config, *billing.Admin) error) (err error) {
	c, err := a.config(cmd)
	if err != nil {
		return err
	}
	if path := c.databasePath(); !mayCreate && path != "" && missing(c.Data) && missing(path) {
		return fmt.Errorf("there are no books in %s: name the data directory with --data, or make a key first", c.Data)
	}
	log, err := a.logger(c)
	if err != nil {
		return err
	}
	o := c.billingOptions(log)
	o.Actor = operator()
	admin, err := billing.OpenAdmin(cmd.Context(), o)
	if err != nil {
		return err
	}
	defer func() {
		if closed := admin.Close(); closed != nil {
			err = errors.Join(err, fmt.Errorf("close the books: %w", closed))
		}
	}()
	return do(cmd.Context(), c, admin)
}

// operator names the person at the terminal, for the record of changes.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "cli:" + u.Username
	}
	return fmt.Sprintf("cli:uid-%d", os.Getuid()) // a container's user has no name
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// keyError says what to do about a key that cannot be found. The reference may
// be the secret itself, so it is not repeated.
func keyError(err error) error {
	if errors.Is(err, billing.ErrUnknownKey) {
		return errors.New("no such key: --key takes an id of list-keys, or the key itself")
	}
	return err
}
