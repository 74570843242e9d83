package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
)

// welcome tells a person what to do with a gateway that has started. Results
// for people go to stdout; everything else is a log line.
type welcome struct {
	app  *app
	c    Config
	base string // what clients put before /v1
	demo bool   // the built-in model answers
	log  *zap.Logger
}

func (w welcome) show(ctx context.Context, g *gateway) {
	out := &strings.Builder{}
	fmt.Fprintf(out, "llm-gateway is ready on %s\n", w.base)
	switch {
	case w.demo:
		fmt.Fprintln(out, "Upstream: the built-in demo model. Set LLM_SERVER_URL to use a real one.")
	case w.c.Upstream.URL != "":
		fmt.Fprintf(out, "Upstream: %s\n", w.c.Upstream.URL)
	}
	secret, err := w.demoKey(ctx, g)
	if err != nil {
		w.log.Error("no demo key could be made", zap.Error(err))
	}
	if secret != "" {
		fmt.Fprintf(out, "Demo key (shown only once): %s\n\nTry it:\n\n  %s\n\n", secret, w.curl(secret))
	} else {
		fmt.Fprintln(out, "Make a key with: llm-gateway create-key --limit 100000 --data "+w.c.Data)
	}
	fmt.Fprint(w.app.stdout, out.String())
}

// curl is a line that works when pasted: a chat with the demo model, or a list
// of the models a real upstream has.
func (w welcome) curl(secret string) string {
	auth := fmt.Sprintf(`-H "Authorization: Bearer %s"`, secret)
	if !w.demo {
		return fmt.Sprintf("curl %s/v1/models %s", w.base, auth)
	}
	return fmt.Sprintf(`curl %s/v1/chat/completions %s -H "Content-Type: application/json" -d '{"model":"demo","messages":[{"role":"user","content":"Hello"}]}'`, w.base, auth)
}

// demoKey makes a key when there has never been one, and waits until the
// running gateway knows it.
func (w welcome) demoKey(ctx context.Context, g *gateway) (secret string, err error) {
	o := w.c.billingOptions(w.log)
	o.Actor = "gateway"
	admin, err := billing.OpenAdmin(ctx, o)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	_, secret, made, err := admin.CreateFirstKey(ctx, billing.NewKey{Name: "Demo", Description: "made by the first start", Origin: billing.OriginDemo})
	if err != nil || !made {
		return "", err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := g.book.Lookup(secret); err == nil {
			return secret, nil
		}
		select {
		case <-ctx.Done():
			return secret, nil
		case <-ticker.C:
		}
	}
}

// answers polls a health route until it answers 200; the pace is no protocol,
// only politeness. It is false when ctx ends first.
func answers(ctx context.Context, client *http.Client, url string) bool {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody); err == nil {
			if answer, err := client.Do(request); err == nil {
				_ = answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					return true
				}
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// reachable is an address a client on this machine can use for the listener.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
