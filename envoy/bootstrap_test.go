package envoy

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var update = flag.Bool("update", false, "write the golden files")

// goldenUpstreams are the shapes of configuration that are kept as files.
var goldenUpstreams = map[string]string{
	"http":  "http://127.0.0.1:8080",
	"https": "https://models.example.com/openai/v1",
	"demo":  "",
}

func goldenOptions(t *testing.T, upstream string) Options {
	t.Helper()
	o := Options{Listen: "0.0.0.0:12000", AdminSocket: "/run/llmgw/envoy-admin.sock"}
	var err error
	if o.ExtProc, err = ParseEndpoints("unix:///run/llmgw/extproc.sock"); err != nil {
		t.Fatal(err)
	}
	if o.API, err = ParseEndpoints("unix:///run/llmgw/api.sock"); err != nil {
		t.Fatal(err)
	}
	o.CORS = CORS{Origins: []string{AnyOrigin}, MaxAge: 10 * time.Minute}
	if upstream == "" {
		o.Upstream = Upstream{Host: "demo", BasePath: "/v1", SocketPath: "/run/llmgw/demo.sock"}
		return o
	}
	if o.Upstream, err = ParseUpstream(upstream); err != nil {
		t.Fatal(err)
	}
	if o.Upstream.TLS {
		o.CORS = CORS{Origins: []string{"https://app.example.com", "http://localhost:3000"}, Credentials: true, MaxAge: time.Minute}
		o.Upstream.CAFile = "testdata/ca.pem" // the system's file differs from system to system
	}
	return o
}

// goldenSidecars are where the sidecars of further golden files are: their
// gRPC and their HTTP.
var goldenSidecars = map[string][2]string{
	"replicas-by-address": {"10.0.0.1:12001,10.0.0.2:12001", "10.0.0.1:12002,10.0.0.2:12002"},
	"replicas-by-name":    {"gateways:12001", "gateways:12002"},
}

// goldens are the options of all golden files.
func goldens(t *testing.T) map[string]Options {
	t.Helper()
	all := map[string]Options{}
	for name, upstream := range goldenUpstreams {
		all[name] = goldenOptions(t, upstream)
	}
	for name, at := range goldenSidecars {
		all[name] = withSidecars(t, goldenOptions(t, goldenUpstreams["http"]), at[0], at[1])
	}
	models := all["replicas-by-name"]
	models.Upstream = Upstream{Host: "gateways", Port: 12003, Replicas: true}
	all["replicas-by-name"] = models
	return all
}

func withSidecars(t *testing.T, o Options, grpc, http string) Options {
	t.Helper()
	var err error
	if o.ExtProc, err = ParseEndpoints(grpc); err != nil {
		t.Fatal(err)
	}
	if o.API, err = ParseEndpoints(http); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestGolden(t *testing.T) {
	for name, o := range goldens(t) {
		wantGolden(t, name, func() ([]byte, error) {
			b, err := Bootstrap(o)
			if err != nil {
				return nil, err
			}
			return RenderYAML(b)
		})
	}
}

func TestInfoPaths(t *testing.T) {
	paths := InfoPaths()
	if !slices.IsSorted(paths) || len(slices.Compact(slices.Clone(paths))) != len(paths) {
		t.Errorf("not sorted, or one is there twice: %q", paths)
	}
}

func TestIPv6(t *testing.T) {
	o := goldenOptions(t, "http://[2001:db8::5]:8080")
	o.Listen = "[::]:12000"
	b, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	if a := b.GetStaticResources().GetListeners()[0].GetAddress().GetSocketAddress(); a.GetAddress() != "::" || !a.GetIpv4Compat() {
		t.Errorf("listener at %v", a)
	}
	up := b.GetStaticResources().GetClusters()[2]
	if a := up.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetAddress().GetSocketAddress(); a.GetAddress() != "2001:db8::5" || up.GetType().String() != "STATIC" {
		t.Errorf("upstream %v %v", up.GetType(), a)
	}
}

// everyBootstrap calls check with each shape of configuration.
func everyBootstrap(t *testing.T, check func(t *testing.T, m proto.Message)) {
	for name, o := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			b, err := Bootstrap(o)
			if err != nil {
				t.Fatal(err)
			}
			check(t, b)
		})
	}
}

