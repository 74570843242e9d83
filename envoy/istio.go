package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
)

// Defaults of [Istio]; zero values mean these.
const (
	DefaultIstioNamespace = "istio-system"
	DefaultIstioWorkload  = "istio-ingressgateway"
	DefaultSidecarImage   = "llm-gateway"
)

// modelsCluster is the cluster in front of the model server's that Istio's
// proxies get: the name, and the lock that comes with it.
const modelsCluster = "llmgw_models"

// Istio is what a gateway workload of Istio needs in order to become a gateway to
// models. Its proxies ask a sidecar in their own pod when the addresses of the
// sidecar are Unix sockets, else one elsewhere.
type Istio struct {
	// Additions are as for any Envoy; Cluster is a name that Istio gives, as in
	// "outbound|8000||vllm.models.svc.cluster.local".
	Additions
	// Host is the name or address that clients write in their URL. Nobody else
	// serves it.
	Host string
	// Namespace and Workload name the gateway's Deployment.
	Namespace, Workload string
	// Selector are the labels of the gateway's pods; nil means istio=WORKLOAD
	// without "istio-", as Istio's own charts label them.
	Selector map[string]string
	// Credential is the Secret with the certificate of Host; "" serves plain
	// HTTP.
	Credential string
	// Port is the port of the gateway's Service; 0 means 443 with Credential and
	// 80 without.
	Port uint32
	// Image is the sidecar's, where it runs in the gateway's pod.
	Image string
}

// YAML writes the manifests as one stream of documents, each part with a comment
// that says what it is for and what breaks without it. Errors wrap [ErrOptions]
// or [ErrUpstream].
func (i Istio) YAML() ([]byte, error) {
	i = i.filled()
	if err := i.check(); err != nil {
		return nil, err
	}
	patches, err := i.patches()
	if err != nil {
		return nil, err
	}
	gateway := manifest{why: whyIstioGateway, object: i.object("networking.istio.io/v1", "Gateway", istioGateway{
		Selector: i.Selector, Servers: []istioServer{i.server()},
	})}
	filter := manifest{why: whyEnvoyFilter, patches: patches, object: i.object("networking.istio.io/v1alpha3", "EnvoyFilter", envoyFilter{
		WorkloadSelector: workloadSelector{Labels: i.Selector},
		Priority:         istioPriority,
	})}
	if service := meshService(i.Cluster); service != "" {
		filter.object.Metadata.Annotations = map[string]string{"envoyfilter.istio.io/referenced-services": service}
	}
	return writeManifests(aboutIstio, []manifest{gateway, filter, i.pod()})
}

// istioPriority puts our patches after everybody else's: what is inserted before
// the router last stands nearest to it.
const istioPriority = 1000

func (i Istio) filled() Istio {
	i.Options = i.Options.filled()
	if i.Namespace == "" {
		i.Namespace = DefaultIstioNamespace
	}
	if i.Workload == "" {
		i.Workload = DefaultIstioWorkload
	}
	if i.Image == "" {
		i.Image = DefaultSidecarImage
	}
	if len(i.Selector) == 0 {
		i.Selector = map[string]string{"istio": strings.TrimPrefix(i.Workload, "istio-")}
	}
	switch {
	case i.Port != 0:
	case i.Credential != "":
		i.Port = 443
	default:
		i.Port = 80
	}
	return i
}

func (i Istio) check() error {
	errs := []error{i.Additions.check()}
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...))
	}
	if i.Cluster == modelsCluster {
		bad("the cluster %q is the gateway's own: write the name that Istio gives to the model server's", i.Cluster)
	}
	if err := checkHost(i.Host); err != nil {
		bad("the host: %w", err)
	} else if a, err := netip.ParseAddr(i.Host); err == nil && a.Is6() {
		bad("the host cannot be an IPv6 address: a Gateway takes none")
	}
	if i.Port > 65535 {
		bad("the gateway's port must be a number from 1 to 65535")
	}
	for _, name := range []string{i.Namespace, i.Workload, i.Credential} {
		if name != "" && !isObjectName(name) {
			bad("the name %q: names in Kubernetes are of lower case letters, digits, - and .", name)
		}
	}
	if i.mixed() {
		bad("a sidecar in the gateway's pod has Unix sockets for both gRPC and HTTP, one of each; one elsewhere has neither")
	}
	for key, value := range i.Selector {
		if !isLabel(strings.ReplaceAll(key, "/", "")) || !isLabel(value) {
			bad("the label %s=%s: letters, digits and - _ . only", key, value)
		}
	}
	if strings.ContainsFunc(i.Image, func(c rune) bool { return c <= ' ' || c > '~' }) {
		bad("the image %q: write a name without spaces", i.Image)
	}
	return errors.Join(errs...)
}

func isObjectName(s string) bool {
	return len(s) <= 253 && s == strings.ToLower(s) && !strings.Contains(s, "_") && isLabel(s)
}

func isLabel(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" &&
		strings.Trim(s[:1]+s[len(s)-1:], "-_.") == s[:1]+s[len(s)-1:]
}

func (i Istio) object(version, kind string, spec any) object {
	return object{APIVersion: version, Kind: kind, Metadata: objectMeta{Name: "llmgw", Namespace: i.Namespace}, Spec: spec}
}

