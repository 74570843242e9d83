package envoy

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	"google.golang.org/protobuf/proto"
)

// TestSidecars_discovery says which addresses are replicas and how they are
// found.
func TestSidecars_discovery(t *testing.T) {
	for _, c := range []struct {
		grpc, http string
		lookup     bool
		replicas   bool
	}{
		{"unix:///run/a.sock", "unix:///run/b.sock", false, false},
		{"127.0.0.1:1", "[::1]:2", false, false},
		{"unix:///run/a.sock,unix:///run/b.sock", "127.0.0.1:1,127.0.0.1:2", false, true},
		{"gateways:1", "gateways:2", true, true},
		{"a:1,127.0.0.1:1", "a:2,127.0.0.1:2", true, true},
	} {
		b, err := Bootstrap(withSidecars(t, goldenOptions(t, goldenUpstreams["http"]), c.grpc, c.http))
		if err != nil {
			t.Fatalf("%s: %v", c.grpc, err)
		}
		for _, cluster := range b.GetStaticResources().GetClusters()[:2] {
			if looksUp := cluster.GetClusterType().GetName() == dnsClusterName; looksUp != c.lookup || !looksUp && cluster.GetType() != clusterv3.Cluster_STATIC {
				t.Errorf("%s: %s looks up every address of its names: %v, want %v", c.grpc, cluster.GetName(), looksUp, c.lookup)
			}
			balanced := cluster.GetLbPolicy() == clusterv3.Cluster_LEAST_REQUEST && len(cluster.GetHealthChecks()) == 1 &&
				cluster.GetCommonLbConfig().GetHealthyPanicThreshold().GetValue() == 1
			if balanced != c.replicas {
				t.Errorf("%s: %s is balanced and probed: %v, want %v", c.grpc, cluster.GetName(), balanced, c.replicas)
			}
		}
		if hosts := len(retryOfExtProc(t, b).GetRetryHostPredicate()); (hosts == 1) != c.replicas {
			t.Errorf("%s: a retry goes elsewhere: %v, want %v", c.grpc, hosts == 1, c.replicas)
		}
	}
}

// TestSidecars_retryIsSafe: what a sidecar may have read is never repeated.
func TestSidecars_retryIsSafe(t *testing.T) {
	everyBootstrap(t, func(t *testing.T, m proto.Message) {
		if on := retryOfExtProc(t, m).GetRetryOn(); on != "connect-failure,refused-stream" {
			t.Errorf("ext_proc is retried on %q", on)
		}
	})
}

func retryOfExtProc(t *testing.T, m proto.Message) *corev3.RetryPolicy {
	t.Helper()
	var policy *corev3.RetryPolicy
	visit(t, m, func(m proto.Message) {
		if f, ok := m.(*extprocv3.ExternalProcessor); ok && f.GetGrpcService() != nil {
			policy = f.GetGrpcService().GetRetryPolicy()
		}
	})
	return policy
}
