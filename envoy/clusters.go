package envoy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// unlimited takes the place of Envoy's default circuit breakers, whose 1,024
// requests would be the gateway's real limit. What may run is decided by keys
// and tariffs.
const unlimited = 1_000_000

// Idle connections to the model server are closed before the far side does:
// a request sent into a closing connection is lost and cannot be repeated.
// Common application servers close after 5 s, hosted ones after a minute.
const (
	plainIdle = 4 * time.Second
	tlsIdle   = 50 * time.Second
)

// systemCAFiles are where systems keep their bundle of trusted certificates.
func systemCAFiles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/ssl/cert.pem",                                 // Alpine, BSD, macOS
	}
}

// upstreamClusterOf is the model server's cluster, with the lock in it.
func upstreamClusterOf(u Upstream) (*clusterv3.Cluster, error) {
	c := cluster(upstreamCluster, 5*time.Second)
	place(c, Endpoint{socket: u.SocketPath, host: u.Host, port: u.port()})
	if u.Replicas {
		spread(c, &corev3.HealthCheck{HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host: u.authority(), Path: u.prefix() + "models",
		}}})
	}
	if !u.TLS {
		c.TypedExtensionProtocolOptions = protocol(locked(http1(plainIdle)))
		return c, nil
	}
	ca, err := caFile(u.CAFile)
	if err != nil {
		return nil, err
	}
	c.TypedExtensionProtocolOptions = protocol(locked(&upstreamsv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: idle(tlsIdle),
		// Without auto_san_validation any name of a trusted authority would do.
		UpstreamHttpProtocolOptions: &corev3.UpstreamHttpProtocolOptions{AutoSni: true, AutoSanValidation: true},
		UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_AutoConfig{AutoConfig: &upstreamsv3.HttpProtocolOptions_AutoHttpConfig{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{}, Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
		}},
	}))
	c.TransportSocket = &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: anyOf(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
				TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, // Envoy's own default for clients is 1.2
			},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: ca}},
			}},
		}})},
	}
	return c, nil
}

// locked puts the lock into a cluster, where every route to it meets it, whichever
// listener it is of and whatever filters that has.
func locked(o *upstreamsv3.HttpProtocolOptions) *upstreamsv3.HttpProtocolOptions {
	o.HttpFilters = []*hcmv3.HttpFilter{
		filter(addedLock, lock()),
		filter("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{}),
	}
	return o
}

// httpProtocolOptions is where a cluster has its options of HTTP.
const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// nobody is where unknown paths lead.
func nobody() *clusterv3.Cluster {
	c := cluster(nobodyCluster, time.Second)
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: nobodyCluster}
	return c
}

func cluster(name string, connectTimeout time.Duration) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:           name,
		ConnectTimeout: durationpb.New(connectTimeout),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections:     wrapperspb.UInt32(unlimited),
			MaxPendingRequests: wrapperspb.UInt32(unlimited),
			MaxRequests:        wrapperspb.UInt32(unlimited),
			MaxRetries:         wrapperspb.UInt32(unlimited),
		}}},
	}
}

// place gives a cluster its addresses. Names are looked up: by LOGICAL_DNS,
// which takes one address of a name and suits a model server behind a large
// balancer.
func place(c *clusterv3.Cluster, list ...Endpoint) {
	discovery := clusterv3.Cluster_STATIC
	if slices.ContainsFunc(list, func(e Endpoint) bool { return e.socket == "" && e.isName() }) {
		discovery = clusterv3.Cluster_LOGICAL_DNS
		c.DnsLookupFamily = clusterv3.Cluster_V4_PREFERRED
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: discovery}
	endpoints := make([]*endpointv3.LbEndpoint, 0, len(list))
	for _, e := range list {
		address := socketAddress(e.host, e.port)
		if e.socket != "" {
			address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: e.socket}}}
		}
		endpoints = append(endpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
		})
	}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{
		ClusterName: c.Name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}},
	}
}

func protocol(o *upstreamsv3.HttpProtocolOptions) map[string]*anypb.Any {
	return map[string]*anypb.Any{httpProtocolOptions: anyOf(o)}
}

func http1(idleTimeout time.Duration) *upstreamsv3.HttpProtocolOptions {
	return &upstreamsv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: idle(idleTimeout),
		UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &corev3.Http1ProtocolOptions{}},
		}},
	}
}

// idle is how long an unused connection is kept; 0 leaves Envoy's hour.
func idle(d time.Duration) *corev3.HttpProtocolOptions {
	if d == 0 {
		return nil
	}
	return &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(d)}
}

// caFile finds the trusted certificates now rather than when Envoy starts, so
// that a missing file is an error with a name.
func caFile(given string) (string, error) {
	if given != "" {
		if _, err := os.Stat(given); err != nil {
			return "", fmt.Errorf("%w: CA file: %w", ErrOptions, err)
		}
		return given, nil
	}
	for _, file := range systemCAFiles() {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", fmt.Errorf("%w: %w", ErrOptions, errors.New("no trusted certificates found on this system; install ca-certificates or name a CA file (LLM_CA_FILE)"))
}
