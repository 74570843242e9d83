package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/envoy"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// probeWait bounds each look at something outside this machine's disk.
const probeWait = 3 * time.Second

// finding is one line of `check`.
type finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// probe looks at one dependency and says what it found; an error says what to do.
type probe struct {
	name string
	look func(context.Context) (string, error)
}

func newCheckCommand(a *app) *cobra.Command {
	var listener listenerFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and everything the gateway needs, or a listener from outside",
		Long: `Check the configuration and everything the gateway needs, one line each, and list
what is set and where (secrets are masked). Nothing is changed, apart from new
tables in books of an older version. The exit code is 1 when something is wrong.

With --listener nothing of this is done. It proves from outside that the listener
at a URL, of whichever Envoy, lets nobody to the model server without a valid key:
no key, a key that nobody has, forged headers, a WebSocket and odd spellings of a
path must each be refused by the gateway itself. With --key-file a valid key must
get through it (it asks for the models, which costs nothing). The exit code is 1
when a request was not refused, and the message names it.`,
		Example: `  llm-gateway check
  llm-gateway check --listener https://llm.example.com --key-file key`,
	}
	cmd.Flags().String("listen", "", "address of the listener, as for up")
	cmd.Flags().String("upstream", "", "URL of the model server, as for up")
	listener.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if outside, err := listener.fit(cmd); err != nil {
			return err
		} else if outside {
			return a.checkClosed(cmd.Context(), listener)
		}
		c, from, err := loadOrigins(a.sources(cmd))
		if call := (*callError)(nil); errors.As(err, &call) {
			return err
		}
		if err == nil {
			err = c.certificates(from, true).asError()
		}
		if wrong := mistakes(nil); errors.As(err, &wrong) {
			var findings []finding
			for _, line := range wrong {
				findings = append(findings, finding{Name: "config", Detail: line})
			}
			return a.printFindings(findings, []choice{})
		}
		if err != nil {
			return a.printFindings([]finding{{Name: "config", Detail: err.Error()}}, []choice{})
		}
		return a.printFindings(a.look(cmd.Context(), c, from), c.chosen(from))
	}
	return cmd
}

// look runs all probes: each has something to say even when others fail.
func (a *app) look(ctx context.Context, c Config, from origins) []finding {
	findings := []finding{{Name: "config", OK: true, Detail: "complete and valid"}}
	probes := []probe{
		{"data", func(context.Context) (string, error) {
			detail, err := checkData(c.Data)
			return detail, from.blame("data", err)
		}},
		{"books", func(ctx context.Context) (string, error) { return checkBooks(ctx, c, from) }},
		{"envoy", func(ctx context.Context) (string, error) { return a.checkEnvoy(ctx, c) }},
		{"upstream", func(ctx context.Context) (string, error) { return checkUpstream(ctx, c) }},
		{"listen", func(ctx context.Context) (string, error) { return checkListen(ctx, c.Listen) }},
		{"admin", func(ctx context.Context) (string, error) { return checkAdmin(ctx, c) }},
		{"redis", func(ctx context.Context) (string, error) { return checkRedis(ctx, c) }},
	}
	if path := c.keysFile(); path != "" {
		probes = append(probes, probe{"keys", func(context.Context) (string, error) { return checkKeysFile(path) }})
	}
	for _, p := range probes {
		if failing := len(findings) > 1 && !findings[1].OK; failing && (p.name == "books" || p.name == "keys" && c.Auth.KeysFile == "") {
			continue // which are in the data directory, or have their lock there
		}
		detail, err := p.look(ctx)
		if err != nil {
			detail = err.Error()
		}
		findings = append(findings, finding{Name: p.name, OK: err == nil, Detail: detail})
	}
	return findings
}