// visit calls f for every message below m, inside Any too.
func visit(t *testing.T, m proto.Message, f func(proto.Message)) {
	t.Helper()
	err := protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		if m, ok := p.Index(-1).Value.Interface().(protoreflect.Message); ok {
			f(m.Interface())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingFailsOpen(t *testing.T) {
	everyBootstrap(t, func(t *testing.T, m proto.Message) {
		filters := 0
		visit(t, m, func(m proto.Message) {
			if f, ok := m.(*extprocv3.ExternalProcessor); ok && f.GetMessageTimeout().AsDuration() > 0 && !f.GetObservabilityMode() {
				filters++
			}
			r := m.ProtoReflect()
			if field := r.Descriptor().Fields().ByName("failure_mode_allow"); field != nil && r.Has(field) {
				t.Errorf("%s sets failure_mode_allow: %v", r.Descriptor().FullName(), r.Get(field))
			}
		})
		if filters != 1 {
			t.Errorf("%d ext_proc filters with a time limit, want 1", filters)
		}
	})
}

func TestLockFollowsExtProc(t *testing.T) {
	everyBootstrap(t, func(t *testing.T, m proto.Message) {
		visit(t, m, func(m proto.Message) {
			hcm, ok := m.(*hcmv3.HttpConnectionManager)
			if !ok {
				return
			}
			var types []string
			for _, f := range hcm.GetHttpFilters() {
				if f.GetDisabled() || f.GetIsOptional() {
					t.Errorf("filter %s may be missing", f.GetName())
				}
				url := f.GetTypedConfig().GetTypeUrl()
				types = append(types, url[strings.LastIndexByte(url, '.')+1:])
			}
			if n := len(types); n < 3 || types[n-3] != "ExternalProcessor" || types[n-2] != "RBAC" || types[n-1] != "Router" {
				t.Errorf("filters %v", types)
			}
		})
	})
}

func TestNoWayAroundTheLock(t *testing.T) {
	everyBootstrap(t, func(t *testing.T, m proto.Message) {
		gated, open := 0, 0
		others := len(InfoPaths()) + 2 // preflights, and unknown paths
		visit(t, m, func(m proto.Message) {
			switch m := m.(type) {
			case *clusterv3.Cluster:
				if m.GetName() == upstreamCluster {
					o := new(upstreamsv3.HttpProtocolOptions)
					if err := m.GetTypedExtensionProtocolOptions()[httpProtocolOptions].UnmarshalTo(o); err != nil || len(o.GetHttpFilters()) != 2 ||
						!proto.Equal(o.GetHttpFilters()[0].GetTypedConfig(), anyOf(lock())) {
						t.Errorf("the model server's cluster has no lock: %v %v", err, o.GetHttpFilters())
					}
				}
				if m.GetName() == nobodyCluster && len(m.GetLoadAssignment().GetEndpoints()) > 0 {
					t.Error("there is somebody behind unknown paths")
				}
			case *routev3.VirtualHost:
				for name, config := range m.GetTypedPerFilterConfig() {
					if !config.MessageIs(&corsv3.CorsPolicy{}) || name != corsName {
						t.Errorf("the virtual host changes %s for all routes", name)
					}
				}
			case *routev3.Route:
				action := m.GetRoute()
				isOpen := false
				for name, config := range m.GetTypedPerFilterConfig() {
					switch config, err := config.UnmarshalNew(); c := config.(type) {
					case *extprocv3.ExtProcPerRoute:
						isOpen = isOpen || c.GetOverrides() == nil || c.GetOverrides().GetFailureModeAllow() != nil ||
							c.GetOverrides().GetProcessingMode().GetRequestHeaderMode() != extprocv3.ProcessingMode_SEND ||
							c.GetOverrides().GetProcessingMode().GetRequestBodyMode() != extprocv3.ProcessingMode_BUFFERED
					case *rbacv3.RBACPerRoute:
						isOpen = true
					default:
						t.Errorf("route %s: setting for %s: %v %v", m.GetName(), name, c, err)
					}
				}
				switch {
				case action != nil && action.GetCluster() == upstreamCluster:
					gated++
					if isOpen {
						t.Errorf("route %s goes to the model server ungated", m.GetName())
					}
				case action != nil && (action.GetCluster() == apiCluster || action.GetCluster() == nobodyCluster):
					open++
				default:
					t.Errorf("route %s leads somewhere else: %v", m.GetName(), m.GetAction())
				}
			}
		})
		if gated != 1 || open != others {
			t.Errorf("%d routes to the model server and %d others, want 1 and %d", gated, open, others)
		}
	})
}

func TestModesMatchAllowedOverrides(t *testing.T) {
	// Envoy compares an override with the allowed modes only after merging it
	// with the filter's trailer modes.
	for _, m := range append(allowedModes(), fullMode()) {
		if m.GetRequestTrailerMode() != smallMode().GetRequestTrailerMode() || m.GetResponseTrailerMode() != smallMode().GetResponseTrailerMode() {
			t.Errorf("mode %v has other trailer modes than the filter", m)
		}
		fields := m.ProtoReflect().Descriptor().Fields()
		for _, name := range []protoreflect.Name{"request_header_mode", "response_header_mode", "request_trailer_mode", "response_trailer_mode"} {
			if m.ProtoReflect().Get(fields.ByName(name)).Enum() == 0 {
				t.Errorf("mode %v leaves %s to its default, which never matches", m, name)
			}
		}
	}
}
