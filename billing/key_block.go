package billing

import (
	"context"
	"fmt"
)

// Block keeps a key out until Unblock lets it in again; its limits and figures
// stay as they are. Blocking twice changes nothing. Errors: ErrUnknownKey;
// ErrRevokedKey for a key that is out for good.
func (a *Admin) Block(ctx context.Context, ref string) (Key, error) {
	_, now, err := a.change(ctx, ref, actionBlock, func(k Key, _ tariffs) (map[string]any, error) {
		switch {
		case !k.RevokedAt.IsZero():
			return nil, ErrRevokedKey
		case !k.BlockedAt.IsZero():
			return nil, nil
		}
		return map[string]any{"blocked_at": micros(a.opt.Now())}, nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("block key: %w", err)
	}
	return now, nil
}

// Unblock lets a blocked key in again; one that is not blocked stays as it is.
// Errors: ErrUnknownKey; ErrRevokedKey: a revocation is never undone.
func (a *Admin) Unblock(ctx context.Context, ref string) (Key, error) {
	_, now, err := a.change(ctx, ref, actionUnblock, func(k Key, _ tariffs) (map[string]any, error) {
		switch {
		case !k.RevokedAt.IsZero():
			return nil, ErrRevokedKey
		case k.BlockedAt.IsZero():
			return nil, nil
		}
		return map[string]any{"blocked_at": int64(0)}, nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("unblock key: %w", err)
	}
	return now, nil
}
