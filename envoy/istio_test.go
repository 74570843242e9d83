package envoy

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	upstreamsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networkingv1 "istio.io/api/networking/v1"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	"sigs.k8s.io/yaml"
)

// goldenIstio are the shapes of manifests that are kept as files.
func goldenIstio(t *testing.T) map[string]Istio {
	t.Helper()
	elsewhere := goldenOptions(t, goldenUpstreams["http"])
	elsewhere.ExtProc, elsewhere.API = endpoints(t, "llmgw.llm.svc.cluster.local:12001"), endpoints(t, "llmgw.llm.svc.cluster.local:12002")
	mesh := elsewhere
	mesh.Upstream = Upstream{}
	return map[string]Istio{
		"istio-egress-pod": {
			Additions: Additions{Options: goldenOptions(t, goldenUpstreams["https"])},
			Host:      "llm.example.com", Workload: "istio-egressgateway",
		},
		"istio-ingress-tls": {
			Additions: Additions{Options: elsewhere}, Host: "llm.example.com", Credential: "llm-cert",
			Namespace: "edge", Selector: map[string]string{"app": "edge", "tier": "public"}, Workload: "edge",
		},
		"istio-mesh-service": {
			Additions: Additions{Options: mesh, Cluster: "outbound|8000||vllm.models.svc.cluster.local"}, Host: "10.0.0.1", Port: 8080,
		},
	}
}

