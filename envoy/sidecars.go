package envoy

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commondnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Replicas are looked up and probed often: what is gone or hangs is out of
// service within a few seconds, what is back is in service within one.
const (
	lookupInterval = 2 * time.Second
	probeInterval  = 1 * time.Second
	probeTimeout   = 1 * time.Second
	probeFailures  = 2
)

// NoticeTime is how long an Envoy may take to notice that a replica asks for no
// more requests, or that another one is there again: until then it sends
// requests, and has perhaps nobody else to send them to.
const NoticeTime = probeFailures*probeInterval + probeTimeout

// otherHostAttempts is how often a retry picks again when it meets a replica
// that has refused this request already. A dead one has no streams, so the
// balancer likes it best: several picks may be needed, and they cost nothing.
const otherHostAttempts = 10

// Names of extensions.
const (
	previousHosts  = "envoy.retry_host_predicates.previous_hosts"
	dnsClusterName = "envoy.clusters.dns"
)

// replicated says whether more than one sidecar may stand behind the
// addresses: a name may have several.
func replicated(list []Endpoint) bool {
	return len(list) > 1 || slices.ContainsFunc(list, Endpoint.isName)
}

// sidecarClusterOf is the sidecars' gRPC. The health of a single one is probed
// for statistics only: putting it out of service would refuse what the next
// attempt could have served (a refused connection fails within milliseconds
// anyway), and a sidecar that is back would wait for the next probe. So panic
// mode is always on; it cannot open anything, for an unanswered request is
// refused by the filter.
func sidecarClusterOf(list []Endpoint) *clusterv3.Cluster {
	c := cluster(sidecarCluster, 1*time.Second)
	c.TypedExtensionProtocolOptions = protocol(&upstreamsv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &upstreamsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: seconds(30), Timeout: seconds(5)}},
			},
		}},
	})
	place(c, list...)
	check := &corev3.HealthCheck{
		HealthChecker: &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{}},
	}
	if replicated(list) {
		spread(c, check)
		return c
	}
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 100}}
	check.Timeout, check.Interval, check.NoTrafficInterval = seconds(1), seconds(2), seconds(2)
	check.UnhealthyThreshold, check.HealthyThreshold = wrapperspb.UInt32(2), wrapperspb.UInt32(1)
	c.HealthChecks = []*corev3.HealthCheck{check}
	return c
}

// apiClusterOf is the sidecars' HTTP. Replicas are probed where clients ask
// too: a replica that says itself that it is not healthy answers only when
// none is better.
func apiClusterOf(list []Endpoint) *clusterv3.Cluster {
	c := cluster(apiCluster, 1*time.Second)
	c.TypedExtensionProtocolOptions = protocol(http1(0))
	place(c, list...)
	if replicated(list) {
		spread(c, &corev3.HealthCheck{HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host: defaultNodeID, Path: healthPath,
		}}})
	}
	return c
}

// spread balances a cluster over its healthy replicas. Streams are long, so the
// replica with fewer of them is preferred; over HTTP/2 each stream is balanced,
// not each connection. When no replica is healthy all are tried (the threshold
// is a percentage of healthy ones): a lone replica behind a name is then used
// as a single address is, and the filter refuses what nobody answers.
func spread(c *clusterv3.Cluster, check *corev3.HealthCheck) {
	if c.GetType() == clusterv3.Cluster_LOGICAL_DNS {
		c.DnsLookupFamily = clusterv3.Cluster_AUTO // it stands in the other message
		c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: dnsClusterName, TypedConfig: anyOf(everyAddress()),
		}}
	}
	c.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{
		HealthyPanicThreshold: &typev3.Percent{Value: 1},
		// Envoy would gather what the probes find for up to a second before its
		// workers are told.
		UpdateMergeWindow: seconds(0),
	}
	// Without traffic Envoy would probe once a minute.
	check.Timeout = durationpb.New(probeTimeout)
	check.Interval, check.NoTrafficInterval = durationpb.New(probeInterval), durationpb.New(probeInterval)
	check.UnhealthyThreshold, check.HealthyThreshold = wrapperspb.UInt32(probeFailures), wrapperspb.UInt32(1)
	c.HealthChecks = []*corev3.HealthCheck{check}
}

// everyAddress makes each address of a name a replica. One family only: a
// replica with two addresses would be two.
func everyAddress() *dnsv3.DnsCluster {
	return &dnsv3.DnsCluster{
		DnsRefreshRate: durationpb.New(lookupInterval),
		DnsFailureRefreshRate: &dnsv3.DnsCluster_RefreshRate{
			BaseInterval: durationpb.New(lookupInterval / 4), MaxInterval: durationpb.New(lookupInterval),
		},
		DnsLookupFamily: commondnsv3.DnsLookupFamily_V4_PREFERRED,
	}
}

// sidecarRetry bridges a restart of the sidecar, and among replicas the time
// until a dead one is out of service: a retry then goes to another one. It is
// never on "unavailable": that repeats a request that a sidecar has read, and
// would reserve twice.
func sidecarRetry(list []Endpoint) *corev3.RetryPolicy {
	p := &corev3.RetryPolicy{
		NumRetries: wrapperspb.UInt32(4),
		RetryOn:    "connect-failure,refused-stream",
		RetryBackOff: &corev3.BackoffStrategy{
			BaseInterval: durationpb.New(100 * time.Millisecond),
			MaxInterval:  durationpb.New(400 * time.Millisecond),
		},
	}
	if replicated(list) {
		p.RetryHostPredicate = []*corev3.RetryPolicy_RetryHostPredicate{{
			Name:       previousHosts,
			ConfigType: &corev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: otherHost()},
		}}
		p.HostSelectionRetryMaxAttempts = otherHostAttempts
	}
	return p
}

// safeRetry repeats a request that has certainly reached nobody. Among replicas
// it goes to another one.
func safeRetry(replicas bool) *routev3.RetryPolicy {
	p := &routev3.RetryPolicy{RetryOn: "connect-failure,refused-stream", NumRetries: wrapperspb.UInt32(2)}
	if replicas {
		p.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       previousHosts,
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: otherHost()},
		}}
		p.HostSelectionRetryMaxAttempts = otherHostAttempts
	}
	return p
}

func otherHost() *anypb.Any { return anyOf(&previousv3.PreviousHostsPredicate{}) }
