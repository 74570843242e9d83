package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	configrbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	exprv1 "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	extProcName = "envoy.filters.http.ext_proc"
	rbacName    = "envoy.filters.http.rbac"
)

// httpFilters is the chain in the order in which a request passes it. Nothing
// may come between ext_proc and the lock.
func httpFilters(o Options) []*hcmv3.HttpFilter {
	chain := corsFilters(o.CORS)
	if o.rewritesPath() {
		chain = append(chain, filter("envoy.filters.http.set_filter_state", rememberPath()))
	}
	return append(chain,
		filter(extProcName, extProc(o)),
		filter(rbacName, lock()),
		filter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}),
	)
}

func filter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: anyOf(config)}}
}

func extProc(o Options) *extprocv3.ExternalProcessor {
	return &extprocv3.ExternalProcessor{
		StatPrefix: "llmgw",
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: sidecarCluster}},
			// It has to stand here: inside envoy_grpc it is accepted and does
			// nothing.
			RetryPolicy: sidecarRetry(o.ExtProc),
		},
		FailureModeAllow:     false,
		StatusOnError:        &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		MessageTimeout:       durationpb.New(o.MessageTimeout),
		MaxMessageTimeout:    seconds(0), // the sidecar cannot ask for more
		RouteCacheAction:     extprocv3.ExternalProcessor_RETAIN,
		ProcessingMode:       smallMode(),
		AllowModeOverride:    true,
		AllowedOverrideModes: allowedModes(),
		RequestAttributes:    []string{"source.address", "request.id"},
		ResponseAttributes:   []string{"response.code", "response.code_details"},
		MetadataOptions: &extprocv3.MetadataOptions{
			ReceivingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: []string{metadataNamespace}},
		},
	}
}

// smallMode holds where no route says otherwise. Envoy's own replies, its
// rejections of malformed requests among them, pass the filter too: with the
// full mode a missing sidecar would swallow them.
func smallMode() *extprocv3.ProcessingMode {
	m := mode(extprocv3.ProcessingMode_NONE, extprocv3.ProcessingMode_NONE)
	m.ResponseHeaderMode = extprocv3.ProcessingMode_SKIP
	return m
}

// fullMode is the model route's: the whole request before it leaves, the
// answer as it streams.
func fullMode() *extprocv3.ProcessingMode {
	return mode(extprocv3.ProcessingMode_BUFFERED, extprocv3.ProcessingMode_STREAMED)
}

// allowedModes are what the sidecar may switch a request to. Envoy compares
// the merged mode with each entry field by field, so every field is spelled
// out: an entry with a default never matches, and nothing would tell.
func allowedModes() []*extprocv3.ProcessingMode {
	return []*extprocv3.ProcessingMode{
		mode(extprocv3.ProcessingMode_BUFFERED, extprocv3.ProcessingMode_STREAMED),
		mode(extprocv3.ProcessingMode_BUFFERED, extprocv3.ProcessingMode_NONE),
		mode(extprocv3.ProcessingMode_NONE, extprocv3.ProcessingMode_STREAMED),
		mode(extprocv3.ProcessingMode_NONE, extprocv3.ProcessingMode_NONE),
	}
}

// mode keeps the trailer modes the same everywhere: Envoy merges an override
// with the filter's mode, not the route's, and a difference makes it miss.
// Response trailers are sent because an HTTP/2 answer with trailers has no
// other end.
func mode(request, response extprocv3.ProcessingMode_BodySendMode) *extprocv3.ProcessingMode {
	return &extprocv3.ProcessingMode{
		RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
		RequestBodyMode:     request,
		RequestTrailerMode:  extprocv3.ProcessingMode_SKIP,
		ResponseHeaderMode:  extprocv3.ProcessingMode_SEND,
		ResponseBodyMode:    response,
		ResponseTrailerMode: extprocv3.ProcessingMode_SEND,
	}
}

// lock lets a request on only when the sidecar admitted it; see the package
// comment.
func lock() *rbacv3.RBAC {
	admitted := &matcherv3.MetadataMatcher{
		Filter: metadataNamespace,
		Path:   []*matcherv3.MetadataMatcher_PathSegment{{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "admit"}}},
		Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "1"},
		}}},
	}
	return &rbacv3.RBAC{Rules: &configrbacv3.RBAC{
		Action: configrbacv3.RBAC_ALLOW,
		Policies: map[string]*configrbacv3.Policy{"admitted": {
			Permissions: []*configrbacv3.Permission{{Rule: &configrbacv3.Permission_SourcedMetadata{
				SourcedMetadata: &configrbacv3.SourcedMetadata{MetadataMatcher: admitted},
			}}},
			Principals: anybody(),
		}},
	}}
}

// lockBefore is the lock of a listener that has other routes too: whatever leads
// to one of the clusters must have been admitted, by whichever route it goes; the
// rest is none of our business. A condition that cannot be read opens nothing.
func lockBefore(clusters ...string) *rbacv3.RBAC {
	field := func(testOnly bool) *exprv1.Expr {
		xds := &exprv1.Expr{ExprKind: &exprv1.Expr_IdentExpr{IdentExpr: &exprv1.Expr_Ident{Name: "xds"}}}
		return &exprv1.Expr{ExprKind: &exprv1.Expr_SelectExpr{SelectExpr: &exprv1.Expr_Select{Operand: xds, Field: "cluster_name", TestOnly: testOnly}}}
	}
	call := func(function string, args ...*exprv1.Expr) *exprv1.Expr {
		return &exprv1.Expr{ExprKind: &exprv1.Expr_CallExpr{CallExpr: &exprv1.Expr_Call{Function: function, Args: args}}}
	}
	var elsewhere *exprv1.Expr
	for _, cluster := range clusters {
		name := &exprv1.Expr{ExprKind: &exprv1.Expr_ConstExpr{ConstExpr: &exprv1.Constant{ConstantKind: &exprv1.Constant_StringValue{StringValue: cluster}}}}
		differs := call("_!=_", field(false), name)
		if elsewhere == nil {
			elsewhere = differs
			continue
		}
		elsewhere = call("_&&_", elsewhere, differs)
	}
	l := lock()
	l.Rules.Policies["leads_elsewhere"] = &configrbacv3.Policy{
		Permissions: []*configrbacv3.Permission{{Rule: &configrbacv3.Permission_Any{Any: true}}},
		Principals:  anybody(),
		// !has(xds.cluster_name) || xds.cluster_name != cluster: direct answers
		// and redirects have no cluster.
		Condition: call("_||_", call("!_", field(true)), elsewhere),
	}
	return l
}

func anybody() []*configrbacv3.Principal {
	return []*configrbacv3.Principal{{Identifier: &configrbacv3.Principal_Any{Any: true}}}
}

// clientPathKey is where rememberPath puts the path.
const clientPathKey = "llmgw.path"

// rememberPath keeps the client's path for the access log. The router writes
// the upstream's path over it, and Envoy's own memory of the original is a
// header that the upstream would see.
func rememberPath() *setstatev3.Config {
	return &setstatev3.Config{OnRequestHeaders: []*statev3.FilterStateValue{{
		Key:        &statev3.FilterStateValue_ObjectKey{ObjectKey: clientPathKey},
		FactoryKey: "envoy.string",
		Value: &statev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineString{InlineString: "%PATH(NQ)%"},
			}},
		}},
	}}}
}
