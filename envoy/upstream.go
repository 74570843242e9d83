package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// ErrUpstream says that the model server's URL cannot be used.
var ErrUpstream = errors.New("upstream URL")

// defaultBasePath is where OpenAI's API and nearly all that imitate it live.
const defaultBasePath = "/v1"

// endpointSuffixes end the URLs that people copy from a curl line. What stands
// before them is the base.
func endpointSuffixes() []string {
	return []string{"/chat/completions", "/completions", "/embeddings", "/models"}
}

// Upstream is the model server that admitted requests go to.
type Upstream struct {
	TLS  bool
	Host string // DNS name or IP address, without brackets
	Port uint32 // 0: the scheme's default
	// BasePath replaces the client's /v1: "/v1" and "" change nothing, "/"
	// leaves only what follows.
	BasePath string
	// CAFile holds the PEM certificates trusted under TLS; "" means the
	// system's.
	CAFile string
	// SocketPath, when set, is a Unix socket that is dialled in place of Host,
	// which is still what the Host header says. Not with TLS.
	SocketPath string
	// Replicas says that several equal servers may stand behind Host, each of
	// which answers GET /models of its own: requests are spread over those that
	// do.
	Replicas bool
}

// ParseUpstream reads the URL of a model server: a bare host
// (http://host:8080), a base path (https://host/openai/v1) or a whole endpoint
// (http://host/v1/chat/completions). A bare host means /v1. Without a scheme,
// host:port is plain HTTP. Errors wrap [ErrUpstream], say what to write and
// never repeat the URL, which may hold a secret.
func ParseUpstream(raw string) (Upstream, error) {
	raw = strings.TrimSpace(raw)
	if raw == "" {
		return Upstream{}, badUpstream("it is empty; write something like http://localhost:8080")
	}
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
		if u, err := url.Parse(raw); err == nil && u.Port() == "" {
			return Upstream{}, badUpstream("the scheme is missing; write http:// or https:// before the host")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Upstream{}, badUpstream("it cannot be read (%s); write something like https://host/v1", reason(err))
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return Upstream{}, badUpstream("the scheme must be http or https")
	case u.User != nil:
		return Upstream{}, badUpstream("remove the user and password; the upstream's key is a setting of its own")
	case u.RawQuery != "" || u.ForceQuery:
		return Upstream{}, badUpstream("remove everything from the ? on; a query cannot be passed on")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return Upstream{}, badUpstream("remove everything from the # on")
	case u.Hostname() == "":
		return Upstream{}, badUpstream("the host is missing; write something like http://localhost:8080")
	}
	up := Upstream{TLS: u.Scheme == "https", Host: strings.ToLower(u.Hostname())}
	if text := u.Port(); text != "" || strings.HasSuffix(u.Host, ":") {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return Upstream{}, badUpstream("the port must be a number from 1 to 65535")
		}
		up.Port = uint32(n)
	}
	up.BasePath = basePath(u.EscapedPath())
	return up, up.check()
}

// basePath cuts trailing slashes and a known endpoint from a URL's path.
func basePath(p string) string {
	p = strings.TrimRight(p, "/")
	if p == "" {
		return defaultBasePath
	}
	for _, suffix := range endpointSuffixes() {
		if base, ok := strings.CutSuffix(p, suffix); ok {
			p = base
			break
		}
	}
	if p == "" {
		return "/"
	}
	return p
}

func (u Upstream) check() error {
	if err := checkHost(u.Host); err != nil {
		return badUpstream("%w", err)
	}
	if u.Port > 65535 {
		return badUpstream("the port must be a number from 1 to 65535")
	}
	if b := u.base(); !path.IsAbs(b) || path.Clean(b) != b || strings.ContainsAny(b, "?#\\ \"%") || !isPrintable(b) {
		return badUpstream("the path must be plain, without //, .. or escapes, as in https://host/openai/v1")
	}
	if u.SocketPath != "" {
		if u.TLS {
			return badUpstream("a Unix socket and TLS cannot be combined")
		}
		if err := checkSocketPath(u.SocketPath); err != nil {
			return badUpstream("%w", err)
		}
	}
	return nil
}

// authority is the Host header the model server sees.
func (u Upstream) authority() string {
	host := u.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if u.Port == 0 || u.Port == u.defaultPort() {
		return host
	}
	return net.JoinHostPort(u.Host, strconv.FormatUint(uint64(u.Port), 10))
}

func (u Upstream) port() uint32 {
	if u.Port == 0 {
		return u.defaultPort()
	}
	return u.Port
}

func (u Upstream) defaultPort() uint32 {
	if u.TLS {
		return 443
	}
	return 80
}

func (u Upstream) base() string {
	if u.BasePath == "" {
		return defaultBasePath
	}
	return u.BasePath
}

// prefix replaces "/v1/" at the head of the client's path, so it ends in a
// slash as well.
func (u Upstream) prefix() string { return strings.TrimSuffix(u.base(), "/") + "/" }

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func badUpstream(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUpstream}, args...)...)
}

// reason is a parse error without the URL, which net/url repeats.
func reason(err error) string {
	var e *url.Error
	if !errors.As(err, &e) {
		return "malformed"
	}
	var host url.InvalidHostError
	var escape url.EscapeError
	switch {
	case errors.As(e.Err, &host):
		return "the host contains a character that is not allowed"
	case errors.As(e.Err, &escape):
		return "an escape is broken"
	default:
		return "malformed"
	}
}