// choice is a setting that some source sets.
type choice struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`  // secrets are masked
	Source  string `json:"source"` // where it can be changed
}

// chosen are the settings that do not come from the defaults.
func (c Config) chosen(from origins) []choice {
	list := []choice{}
	for _, s := range settings() {
		if origin := from[s.path]; origin != "" {
			list = append(list, choice{s.path, shownValue(fieldOf(&c, s.path)), origin})
		}
	}
	return list
}

func (a *app) printFindings(findings []finding, chosen []choice) error {
	failed := 0
	for _, f := range findings {
		if !f.OK {
			failed++
		}
	}
	if a.json {
		if err := a.printJSON(struct {
			OK       bool      `json:"ok"`
			Checks   []finding `json:"checks"`
			Settings []choice  `json:"settings"`
		}{failed == 0, findings, chosen}); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			word := "ok"
			if !f.OK {
				word = "fail"
			}
			if err := a.printf("%-4s  %-8s  %s\n", word, f.Name, printable(f.Detail)); err != nil {
				return err
			}
		}
		for _, s := range chosen {
			if err := a.printf("set   %s = %s, by %s\n", s.Setting, printable(s.Value), printable(s.Source)); err != nil {
				return err
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(findings))
	}
	return nil
}

// checkData finds out whether the data directory can be written by writing to
// it; permission bits alone do not say it (read-only mounts, other users).
func checkData(dir string) (string, error) {
	at, suffix := dir, ""
	for notThere(at) && filepath.Dir(at) != at {
		at, suffix = filepath.Dir(at), ", will be created"
	}
	info, err := os.Stat(at)
	switch {
	case err != nil:
		return "", fmt.Errorf("%s cannot be used: %w", dir, err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory: name another one with --data", at)
	}
	f, err := os.CreateTemp(at, ".llm-gateway-check-*")
	if err != nil {
		return "", fmt.Errorf("%s is not writable: give this user the right, or name another directory with --data", at)
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return "", fmt.Errorf("%s cannot be used: %w", at, err)
	}
	if suffix == "" && info.Mode().Perm()&0o077 != 0 {
		suffix = fmt.Sprintf(", open to others (mode %04o): chmod 700 closes it", info.Mode().Perm())
	}
	return dir + suffix, nil
}

// notThere also says so of what would be below a file.
func notThere(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// checkBooks looks into existing books; it makes none in a file.
func checkBooks(ctx context.Context, c Config, from origins) (detail string, err error) {
	if err := c.lookForBooks(from); err != nil {
		return "", err
	}
	where := c.databasePath()
	if where == "" {
		where = "PostgreSQL"
	} else if missing(where) && missing(filepath.Join(c.Data, "instance")) {
		return where + ", will be created", nil
	}
	admin, err := billing.OpenAdmin(ctx, c.billingOptions(zap.NewNop()))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	keys, err := admin.Keys(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d keys", where, len(keys)), nil
}

// checkRedis asks the server what the gateway would ask. A Redis that is away
// does not keep a gateway from starting, but whoever runs check wants to know.
func checkRedis(ctx context.Context, c Config) (string, error) {
	o, err := c.limiterOptions(zap.NewNop())
	if err != nil {
		return "", err
	}
	if o.Redis == nil {
		return "not used: rate limits are kept in memory (set REDIS_HOST or REDIS_URL for several gateways)", nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	if err := ratelimit.Probe(ctx, *o.Redis); err != nil {
		return "", fmt.Errorf("%s cannot be used, rate limits would be kept in memory: %w", o.Redis.Address, err)
	}
	return o.Redis.Address + ", reachable", nil
}

// checkEnvoy finds Envoy and lets it validate the configuration that `up` would
// give it. The sockets named in it are in a folder of its own.
func (a *app) checkEnvoy(ctx context.Context, c Config) (_ string, err error) {
	binary, err := findEnvoy(a, c)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "llmgw-check-")
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	u := &upRun{app: a, c: c, folder: runFolder{path: dir}}
	o, err := u.endpoints()
	if err != nil {
		return "", err
	}
	upstream, err := c.envoyUpstream(u.folder)
	if err != nil {
		return "", err
	}
	yaml, err := renderEnvoy(c, o, upstream, u.folder)
	if err != nil {
		return "", err
	}
	if err := envoy.Validate(ctx, binary.Path, yaml); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, version %s, accepts the configuration", binary.Path, binary.Version), nil
}

// checkUpstream connects, and shakes hands where TLS is spoken. It sends no
// request: that could cost money.
func checkUpstream(ctx context.Context, c Config) (string, error) {
	if c.Upstream.URL == "" {
		return "the built-in demo model (set LLM_SERVER_URL to use a real one)", nil
	}
	up, err := envoy.ParseUpstream(c.Upstream.URL)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	address := dialAddress(up)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return "", fmt.Errorf("%s cannot be reached, requests would get 502: %w", address, err)
	}
	if !up.TLS {
		return address + ", reachable", conn.Close()
	}
	roots, err := caPool("LLM_CA_FILE", c.Upstream.CAFile)
	if err != nil {
		return "", errors.Join(err, conn.Close())
	}
	secured := tls.Client(conn, &tls.Config{ServerName: up.Host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := secured.HandshakeContext(ctx); err != nil {
		return "", errors.Join(fmt.Errorf("%s: TLS fails, requests would get 502: %w", address, err), conn.Close())
	}
	return address + ", reachable by TLS", conn.Close()
}

// dialAddress is where Envoy connects to: a URL without a port means that of its
// scheme.
func dialAddress(up envoy.Upstream) string {
	port := up.Port
	switch {
	case port != 0:
	case up.TLS:
		port = 443
	default:
		port = 80
	}
	return net.JoinHostPort(up.Host, strconv.FormatUint(uint64(port), 10))
}

// caPool reads the file of certificates that a setting names; nil means the system's authorities.
func caPool(name, path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be read: %w: name a file of PEM certificates", name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no PEM certificate: name a file of PEM certificates", name, path)
	}
	return pool, nil
}

// checkListen wants the address free, or taken by a gateway that answers.
func checkListen(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return address + ", free", l.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("%s cannot be used: %w", address, err)
	}
	if isGateway(ctx, "http://"+reachable(address)+"/health") {
		return address + ", in use by a running gateway", nil
	}
	return "", fmt.Errorf("%s is in use by another program: end it, or choose another address with LLMGW_LISTEN", address)
}

// isGateway recognises our listener by the server name it gives, whatever its
// health is.
func isGateway(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<16)) // only the header counts
	_ = answer.Body.Close()
	return answer.Header.Get("Server") == "llm-gateway"
}
