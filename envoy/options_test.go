package envoy

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseEndpoint(t *testing.T) {
	for given, want := range map[string]struct{ text, socket, address string }{
		"unix:///run/x.sock":  {"unix:///run/x.sock", "/run/x.sock", ""},
		"unix:/run/x.sock":    {"unix:///run/x.sock", "/run/x.sock", ""},
		"unix:///run//y/../x": {"unix:///run/x", "/run/x", ""},
		"localhost:9000":      {"localhost:9000", "", "localhost:9000"},
		" 127.0.0.1:9000 ":    {"127.0.0.1:9000", "", "127.0.0.1:9000"},
		"[::1]:9000":          {"[::1]:9000", "", "[::1]:9000"},
	} {
		e, err := ParseEndpoint(given)
		if err != nil {
			t.Errorf("%q: %v", given, err)
			continue
		}
		socket, isSocket := e.Socket()
		if e.String() != want.text || socket != want.socket || isSocket != (want.socket != "") || e.Address() != want.address {
			t.Errorf("%q: %q, %q, %q", given, e, socket, e.Address())
		}
		if again, err := ParseEndpoint(e.String()); err != nil || again != e {
			t.Errorf("%q: its String %q reads as %q, %v", given, e, again, err)
		}
	}
	for _, given := range []string{
		"", "host", ":9000", "host:", "host:0", "host:65536", "host:-1", "host:http", "::1:9000", "http://host:1",
		"unix:", "unix://", "unix:///", "unix://relative", "unix:relative", "unix:///a\x00b", "unix:///" + strings.Repeat("a", 107), "a b:1",
	} {
		if e, err := ParseEndpoint(given); !errors.Is(err, ErrOptions) {
			t.Errorf("%q: %q, %v", given, e, err)
		}
	}
}

func TestParseEndpoints(t *testing.T) {
	for given, want := range map[string]int{
		"a:1": 1, "a:1,b:1": 2, " a:1 , 127.0.0.1:1 ,[::1]:1": 3, "unix:///a,unix:///b,127.0.0.1:1": 3, "a:1,a:2": 2,
	} {
		if list, err := ParseEndpoints(given); err != nil || len(list) != want {
			t.Errorf("%q: %v, %v", given, list, err)
		}
	}
	for given, hint := range map[string]string{
		"": "no port", "a:1,": "no port", "a:1,b": "no port", "a:1,b:1,a:1": "twice", "unix:///a,b:1": "both",
	} {
		if list, err := ParseEndpoints(given); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %v, %v; want %q", given, list, err, hint)
		}
	}
}

func TestListenAddress(t *testing.T) {
	for given, want := range map[string]string{
		"0.0.0.0:12000": "0.0.0.0", ":12000": "0.0.0.0", "localhost:12000": "127.0.0.1", "[::]:12000": "::", "[::1]:12000": "::1",
	} {
		ip, port, err := listenAddress(given)
		if err != nil || ip.String() != want || port != 12000 {
			t.Errorf("%q: %v %d %v", given, ip, port, err)
		}
	}
	for _, given := range []string{"", "12000", "example.com:12000", "0.0.0.0:0", "0.0.0.0"} {
		if _, _, err := listenAddress(given); !errors.Is(err, ErrOptions) {
			t.Errorf("%q: %v", given, err)
		}
	}
}

func TestBootstrapRefusesBadOptions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		hint   string
	}{
		"no gRPC":            {func(o *Options) { o.ExtProc = nil }, "gRPC"},
		"no HTTP":            {func(o *Options) { o.API = []Endpoint{{}} }, "HTTP"},
		"the same twice":     {func(o *Options) { o.ExtProc = append(o.ExtProc, o.ExtProc...) }, "twice"},
		"no admin":           {func(o *Options) { o.AdminSocket = "" }, "exactly one"},
		"two admins":         {func(o *Options) { o.AdminAddress = "127.0.0.1:1" }, "exactly one"},
		"public admin":       {func(o *Options) { o.AdminSocket, o.AdminAddress = "", "0.0.0.0:9901" }, "loopback"},
		"public admin, IPv6": {func(o *Options) { o.AdminSocket, o.AdminAddress = "", "[::]:9901" }, "loopback"},
		"admin path":         {func(o *Options) { o.AdminSocket = "admin.sock" }, "absolute"},
		"no listener":        {func(o *Options) { o.Listen = "" }, "listen address"},
		"no upstream":        {func(o *Options) { o.Upstream = Upstream{} }, "upstream URL"},
		"upstream's path":    {func(o *Options) { o.Upstream.BasePath = "v1" }, "plain"},
		"TLS on a socket":    {func(o *Options) { o.Upstream.TLS, o.Upstream.SocketPath = true, "/run/x" }, "combined"},
		"no CA file":         {func(o *Options) { o.Upstream.TLS, o.Upstream.CAFile = true, "/nonexistent/ca.pem" }, "CA file"},
		"negative timeout":   {func(o *Options) { o.UpstreamTimeout = -time.Second }, "positive"},
		"negative message":   {func(o *Options) { o.MessageTimeout = -time.Second }, "positive"},
	} {
		o := goldenOptions(t, "http://127.0.0.1:8080")
		c.change(&o)
		_, err := Bootstrap(o)
		if err == nil || !errors.Is(err, ErrOptions) && !errors.Is(err, ErrUpstream) || !strings.Contains(err.Error(), c.hint) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.hint)
		}
	}
}
