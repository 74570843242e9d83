package billing

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// StartsUp says whether the PostgreSQL server of a database URL takes connections
// only to say that it cannot serve yet, as for seconds after its start. In every
// other case it is false: whether the books can be opened, opening them tells.
func StartsUp(ctx context.Context, url string) bool {
	c, err := pgConfig(url)
	if err != nil {
		return false
	}
	conn, err := pgx.ConnectConfig(ctx, c)
	if err == nil {
		pgDrop(conn)
		return false
	}
	state, _ := sqlState(err)
	return state == "57P03" // cannot_connect_now
}
