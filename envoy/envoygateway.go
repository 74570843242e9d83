package envoy

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Names of what is added to an Envoy Gateway, in the namespace of the gateway.
const (
	gatewayModels = "llmgw-models" // the route, its policies and the model server
	gatewayPages  = "llmgw-pages"  // the route and the sidecars' HTTP
	gatewayGate   = "llmgw-gate"   // the gate's policy and the sidecars' gRPC
	gatewayLock   = "llmgw-lock"   // the lock's policy
	gatewayAdded  = "llmgw"        // what belongs to the Gateway
)

// GatewayAdditions is what a platform that runs Envoy Gateway (1.9, Envoy 1.40)
// adds to a Gateway of its own in order to serve models by it.
type GatewayAdditions struct {
	// Options without Listen, AdminSocket, AdminAddress, NodeID and CORS, which
	// are the platform's business. A Unix socket, which only ExtProc may be, is one
	// inside Envoy's pod.
	Options
	// Namespace is the Kubernetes namespace of the routes, their policies and
	// backends.
	Namespace string
	// Gateway is the Gateway, GatewayNamespace its namespace, Section the name of
	// its listener.
	Gateway, GatewayNamespace, Section string
	// Hostnames are those that models are served on; none means all that the
	// listener has.
	Hostnames []string
}

// YAML writes the manifests as documents, each with a comment that says what it
// is for and what breaks without it. What closes comes before what opens: the
// route to the model server is the last. Errors wrap [ErrOptions] or
// [ErrUpstream].
func (g GatewayAdditions) YAML() ([]byte, error) {
	list, err := g.manifests()
	if err != nil {
		return nil, err
	}
	return writeManifests(aboutGateway, list)
}

func (g GatewayAdditions) manifests() ([]manifest, error) {
	g.Options = g.filled()
	if err := g.check(); err != nil {
		return nil, err
	}
	patches, err := g.patches()
	if err != nil {
		return nil, err
	}
	trust, err := g.trust()
	if err != nil {
		return nil, err
	}
	list := []manifest{
		{why: whyEnvoyProxy, object: g.atGateway(envoyGatewayV, "EnvoyProxy", bootstrapPatch())},
		{why: whyClientPolicy, object: g.atGateway(envoyGatewayV, "ClientTrafficPolicy", g.clientPolicy())},
		{why: whyPatch, object: g.atGateway(envoyGatewayV, "EnvoyPatchPolicy", patchPolicySpec{
			TargetRef: reference{Group: gatewayAPI, Kind: "Gateway", Name: g.Gateway}, Type: "JSONPatch", JSONPatches: patches,
		})},
		{why: whyGateBackend, object: g.ours(envoyGatewayV, "Backend", gatewayGate, backendAt([]string{envoyGateway + "/h2c"}, g.ExtProc...))},
		{why: whyGatePolicy, object: g.ours(envoyGatewayV, "EnvoyExtensionPolicy", gatewayGate, g.gate())},
		{why: whyLockPolicy, object: g.ours(envoyGatewayV, "SecurityPolicy", gatewayLock, admittedOnly())},
		{why: whyModelPolicy, object: g.ours(envoyGatewayV, "BackendTrafficPolicy", gatewayModels, g.modelPolicy())},
		{why: whyPagesBackend, object: g.ours(envoyGatewayV, "Backend", gatewayPages, backendAt(nil, g.API...))},
		{why: whyPagesRoute, object: g.ours(gatewayAPIv1, "HTTPRoute", gatewayPages, g.pages())},
		{why: whyModelBackend, object: g.ours(envoyGatewayV, "Backend", gatewayModels,
			backendAt(nil, Endpoint{host: g.Upstream.Host, port: g.Upstream.port()}))},
	}
	list = append(list, trust...)
	return append(list, manifest{why: whyModelRoute, object: g.ours(gatewayAPIv1, "HTTPRoute", gatewayModels, g.models())}), nil
}

func (g GatewayAdditions) check() error {
	errs := []error{g.checkSidecars(), g.Upstream.check()}
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...))
	}
	for what, name := range map[string]string{
		"namespace": g.Namespace, "Gateway": g.Gateway, "Gateway's namespace": g.GatewayNamespace, "listener": g.Section,
	} {
		if !isKubernetesName(name) {
			bad("the %s %q: write its name in Kubernetes: lower-case letters, digits and -", what, name)
		}
	}
	for _, host := range g.Hostnames {
		if !isKubernetesName(strings.TrimPrefix(host, "*.")) {
			bad("the hostname %q: write a DNS name in lower case, as in llm.example.com or *.example.com", host)
		}
	}
	if slices.ContainsFunc(g.API, func(e Endpoint) bool { return e.socket != "" }) {
		bad("the sidecar's HTTP: Envoy Gateway takes no Unix socket in a route: write host:port")
	}
	if g.Upstream.SocketPath != "" {
		bad("the model server: Envoy Gateway takes no Unix socket in a route: write a URL with host and port")
	}
	for what, list := range map[string][]Endpoint{"gRPC": g.ExtProc, "HTTP": g.API} {
		if slices.ContainsFunc(list, Endpoint.isName) && slices.ContainsFunc(list, isNoName) {
			bad("the sidecars' %s: Envoy Gateway takes no names beside addresses or sockets: write names only", what)
		}
	}
	list := slices.Concat(g.ExtProc, g.API)
	for _, e := range append(list, Endpoint{host: g.Upstream.Host}) {
		if e.isName() && !isKubernetesName(strings.TrimSuffix(e.host, ".")) {
			bad("the host %q: Envoy Gateway takes lower-case letters, digits, - and dots", e.host)
		}
	}
	if g.Upstream.TLS && !(Endpoint{host: g.Upstream.Host}).isName() {
		bad("Gateway API checks certificates by name, and the model server's URL has an address: write its name")
	}
	return errors.Join(errs...)
}

