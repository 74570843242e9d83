package envoy

import (
	"errors"
	"fmt"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	headersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// DefaultCluster is the name of the model server's cluster in [Additions] for an
// Envoy that has none yet.
const DefaultCluster = "llm_upstream"

// What is added has names of its own: an Envoy may well have an ext_proc, an
// RBAC filter and a route "llm" already, and settings of a route find their
// filter by its name.
const (
	addedPrefix = "llmgw."
	addedStrip  = addedPrefix + "strip"
	addedGate   = addedPrefix + "ext_proc"
	addedLock   = addedPrefix + "lock"
	addedModels = addedPrefix + "models"
	addedPages  = addedPrefix + "api" // and the path
)

// Additions is what an Envoy with a configuration of its own needs in order to
// become a gateway, and nothing else.
type Additions struct {
	// Options without Listen, AdminSocket, AdminAddress, NodeID and CORS, which
	// are the other configuration's business. The zero Upstream is allowed beside
	// a Cluster: requests then go there as they came.
	Options
	// Cluster is the other configuration's own cluster of the model server. ""
	// adds one, [DefaultCluster], for Upstream.
	Cluster string
}

// YAML writes the additions as one document, each with a comment that says what
// it is for and what breaks without it. Its keys are layered_runtime (of the
// bootstrap), clusters (of static_resources), http_connection_manager (fields
// of the listener's), http_filters (before the router) and routes (the first of
// the virtual host). Errors wrap [ErrOptions] or [ErrUpstream].
func (a Additions) YAML() ([]byte, error) {
	a.Options = a.filled()
	if err := a.check(); err != nil {
		return nil, err
	}
	clusters, err := a.clusters()
	if err != nil {
		return nil, err
	}
	return writeDocument(aboutAdditions, []section{
		{name: "layered_runtime", where: whereRuntime, parts: []part{{whyGraceful, addedRuntime()}}},
		{name: "clusters", where: whereClusters, list: true, parts: clusters},
		{name: "http_connection_manager", where: whereManager, parts: a.manager()},
		{name: "http_filters", where: whereFilters, list: true, parts: a.filters(a.cluster())},
		{name: "routes", where: whereRoutes, list: true, parts: a.routes()},
	})
}

// addedRuntime is the runtime's layer under a name of its own: two of the same
// name are refused.
func addedRuntime() *bootstrapv3.LayeredRuntime {
	r := runtimeFlags()
	r.GetLayers()[0].Name = sidecarCluster
	return r
}

func (a Additions) check() error {
	errs := []error{a.checkSidecars()}
	if a.Cluster != "" {
		errs = append(errs, checkCluster(a.Cluster))
	}
	if a.Cluster == "" || a.Upstream != (Upstream{}) {
		errs = append(errs, a.Upstream.check())
	}
	return errors.Join(errs...)
}

// checkCluster keeps a name from meaning more than a name where it is written
// into a condition.
func checkCluster(name string) error {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_-.:|/", c) {
			return fmt.Errorf("%w: the cluster %q: write its name in Envoy's configuration: letters, digits and _ - . : | /", ErrOptions, name)
		}
	}
	if name == sidecarCluster || name == apiCluster {
		return fmt.Errorf("%w: the cluster %q is the sidecar's: write the name of the model server's", ErrOptions, name)
	}
	return nil
}

func (a Additions) cluster() string {
	if a.Cluster == "" {
		return DefaultCluster
	}
	return a.Cluster
}

func (a Additions) clusters() ([]part, error) {
	parts := []part{{whyGateCluster, sidecarClusterOf(a.ExtProc)}, {whyPagesCluster, apiClusterOf(a.API)}}
	if a.Cluster != "" {
		return parts, nil
	}
	upstream, err := upstreamClusterOf(a.Upstream)
	if err != nil {
		return nil, err
	}
	rename(upstream, DefaultCluster)
	return append(parts, part{whyModelCluster, upstream}), nil
}

func rename(c *clusterv3.Cluster, name string) {
	c.Name = name
	if c.GetLoadAssignment() != nil {
		c.LoadAssignment.ClusterName = name
	}
}

func (a Additions) manager() []part {
	return []part{
		{whyPaths, onePathReading()},
		{whyUnderscores, plainHeaderNames()},
		{whyRequestIDs, requestIDs()},
		{whyReplies, &hcmv3.HttpConnectionManager{LocalReplyConfig: addedReplies(a.cluster(), addedPrefix)}},
	}
}

// filters are off but on our routes, so that other routes do not need the
// sidecar. Only the lock is on everywhere: a route to a guarded cluster that
// somebody forgot is closed, not open.
func (a Additions) filters(guarded ...string) []part {
	strip, gate := filter(addedStrip, &headersv3.HeaderMutation{}), filter(addedGate, extProc(a.Options))
	strip.Disabled, gate.Disabled = true, true
	return []part{
		{whyStrip, strip},
		{whyGate, gate},
		{whyLock, filter(addedLock, lockBefore(guarded...))},
	}
}

func (a Additions) routes() []part {
	var parts []part
	for _, path := range InfoPaths() {
		if path == "/" {
			continue // the front page of a site that has been there before us
		}
		r := apiRoute(path, a.API)
		r.Name = addedPages + path
		r.TypedPerFilterConfig = nil // the filters are off unless a route has them on
		parts = append(parts, part{message: r})
	}
	parts[0].why = whyPages
	return append(parts, part{whyModels, a.modelRoute()})
}

func (a Additions) modelRoute() *routev3.Route {
	r := modelRoute(a.Options)
	r.Name = addedModels
	r.RequestBodyBufferLimit = wrapperspb.UInt64(uint64(a.MaxRequestBytes))
	r.TypedPerFilterConfig = map[string]*anypb.Any{
		addedGate: r.GetTypedPerFilterConfig()[extProcName],
		addedStrip: anyOf(&headersv3.HeaderMutationPerRoute{Mutations: &headersv3.Mutations{
			RequestMutations: withoutOwnHeaders(),
		}}),
	}
	action := r.GetRoute()
	action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: a.cluster()}
	if a.Upstream == (Upstream{}) {
		action.HostRewriteSpecifier = nil // nobody has told us a name
	}
	// A listener that upgrades connections may have filters of their own for
	// them, without ours; and the sidecar would wait for the end of a body that
	// has none.
	for _, kind := range []string{"websocket", "CONNECT"} {
		action.UpgradeConfigs = append(action.UpgradeConfigs, &routev3.RouteAction_UpgradeConfig{
			UpgradeType: kind, Enabled: wrapperspb.Bool(false),
		})
	}
	return r
}

// addedReplies are ours on our routes only, whose names begin with prefix. First of
// all, whatever the other configuration makes of local replies, what the sidecar
// answers stays as it is: a format outside of the mappers would write over it.
func addedReplies(cluster, prefix string) *hcmv3.LocalReplyConfig {
	mappers := []*hcmv3.ResponseMapper{{
		Filter: when(sidecarsOwn),
		BodyFormatOverride: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: "%LOCAL_REPLY_BODY%"},
			}},
			ContentType: "application/json",
		},
	}}
	ours := "(xds.route_name.startsWith('" + prefix + "') || xds.cluster_name == '" + cluster + "')"
	for _, r := range localReplyTable(cluster) {
		r.when = ours + " && (" + r.when + ")"
		mappers = append(mappers, r.mapper())
	}
	return &hcmv3.LocalReplyConfig{Mappers: mappers}
}
