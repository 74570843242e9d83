package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// HTTP/2 towards clients. Many streams share a connection in an SDK's pool;
// the windows bound what a connection may make us hold before it is admitted.
const (
	maxConcurrentStreams = 1000
	streamWindow         = 256 << 10
	connectionWindow     = 1 << 20
)

// ownHeaders are the prefixes in which only we and Envoy speak. From a client
// they would be instructions: x-envoy-retry-on, x-envoy-upstream-rq-timeout-ms
// and their like change how Envoy treats a request.
func ownHeaders() []string { return []string{"x-llmgw-", "x-envoy-"} }

func listener(o Options) (*listenerv3.Listener, error) {
	ip, port, err := listenAddress(o.Listen)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Name:    "llm",
		Address: socketAddress(ip.String(), port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(connectionManager(o))},
		}}}},
	}, nil
}

func connectionManager(o Options) *hcmv3.HttpConnectionManager {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:                statPrefix,
		ServerName:                "llm-gateway",
		CodecType:                 hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier:            &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes(o)},
		HttpFilters:               httpFilters(o),
		AccessLog:                 []*accesslogv3.AccessLog{accessLog(o)},
		LocalReplyConfig:          localReplies(o.CORS),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: seconds(3600)},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(maxConcurrentStreams),
			InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
			InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		},

		RequestHeadersTimeout: seconds(10),
		RequestTimeout:        seconds(120), // the upload only; it does not cut the answer
		StreamIdleTimeout:     durationpb.New(o.UpstreamTimeout),

		// We are the edge: no client is internal, not even on this machine.
		UseRemoteAddress:              wrapperspb.Bool(true),
		InternalAddressConfig:         &hcmv3.HttpConnectionManager_InternalAddressConfig{},
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{forgetOwnHeaders()},
	}
	for _, part := range []*hcmv3.HttpConnectionManager{onePathReading(), plainHeaderNames(), requestIDs()} {
		proto.Merge(m, part)
	}
	return m
}

// onePathReading makes one path of its spellings before the sidecar sees it:
// what the sidecar judges is what the model server gets.
func onePathReading() *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
	}
}

// plainHeaderNames refuses foo_bar, which is foo-bar to many servers: nobody
// may write one of our headers in a way that we do not see.
func plainHeaderNames() *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
		HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
	}}
}

// requestIDs gives every request a name that the client sees too.
func requestIDs() *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{GenerateRequestId: wrapperspb.Bool(true), AlwaysSetRequestIdInResponse: true}
}

// forgetOwnHeaders removes what no client may say before anything reads it.
func forgetOwnHeaders() *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: anyOf(&earlyv3.HeaderMutation{Mutations: withoutOwnHeaders()}),
	}
}

func withoutOwnHeaders() []*mutationv3.HeaderMutation {
	var mutations []*mutationv3.HeaderMutation
	for _, prefix := range ownHeaders() {
		mutations = append(mutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
				IgnoreCase:   true,
			}},
		}})
	}
	return mutations
}
