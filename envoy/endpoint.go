package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Endpoint is an address of the sidecar: a Unix socket or a TCP host and port.
// The zero value is no address.
type Endpoint struct {
	socket string
	host   string
	port   uint32
}

// ParseEndpoint reads "unix:///absolute/path" or "host:port" ("[::1]:9000" for
// IPv6). Errors wrap [ErrOptions] and say what to write.
func ParseEndpoint(s string) (Endpoint, error) {
	s = strings.TrimSpace(s)
	if socket, ok := strings.CutPrefix(s, "unix:"); ok {
		if rest, ok := strings.CutPrefix(socket, "//"); ok {
			socket = rest
		}
		if err := checkSocketPath(socket); err != nil {
			return Endpoint{}, fmt.Errorf("%w: address %q: %w", ErrOptions, s, err)
		}
		return Endpoint{socket: path.Clean(socket)}, nil
	}
	host, port, err := splitHostPort(s)
	if err == nil && host == "" {
		err = errors.New("the host is missing")
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("%w: address %q: %w; write unix:///path or host:port", ErrOptions, s, err)
	}
	return Endpoint{host: host, port: port}, nil
}

// ParseEndpoints reads a list of addresses, separated by commas, as
// [ParseEndpoint] reads each.
func ParseEndpoints(s string) ([]Endpoint, error) {
	var list []Endpoint
	for item := range strings.SplitSeq(s, ",") {
		e, err := ParseEndpoint(item)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	if err := checkEndpoints(list); err != nil {
		return nil, fmt.Errorf("%w: addresses %q: %w", ErrOptions, s, err)
	}
	return list, nil
}

// checkEndpoints wants the addresses of one cluster. An address that stands
// there twice would get twice its share.
func checkEndpoints(list []Endpoint) error {
	if len(list) == 0 || slices.Contains(list, Endpoint{}) {
		return errors.New("the address is missing")
	}
	for i, e := range list {
		if slices.Contains(list[:i], e) {
			return fmt.Errorf("%s is there twice", e)
		}
	}
	isSocket := func(e Endpoint) bool { return e.socket != "" }
	if slices.ContainsFunc(list, isSocket) && slices.ContainsFunc(list, Endpoint.isName) {
		return errors.New("a list cannot hold both Unix sockets and names: Envoy looks up all addresses of a cluster, or none")
	}
	return nil
}

// isName says whether the address has to be looked up.
func (e Endpoint) isName() bool {
	_, err := netip.ParseAddr(e.host)
	return e.host != "" && err != nil
}

// Socket returns the path of a Unix socket, and whether the endpoint is one.
func (e Endpoint) Socket() (string, bool) { return e.socket, e.socket != "" }

// Address returns host:port, or "" for a Unix socket.
func (e Endpoint) Address() string {
	if e.host == "" {
		return ""
	}
	return net.JoinHostPort(e.host, strconv.FormatUint(uint64(e.port), 10))
}

// String returns the form that [ParseEndpoint] reads.
func (e Endpoint) String() string {
	if e.socket != "" {
		return "unix://" + e.socket
	}
	return e.Address()
}
