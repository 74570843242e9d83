package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
)

// ErrOptions says that a value the caller gave cannot become a configuration.
var ErrOptions = errors.New("envoy options")

// Defaults of [Options]; zero values mean these.
const (
	DefaultMaxRequestBytes = 32 << 20
	DefaultUpstreamTimeout = 300 * time.Second
	DefaultMessageTimeout  = 5 * time.Second
	defaultNodeID          = "llm-gateway"
)

// Options is what differs between two gateways' Envoys.
type Options struct {
	// Listen is the IP address and port that clients connect to. An empty host
	// means every IPv4 address, "localhost" 127.0.0.1, "::" IPv4 and IPv6.
	Listen string
	// ExtProc is where the gRPC of the sidecars listens, API their HTTP. One
	// address is one sidecar. Several addresses, or a name, which may stand for
	// several, are replicas: requests are spread over those that are healthy.
	ExtProc, API []Endpoint
	// Upstream is the model server.
	Upstream Upstream
	// AdminSocket is the path of a Unix socket for Envoy's admin interface.
	// Where there can be none, AdminAddress is a loopback host:port: whoever
	// reaches it can stop this Envoy. Exactly one of the two is set.
	AdminSocket, AdminAddress string
	// MaxRequestBytes is the largest request body, which Envoy holds in memory
	// until it is admitted; beyond it 413.
	MaxRequestBytes uint32
	// UpstreamTimeout bounds the model server's silence before the first byte
	// (504) and inside an answer (the answer is cut).
	UpstreamTimeout time.Duration
	// MessageTimeout is how long the sidecar may take for one message before
	// Envoy gives up on the request (503).
	MessageTimeout time.Duration
	// CORS says which web pages may use this gateway.
	CORS CORS
	// NodeID names this Envoy in its own logs and statistics.
	NodeID string
}

// withDefaults fills zero values and checks everything that Envoy itself would
// report less clearly.
func (o Options) withDefaults() (Options, error) {
	o = o.filled()
	return o, errors.Join(o.checkSidecars(), o.checkAdmin(), o.CORS.Check(), o.Upstream.check())
}

func (o Options) filled() Options {
	if o.MaxRequestBytes == 0 {
		o.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if o.UpstreamTimeout == 0 {
		o.UpstreamTimeout = DefaultUpstreamTimeout
	}
	if o.MessageTimeout == 0 {
		o.MessageTimeout = DefaultMessageTimeout
	}
	if o.NodeID == "" {
		o.NodeID = defaultNodeID
	}
	return o
}

// checkSidecars wants sidecars, and times that they can keep.
func (o Options) checkSidecars() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...))
	}
	if err := checkEndpoints(o.ExtProc); err != nil {
		bad("the sidecar's gRPC: %w", err)
	}
	if err := checkEndpoints(o.API); err != nil {
		bad("the sidecar's HTTP: %w", err)
	}
	if o.UpstreamTimeout < 0 {
		bad("the upstream timeout is %v; write a positive duration such as 300s", o.UpstreamTimeout)
	}
	if o.MessageTimeout < 0 {
		bad("the message timeout is %v; write a positive duration such as 5s", o.MessageTimeout)
	}
	return errors.Join(errs...)
}

func (o Options) checkAdmin() error {
	switch {
	case (o.AdminSocket == "") == (o.AdminAddress == ""):
		return fmt.Errorf("%w: exactly one of admin socket and admin address must be set", ErrOptions)
	case o.AdminSocket != "":
		if err := checkSocketPath(o.AdminSocket); err != nil {
			return fmt.Errorf("%w: admin socket: %w", ErrOptions, err)
		}
	}
	return nil
}

// maxSocketPath is sun_path on Linux without its terminating zero.
const maxSocketPath = 107

func checkSocketPath(p string) error {
	switch {
	case !path.IsAbs(p) || path.Clean(p) == "/":
		return errors.New("a Unix socket needs an absolute path, as in unix:///run/llmgw/extproc.sock")
	case strings.ContainsRune(p, 0):
		return errors.New("a path cannot contain a zero byte")
	case len(p) > maxSocketPath:
		return fmt.Errorf("the path has %d bytes, a Unix socket at most %d; choose a shorter folder", len(p), maxSocketPath)
	}
	return nil
}

func splitHostPort(s string) (host string, port uint32, err error) {
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, errors.New("no port")
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 {
		return "", 0, errors.New("the port must be a number from 1 to 65535")
	}
	if host != "" {
		if err := checkHost(host); err != nil {
			return "", 0, err
		}
	}
	return host, uint32(n), nil
}

// checkHost accepts IP addresses and DNS names in ASCII. A name must not be
// able to change the meaning of the place it is written to.
func checkHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return errors.New("an IPv6 zone is not supported")
		}
		return nil
	}
	if len(host) > 253 {
		return errors.New("the host name is too long")
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return errors.New("the host is no IP address and no DNS name (write internationalised names in their xn-- form)")
		}
	}
	return nil
}

// listenAddress returns the IP address that Envoy binds; Envoy resolves no
// names here.
func listenAddress(listen string) (ip netip.Addr, port uint32, err error) {
	host, port, err := splitHostPort(listen)
	if err != nil {
		return ip, 0, fmt.Errorf("%w: listen address %q: %w; write ip:port, as in 0.0.0.0:12000", ErrOptions, listen, err)
	}
	switch host {
	case "":
		return netip.IPv4Unspecified(), port, nil
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), port, nil
	}
	if ip, err = netip.ParseAddr(host); err != nil {
		return ip, 0, fmt.Errorf("%w: listen address %q: the host must be an IP address, as in 0.0.0.0:12000", ErrOptions, listen)
	}
	return ip, port, nil
}
