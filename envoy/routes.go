package envoy

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// InfoPaths are the paths that the sidecar's own HTTP answers, sorted. They
// pass neither ext_proc nor the lock: what stands here must do its own
// checking. This is the one place to add another.
func InfoPaths() []string {
	return []string{
		"/",
		"/api/v1/key",
		"/docs",
		"/docs/favicon-32x32.png",
		"/docs/init.js",
		"/docs/page.css",
		"/docs/swagger-ui-bundle.js",
		"/docs/swagger-ui.css",
		healthPath,
		"/healthz/live",
		"/healthz/ready",
		"/limits",
		"/openapi.json",
		"/rate-limit",
		"/redoc",
		"/redoc/init.js",
		"/redoc/page.css",
		"/redoc/redoc.standalone.js",
		"/tariff",
		"/usage",
		"/v1/limits",
		"/v1/tariff",
		"/v1/usage",
	}
}

const healthPath = "/health"

// clientPrefix is what model requests begin with; see [Upstream.BasePath].
const clientPrefix = "/v1/"

// removedFromRequests never reach the model server: encodings that would hide
// the usage from us, and what Envoy tells about the client.
func removedFromRequests() []string {
	return []string{
		"accept-encoding", "cookie", "forwarded",
		"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
		"x-envoy-external-address", "x-envoy-internal", "x-envoy-attempt-count",
		"x-envoy-expected-rq-timeout-ms", "x-envoy-original-path", "x-envoy-original-host",
	}
}

// routes is the route table: the sidecar's own pages, the model server, and
// 404 for the rest. The first match decides; nothing clears that choice later.
func routes(o Options) *routev3.RouteConfiguration {
	var list []*routev3.Route
	if len(o.CORS.Origins) > 0 {
		list = append(list, preflightRoute())
	}
	for _, path := range InfoPaths() {
		list = append(list, apiRoute(path, o.API))
	}
	list = append(list, modelRoute(o), unknownRoute())
	return &routev3.RouteConfiguration{
		Name: "llm",
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "llm",
			Domains: []string{"*"},
			// Bytes; it overrides the connection's own limit while a body waits
			// to be admitted.
			RequestBodyBufferLimit: wrapperspb.UInt64(uint64(o.MaxRequestBytes)),
			Routes:                 list,
			TypedPerFilterConfig:   corsPolicy(o.CORS),
		}},
	}
}

func apiRoute(path string, at []Endpoint) *routev3.Route {
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: apiCluster},
		Timeout:          seconds(5),
	}
	if replicated(at) { // a single one has nobody to repeat it to
		action.RetryPolicy = safeRetry(true)
	}
	return &routev3.Route{
		Name:                 "api" + path,
		Match:                &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}},
		Action:               &routev3.Route_Route{Route: action},
		TypedPerFilterConfig: ungated(),
	}
}

func modelRoute(o Options) *routev3.Route {
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: upstreamCluster},
		// A literal, not the dialled name: with auto_host_rewrite the name that
		// TLS checks would come from the client's Host header.
		HostRewriteSpecifier: &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: o.Upstream.authority()},
		Timeout:              seconds(0), // the default of 15 s counts the whole answer
		IdleTimeout:          durationpb.New(o.UpstreamTimeout),
		MaxStreamDuration:    &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: seconds(3600)},
		// Only what has certainly not reached the model server is tried again:
		// a second attempt of anything else could be paid twice.
		RetryPolicy: safeRetry(o.Upstream.Replicas),
	}
	if o.rewritesPath() {
		action.PrefixRewrite = o.Upstream.prefix()
	}
	return &routev3.Route{
		Name:                   upstreamRoute,
		Match:                  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: clientPrefix}},
		Action:                 &routev3.Route_Route{Route: action},
		RequestHeadersToRemove: removedFromRequests(),
		// What a model server thinks of web pages is none of their business: they
		// have come to us. Nor where we let nobody in.
		ResponseHeadersToRemove: corsHeaders(),
		TypedPerFilterConfig: map[string]*anypb.Any{
			extProcName: anyOf(&extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Overrides{
				Overrides: &extprocv3.ExtProcOverrides{ProcessingMode: fullMode()},
			}}),
		},
	}
}

// preflightRoute is taken by every preflight, whatever it is about. The CORS
// filter answers it, so nothing goes where the route leads. Without it that
// answer would pass ext_proc like the model server's: an absent sidecar would
// swallow it.
func preflightRoute() *routev3.Route {
	present := func(name string) *routev3.HeaderMatcher {
		return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	}
	r := unknownRoute()
	r.Name = preflights
	r.Match.Headers = []*routev3.HeaderMatcher{
		{Name: ":method", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "OPTIONS"},
		}}},
		present("origin"), present("access-control-request-method"),
	}
	return r
}

// unknownRoute leads to a cluster with nobody in it, and the table of local
// replies makes a 404 of that. A direct answer would be plainer, but Envoy's
// CORS filter does nothing on routes that have one: a browser would hide the
// 404 from the script that mistyped a path.
func unknownRoute() *routev3.Route {
	return &routev3.Route{
		Name:  unknownPaths,
		Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: nobodyCluster},
		}},
		TypedPerFilterConfig: ungated(),
	}
}

// ungated takes ext_proc and the lock off a route: the health of the gateway
// must be answered while the sidecar's gRPC is away, and an unknown path is no
// business of the sidecar. Never for a route to the model server.
func ungated() map[string]*anypb.Any {
	return map[string]*anypb.Any{
		extProcName: anyOf(&extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Disabled{Disabled: true}}),
		rbacName:    anyOf(&rbacv3.RBACPerRoute{}), // empty means off
	}
}

func (o Options) rewritesPath() bool { return o.Upstream.prefix() != clientPrefix }