func isNoName(e Endpoint) bool { return !e.isName() }

// isKubernetesName is what names of objects and hosts have in common. None of it
// means anything in a path or a condition that it is written into.
func isKubernetesName(s string) bool {
	return len(s) <= 253 && regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`).MatchString(s)
}

func (g GatewayAdditions) ours(version, kind, name string, spec any) object {
	return object{APIVersion: version, Kind: kind, Metadata: metaOf(name, g.Namespace), Spec: spec}
}

func (g GatewayAdditions) atGateway(version, kind string, spec any) object {
	return object{APIVersion: version, Kind: kind, Metadata: metaOf(gatewayAdded, g.GatewayNamespace), Spec: spec}
}

func metaOf(name, namespace string) objectMeta {
	return objectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/part-of": defaultNodeID}}
}

func backendAt(protocols []string, list ...Endpoint) backendSpec {
	b := backendSpec{AppProtocols: protocols}
	for _, e := range list {
		switch {
		case e.socket != "":
			b.Endpoints = append(b.Endpoints, backendEndpoint{Unix: &unixSocket{e.socket}})
		case e.isName():
			b.Endpoints = append(b.Endpoints, backendEndpoint{FQDN: &hostPort{strings.TrimSuffix(e.host, "."), e.port}})
		default:
			b.Endpoints = append(b.Endpoints, backendEndpoint{IP: &ipPort{e.host, e.port}})
		}
	}
	return b
}

func backendNamed(name string) []reference {
	return []reference{{Group: envoyGateway, Kind: "Backend", Name: name}}
}

func routeNamed(name string) []reference {
	return []reference{{Group: gatewayAPI, Kind: "HTTPRoute", Name: name}}
}

// pages are all but "/": the front page of a site that has been there before us.
func (g GatewayAdditions) pages() httpRouteSpec {
	var matches []httpRouteMatch
	for _, path := range InfoPaths() {
		if path != "/" {
			matches = append(matches, httpRouteMatch{pathMatch{"Exact", path}})
		}
	}
	return g.route(httpRouteRule{
		Matches: matches, BackendRefs: backendNamed(gatewayPages),
		Timeouts: routeTimeouts{duration(5 * time.Second)},
	})
}

// models says what modelRoute says, in the words of Gateway API.
func (g GatewayAdditions) models() httpRouteSpec {
	r := modelRoute(g.Options)
	filters := []httpRouteFilter{
		{Type: "RequestHeaderModifier", RequestHeaderModifier: &headersRemoved{r.GetRequestHeadersToRemove()}},
		{Type: "ResponseHeaderModifier", ResponseHeaderModifier: &headersRemoved{r.GetResponseHeadersToRemove()}},
	}
	// A literal, not the dialled name. It cannot have a port: patches adds it.
	rewrite := &urlRewrite{Hostname: strings.TrimSuffix(g.Upstream.Host, ".")}
	if !(Endpoint{host: g.Upstream.Host}).isName() {
		rewrite.Hostname = ""
	}
	if g.rewritesPath() {
		path := strings.TrimSuffix(g.Upstream.prefix(), "/")
		if path == "" {
			path = "/"
		}
		rewrite.Path = &pathRewrite{"ReplacePrefixMatch", path}
	}
	if *rewrite != (urlRewrite{}) {
		filters = append(filters, httpRouteFilter{Type: "URLRewrite", URLRewrite: rewrite})
	}
	return g.route(httpRouteRule{
		Matches:     []httpRouteMatch{{pathMatch{"PathPrefix", strings.TrimSuffix(clientPrefix, "/")}}},
		Filters:     filters,
		BackendRefs: backendNamed(gatewayModels),
		Timeouts:    routeTimeouts{duration(r.GetRoute().GetTimeout().AsDuration())},
	})
}

func (g GatewayAdditions) route(rule httpRouteRule) httpRouteSpec {
	return httpRouteSpec{
		ParentRefs: []reference{{Group: gatewayAPI, Kind: "Gateway", Name: g.Gateway, Namespace: g.GatewayNamespace, SectionName: g.Section}},
		Hostnames:  g.Hostnames,
		Rules:      []httpRouteRule{rule},
	}
}

// trust is the policy of the model server's certificates.
func (g GatewayAdditions) trust() ([]manifest, error) {
	if !g.Upstream.TLS {
		return nil, nil
	}
	policy := backendTLSPolicySpec{
		TargetRefs: backendNamed(gatewayModels),
		Validation: tlsValidation{Hostname: strings.TrimSuffix(g.Upstream.Host, "."), WellKnownCACertificates: "System"},
	}
	var list []manifest
	if g.Upstream.CAFile != "" {
		pem, err := os.ReadFile(g.Upstream.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: CA file: %w", ErrOptions, err)
		}
		policy.Validation.WellKnownCACertificates = ""
		policy.Validation.CACertificateRefs = []reference{{Kind: "ConfigMap", Name: gatewayModels}}
		list = append(list, manifest{why: whyAuthority, object: object{
			APIVersion: "v1", Kind: "ConfigMap", Metadata: metaOf(gatewayModels, g.Namespace), Data: map[string]string{"ca.crt": string(pem)},
		}})
	}
	return append(list, manifest{why: whyTLSPolicy, object: g.ours(gatewayAPIv1, "BackendTLSPolicy", gatewayModels, policy)}), nil
}
