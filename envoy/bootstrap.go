package envoy

import (
	"fmt"
	"net/netip"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// Names that several parts of the configuration share.
const (
	sidecarCluster  = "llmgw"     // the sidecar's gRPC
	apiCluster      = "llmgw_api" // the sidecar's HTTP
	upstreamCluster = "llm"       // the model server
	nobodyCluster   = "nobody"    // has no endpoint and never will
	upstreamRoute   = "llm"
	unknownPaths    = "unknown"
	preflights      = "preflight"
	// statPrefix is what the listener's statistics begin with:
	// http.llm.downstream_rq_active and its kin.
	statPrefix = "llm"
	// metadataNamespace is where the sidecar's word about a request is kept.
	metadataNamespace = "llmgw"
)

// maxDownstreamConnections keeps one crowd of clients from taking every file
// descriptor: each connection may need two more behind it.
const maxDownstreamConnections = 20000

// Bootstrap builds the whole configuration of one Envoy in front of one model
// server. The result differs from another only by its options: the same
// options give the same messages. Errors wrap [ErrOptions] or [ErrUpstream].
func Bootstrap(o Options) (*bootstrapv3.Bootstrap, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	listener, err := listener(o)
	if err != nil {
		return nil, err
	}
	upstream, err := upstreamClusterOf(o.Upstream)
	if err != nil {
		return nil, err
	}
	admin, err := admin(o)
	if err != nil {
		return nil, err
	}
	return &bootstrapv3.Bootstrap{
		Node:                 &corev3.Node{Id: o.NodeID, Cluster: defaultNodeID},
		Admin:                admin,
		LayeredRuntime:       runtimeFlags(),
		OverloadManager:      overloadManager(),
		ApplicationLogConfig: applicationLog(),
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: []*listenerv3.Listener{listener},
			Clusters:  []*clusterv3.Cluster{sidecarClusterOf(o.ExtProc), apiClusterOf(o.API), upstream, nobody()},
		},
	}, nil
}

// admin stays reachable when clients have used up all connections: draining
// and health go through it.
func admin(o Options) (*bootstrapv3.Admin, error) {
	a := &bootstrapv3.Admin{IgnoreGlobalConnLimit: true}
	if o.AdminSocket != "" {
		a.Address = pipe(o.AdminSocket)
		return a, nil
	}
	ip, port, err := listenAddress(o.AdminAddress)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	if !ip.IsLoopback() {
		return nil, fmt.Errorf("%w: admin address %q: whoever reaches it controls Envoy; write a loopback address such as 127.0.0.1:9901", ErrOptions, o.AdminAddress)
	}
	a.Address = socketAddress(ip.String(), port)
	return a, nil
}

// runtimeFlags ends ext_proc streams with END_STREAM in place of a reset.
// Behind a reset the sidecar loses messages that Envoy sent but it had not
// read yet: with them the usage of an answer whose client went away.
func runtimeFlags() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "static",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"envoy.reloadable_features.ext_proc_graceful_grpc_close": structpb.NewBoolValue(true),
		}}},
	}}}
}

func overloadManager() *overloadv3.OverloadManager {
	return &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
		Name: "envoy.resource_monitors.global_downstream_max_connections",
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: anyOf(&connectionsv3.DownstreamConnectionsConfig{
			MaxActiveDownstreamConnections: maxDownstreamConnections,
		})},
	}}}
}

// anyOf packs a message of our own making; that cannot fail unless it holds
// invalid UTF-8, which the options' checks keep out.
func anyOf(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(fmt.Sprintf("envoy: pack %s: %v", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return a
}

func seconds(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }

func pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: 0o600}}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	s := &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}
	if ip, err := netip.ParseAddr(host); err == nil && ip == netip.IPv6Unspecified() {
		s.Ipv4Compat = true // "::" means everybody, as it does for other servers
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: s}}
}
