package envoy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
)

// adminLink is one connection to the admin interface of one Envoy. An Envoy
// whose successor starts leaves the interface's address to that one, but goes
// on answering on the connections that it has.
type adminLink struct {
	adminClient
	conn net.Conn
}

var errLinkLost = errors.New("the connection to this Envoy's admin interface is lost")

// link connects to the Envoy that has the admin interface now.
func (a Admin) link(ctx context.Context) (*adminLink, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask Envoy's admin: %w", err)
	}
	var once sync.Once
	transport := &http.Transport{
		MaxConnsPerHost: 1,
		// Never a second connection: it could be to another Envoy.
		DialContext: func(context.Context, string, string) (c net.Conn, err error) {
			err = errLinkLost
			once.Do(func() { c, err = conn, nil })
			return c, err
		},
	}
	return &adminLink{adminClient{http: &http.Client{Transport: transport}, patient: true}, conn}, nil
}

func (l *adminLink) close() { _ = l.conn.Close() }
