package billing

import (
	"context"
	"fmt"

	"gorm.io/gorm"
)

// Import adds secrets that are listed elsewhere, under default limits, and
// says how many were new. A secret that the books know, revoked or not, is
// left as it is. ErrInvalid: a secret that no client could present.
func (b *Book) Import(ctx context.Context, secrets []string, origin string) (added int, err error) {
	for i, s := range secrets {
		if !plausible(s) {
			return 0, fmt.Errorf("import keys: %w: secret %d has a form that is refused", ErrInvalid, i+1)
		}
	}
	o := newTask(func(s *statements) (err error) {
		added, err = b.importKeys(s, secrets, origin)
		return err
	})
	if b.isClosed() {
		return 0, fmt.Errorf("import keys: %w", ErrClosed)
	}
	if !b.writer.q.push(o, queueMax) {
		return 0, fmt.Errorf("import keys: %w", ErrUnavailable)
	}
	select {
	case <-o.done:
	case <-b.writer.ended:
		return 0, fmt.Errorf("import keys: %w", ErrClosed)
	case <-ctx.Done():
		return 0, fmt.Errorf("import keys: %w", context.Cause(ctx))
	}
	if o.err != nil {
		return 0, fmt.Errorf("import keys: %w", o.err)
	}
	// The writer's poll does not see commits of its own connection.
	if err := b.keys.load(b.store.read); err != nil {
		return 0, fmt.Errorf("import keys: %w", err)
	}
	return added, nil
}

func (b *Book) importKeys(s *statements, secrets []string, origin string) (added int, err error) {
	tx := b.store.write.Session(&gorm.Session{NewDB: true, Context: context.Background()})
	tx.Statement.ConnPool = s.conn
	for _, secret := range secrets {
		if known, err := knownSecret(tx, b.keys.digests, secret); err != nil || known {
			if err != nil {
				return 0, err
			}
			continue
		}
		k, err := newKey(NewKey{Name: origin, Origin: origin}, secret, b.opt.Now())
		if err != nil {
			return 0, err
		}
		if err := addKey(tx, k, b.keys.digests, secret); err != nil {
			return 0, err
		}
		added++
	}
	return added, nil
}