func endpoints(t *testing.T, s string) []Endpoint {
	t.Helper()
	list, err := ParseEndpoints(s)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestIstio_golden(t *testing.T) {
	for name, i := range goldenIstio(t) {
		wantGolden(t, name, i.YAML)
	}
}

// istioObjects reads the manifests into Istio's own types, which take no field
// that they do not know.
type istioObjects struct {
	gateway  *networkingv1.Gateway
	filter   *networkingv1alpha3.EnvoyFilter
	proxy    *meshv1alpha1.ProxyConfig // the annotation of the pods
	pod      podTemplate
	metadata map[string]objectMeta // by kind
}

func readIstio(t *testing.T, i Istio) istioObjects {
	t.Helper()
	text, err := i.YAML()
	if err != nil {
		t.Fatal(err)
	}
	o := istioObjects{
		gateway: new(networkingv1.Gateway), filter: new(networkingv1alpha3.EnvoyFilter),
		proxy: new(meshv1alpha1.ProxyConfig), metadata: map[string]objectMeta{},
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var envelope struct {
			APIVersion string          `json:"apiVersion"`
			Kind       string          `json:"kind"`
			Metadata   objectMeta      `json:"metadata"`
			Spec       json.RawMessage `json:"spec"`
		}
		if err := yaml.UnmarshalStrict([]byte(document), &envelope); err != nil {
			t.Fatal(err)
		}
		o.metadata[envelope.Kind] = envelope.Metadata
		switch envelope.APIVersion + " " + envelope.Kind {
		case " ": // the head comment
		case "networking.istio.io/v1 Gateway":
			unmarshalStrictly(t, envelope.Spec, o.gateway)
		case "networking.istio.io/v1alpha3 EnvoyFilter":
			unmarshalStrictly(t, envelope.Spec, o.filter)
		case "apps/v1 Deployment":
			var d deployment
			if err := json.Unmarshal(envelope.Spec, &d); err != nil {
				t.Fatal(err)
			}
			o.pod = d.Template
			annotation, err := yaml.YAMLToJSON([]byte(d.Template.Metadata.Annotations["proxy.istio.io/config"]))
			if err != nil {
				t.Fatal(err)
			}
			unmarshalStrictly(t, annotation, o.proxy)
		default:
			t.Fatalf("nobody knows what %s %s is for", envelope.APIVersion, envelope.Kind)
		}
	}
	return o
}

func unmarshalStrictly(t *testing.T, text []byte, m proto.Message) {
	t.Helper()
	if err := protojson.Unmarshal(text, m); err != nil {
		t.Fatalf("%s: %v", m.ProtoReflect().Descriptor().FullName(), err)
	}
}

// value reads a patch into the Envoy message that it is for.
func value(t *testing.T, p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) proto.Message {
	t.Helper()
	kinds := map[networkingv1alpha3.EnvoyFilter_ApplyTo]proto.Message{
		networkingv1alpha3.EnvoyFilter_CLUSTER:        new(clusterv3.Cluster),
		networkingv1alpha3.EnvoyFilter_HTTP_FILTER:    new(hcmv3.HttpFilter),
		networkingv1alpha3.EnvoyFilter_NETWORK_FILTER: new(listenerv3.Filter),
		networkingv1alpha3.EnvoyFilter_VIRTUAL_HOST:   new(routev3.VirtualHost),
	}
	m := kinds[p.GetApplyTo()]
	if m == nil {
		t.Fatalf("nobody knows what a patch of %s holds", p.GetApplyTo())
	}
	text, err := p.GetPatch().GetValue().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	unmarshalStrictly(t, text, m)
	return m
}

// TestIstio_types: all of it is what Istio and Envoy have types for.
func TestIstio_types(t *testing.T) {
	for name, i := range goldenIstio(t) {
		o, f := readIstio(t, i), i.filled()
		server := o.gateway.GetServers()[0]
		if len(o.gateway.GetServers()) != 1 || server.GetPort().GetNumber() != f.Port || server.GetHosts()[0] != f.Host ||
			server.GetTls().GetCredentialName() != f.Credential || (f.Credential == "") != (server.GetPort().GetProtocol() == "HTTP") {
			t.Errorf("%s: the Gateway's server is %v", name, server)
		}
		if !cmp.Equal(o.gateway.GetSelector(), f.Selector) || !cmp.Equal(o.filter.GetWorkloadSelector().GetLabels(), f.Selector) {
			t.Errorf("%s: %v and %v select, want %v", name, o.gateway.GetSelector(), o.filter.GetWorkloadSelector(), f.Selector)
		}
		if o.proxy.GetRuntimeValues()["envoy.reloadable_features.ext_proc_graceful_grpc_close"] != "true" {
			t.Errorf("%s: the pods are annotated with %v", name, o.proxy)
		}
		for kind, m := range o.metadata {
			if kind != "" && m.Namespace != f.Namespace {
				t.Errorf("%s: the %s is in %q", name, kind, m.Namespace)
			}
		}
		if m := o.metadata["Deployment"]; m.Name != f.Workload {
			t.Errorf("%s: the Deployment is %q", name, m.Name)
		}
		if inPod := o.pod.Spec != nil; inPod != (name == "istio-egress-pod") {
			t.Errorf("%s: a sidecar in the pod: %v", name, inPod)
		}
		for _, p := range o.filter.GetConfigPatches() {
			if p.GetMatch().GetContext() != networkingv1alpha3.EnvoyFilter_GATEWAY {
				t.Errorf("%s: %s is for %s", name, p.GetApplyTo(), p.GetMatch().GetContext())
			}
			value(t, p)
		}
	}
}

// TestIstio_closed: no way to the model server is without a lock that comes and
// goes with it, and the listener's lock guards the user's own cluster too.
func TestIstio_closed(t *testing.T) {
	for name, i := range goldenIstio(t) {
		var chain []string
		gated, locks := 0, 0
		for _, p := range readIstio(t, i).filter.GetConfigPatches() {
			switch m := value(t, p).(type) {
			case *clusterv3.Cluster:
				if strings.HasPrefix(m.GetName(), "llmgw") && m.GetName() != modelsCluster {
					continue
				}
				locks++
				o := new(upstreamsv3.HttpProtocolOptions)
				if err := m.GetTypedExtensionProtocolOptions()[httpProtocolOptions].UnmarshalTo(o); err != nil {
					t.Fatal(err)
				}
				if len(o.GetHttpFilters()) != 2 || !proto.Equal(o.GetHttpFilters()[0], filter(addedLock, lock())) {
					t.Errorf("%s: the first filter of %s is no lock: %v", name, m.GetName(), o.GetHttpFilters())
				}
			case *hcmv3.HttpFilter:
				chain = append(chain, m.GetName())
				if m.GetDisabled() == (m.GetName() == addedLock) {
					t.Errorf("%s: %s is off: %v", name, m.GetName(), m.GetDisabled())
				}
				if m.GetName() == addedLock && i.Cluster != "" && !strings.Contains(m.GetTypedConfig().String(), i.Cluster) {
					t.Errorf("%s: the lock does not guard %s", name, i.Cluster)
				}
				if p.GetMatch().GetListener().GetPortNumber() != 0 {
					t.Errorf("%s: %s is on one port only", name, m.GetName())
				}
			case *routev3.VirtualHost:
				for _, r := range m.GetRoutes() {
					switch r.GetRoute().GetCluster() {
					case apiCluster:
					case modelsCluster:
						gated++
						if r.GetTypedPerFilterConfig()[addedGate] == nil {
							t.Errorf("%s: the route %s has no gate", name, r.GetName())
						}
					default:
						t.Errorf("%s: the route %s leads to %s", name, r.GetName(), r.GetRoute().GetCluster())
					}
				}
			}
		}
		if diff := cmp.Diff([]string{addedStrip, addedGate, addedLock}, chain); diff != "" || gated != 1 || locks != 1 {
			t.Errorf("%s: %d gated routes, %d locked clusters, filters (-want +got):\n%s", name, gated, locks, diff)
		}
	}
}

func TestIstio_refusesBadOptions(t *testing.T) {
	good := goldenIstio(t)["istio-mesh-service"]
	socket := endpoints(t, "unix:///run/llmgw/a.sock")
	for name, change := range map[string]func(*Istio){
		"no host":               func(i *Istio) { i.Host = "" },
		"any host":              func(i *Istio) { i.Host = "*" },
		"an IPv6 host":          func(i *Istio) { i.Host = "::1" },
		"our own cluster":       func(i *Istio) { i.Cluster = modelsCluster },
		"no cluster":            func(i *Istio) { i.Cluster = "" },
		"a port":                func(i *Istio) { i.Port = 70000 },
		"a namespace":           func(i *Istio) { i.Namespace = "a\nb" },
		"a workload":            func(i *Istio) { i.Workload = "Edge" },
		"a Secret":              func(i *Istio) { i.Credential = "a_b" },
		"a label":               func(i *Istio) { i.Selector = map[string]string{"app": "a b"} },
		"an image":              func(i *Istio) { i.Image = "a\nb" },
		"half a sidecar":        func(i *Istio) { i.ExtProc = socket },
		"two sidecars in a pod": func(i *Istio) { i.API, i.ExtProc = socket, endpoints(t, "unix:///a.sock,unix:///b.sock") },
	} {
		i := good
		change(&i)
		if text, err := i.YAML(); !errors.Is(err, ErrOptions) && !errors.Is(err, ErrUpstream) || text != nil {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
}