func (i Istio) server() istioServer {
	s := istioServer{Hosts: []string{i.Host}, Port: istioPort{Number: i.Port, Name: "http-llmgw", Protocol: "HTTP"}}
	if i.Credential != "" {
		s.Port.Name, s.Port.Protocol = "https-llmgw", "HTTPS"
		s.TLS = &istioTLS{Mode: "SIMPLE", CredentialName: i.Credential}
	}
	return s
}

// meshService is the host in a name that Istio gives to a cluster. A gateway may
// be told to leave out clusters that no route of Istio's own leads to.
func meshService(cluster string) string {
	if part := strings.Split(cluster, "|"); len(part) == 4 {
		return part[3]
	}
	return ""
}

// added is i's additions with everything behind [modelsCluster].
func (i Istio) added() Additions {
	a := i.Additions
	a.Cluster = modelsCluster
	return a
}

// guarded are the clusters that the listeners' lock closes: ours, and the one
// behind it, to which a route of somebody else's may lead.
func (i Istio) guarded() []string {
	if i.Cluster == "" {
		return []string{modelsCluster}
	}
	return []string{modelsCluster, i.Cluster}
}

func (i Istio) patches() ([]patchPart, error) {
	models, err := i.models()
	if err != nil {
		return nil, err
	}
	a := i.added()
	everywhere := patchMatch{Context: "GATEWAY"}
	list := []patchPart{
		{whyIstioGateCluster, "CLUSTER", "ADD", everywhere, sidecarClusterOf(i.ExtProc)},
		{whyPagesCluster, "CLUSTER", "ADD", everywhere, apiClusterOf(i.API)},
		{i.whyModels(), "CLUSTER", "ADD", everywhere, models},
	}
	for n, f := range a.filters(i.guarded()...) {
		why := []string{whyIstioStrip, whyGate, whyIstioLock}[n]
		list = append(list, patchPart{why, "HTTP_FILTER", "INSERT_BEFORE", onManager(0, routerName), f.message})
	}
	for _, m := range a.manager() {
		list = append(list, patchPart{m.why, "NETWORK_FILTER", "MERGE", onManager(i.Port, ""), managerFilter(m.message)})
	}
	host := &routev3.VirtualHost{Name: addedPrefix + "host", Domains: []string{i.Host}}
	for _, p := range a.routes() {
		r := p.message.(*routev3.Route)
		r.RequestHeadersToRemove = append(r.RequestHeadersToRemove, meshHeaders()...)
		host.Routes = append(host.Routes, r)
	}
	onPort := patchMatch{Context: "GATEWAY", RouteConfiguration: &portMatch{PortNumber: i.Port}}
	return append(list, patchPart{whyIstioHost, "VIRTUAL_HOST", "ADD", onPort, host}), nil
}

// meshHeaders are what Istio's proxies write about who asks: a model server
// outside has no use for names of workloads.
func meshHeaders() []string {
	return []string{"x-forwarded-client-cert", "x-envoy-decorator-operation", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id"}
}

const (
	managerName = "envoy.filters.network.http_connection_manager"
	routerName  = "envoy.filters.http.router"
)

// onManager matches the http_connection_managers of a port, 0 for all of them,
// and a filter in it.
func onManager(port uint32, filter string) patchMatch {
	m := &listenerMatch{PortNumber: port, FilterChain: filterChainMatch{Filter: filterMatch{Name: managerName}}}
	if filter != "" {
		m.FilterChain.Filter.SubFilter = &namedOnly{Name: filter}
	}
	return patchMatch{Context: "GATEWAY", Listener: m}
}

func managerFilter(m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       managerName,
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(m.(*hcmv3.HttpConnectionManager))},
	}
}

// models is the cluster that our routes lead to. The lock is in it: a patch that
// Istio drops takes its cluster or its route away, and never the lock alone.
func (i Istio) models() (*clusterv3.Cluster, error) {
	if i.Cluster == "" {
		c, err := upstreamClusterOf(i.Upstream)
		if err != nil {
			return nil, err
		}
		rename(c, modelsCluster)
		return c, nil
	}
	c := cluster(modelsCluster, seconds(5).AsDuration())
	c.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.clusters.aggregate", TypedConfig: anyOf(&aggregatev3.ClusterConfig{Clusters: []string{i.Cluster}}),
	}}
	c.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	c.TypedExtensionProtocolOptions = protocol(locked(http1(0))) // connections are the other cluster's, with its own
	return c, nil
}

func (i Istio) whyModels() string {
	if i.Cluster == "" {
		return whyIstioModels
	}
	return whyIstioMeshModels
}

// mixed says that the sidecar would be both in the gateway's pod and elsewhere.
func (i Istio) mixed() bool {
	all := slices.Concat(i.ExtProc, i.API)
	isSocket := func(e Endpoint) bool { return e.socket != "" }
	if !slices.ContainsFunc(all, isSocket) {
		return false
	}
	return len(i.ExtProc) != 1 || len(i.API) != 1 || !isSocket(i.ExtProc[0]) || !isSocket(i.API[0])
}

// sockets are the folders that the gateway's proxy and a sidecar in its pod
// share, nil where the sidecar is elsewhere.
func (i Istio) sockets() []string {
	var folders []string
	for _, e := range slices.Concat(i.ExtProc, i.API) {
		if socket, ok := e.Socket(); ok && !slices.Contains(folders, path.Dir(socket)) {
			folders = append(folders, path.Dir(socket))
		}
	}
	return folders
}
