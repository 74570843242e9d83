package envoy

import (
	"strconv"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
)

// gate is as much of the filter as Envoy Gateway's own kind can say: enough to
// judge and meter every request where patches are turned off. What is missing is
// added by [GatewayAdditions.patches].
func (g GatewayAdditions) gate() extensionPolicySpec {
	filter := extProc(g.Options)
	again := filter.GetGrpcService().GetRetryPolicy()
	settings := clusterSettings{
		CircuitBreaker: noBreaker(),
		Retry: &retry{
			NumRetries: again.GetNumRetries().GetValue(), RetryOn: retryOn{safeTriggers()},
			PerRetry: &perRetry{backOff{
				BaseInterval: duration(again.GetRetryBackOff().GetBaseInterval().AsDuration()),
				MaxInterval:  duration(again.GetRetryBackOff().GetMaxInterval().AsDuration()),
			}},
		},
		HealthCheck: &healthCheck{PanicThreshold: 100, Active: activeCheck{
			Type: "GRPC", GRPC: &struct{}{}, Timeout: duration(probeTimeout), Interval: duration(probeInterval),
			UnhealthyThreshold: probeFailures, HealthyThreshold: 1,
		}},
		Timeout:    &clusterTimeout{TCP: &tcpTimeout{duration(1 * time.Second)}},
		Connection: &connection{strconv.Itoa(1 << 20)},
		HTTP2:      &http2Settings{keepalive{Interval: duration(30 * time.Second), Timeout: duration(5 * time.Second)}},
	}
	if replicated(g.ExtProc) {
		settings.HealthCheck.PanicThreshold = 1
	}
	return extensionPolicySpec{TargetRefs: routeNamed(gatewayModels), ExtProc: []extProcBackend{{
		BackendRefs:     backendNamed(gatewayGate),
		BackendSettings: settings,
		MessageTimeout:  duration(filter.GetMessageTimeout().AsDuration()),
		StatusOnError:   int32(filter.GetStatusOnError().GetCode()),
		ProcessingMode: processingModes{
			AllowModeOverride: filter.GetAllowModeOverride(),
			Request:           directionMode{bodyMode(fullMode().GetRequestBodyMode()), filter.GetRequestAttributes()},
			Response:          directionMode{bodyMode(fullMode().GetResponseBodyMode()), filter.GetResponseAttributes()},
		},
		Metadata: writable{filter.GetMetadataOptions().GetReceivingNamespaces().GetUntyped()},
	}}}
}

func bodyMode(m extprocv3.ProcessingMode_BodySendMode) string {
	if m == extprocv3.ProcessingMode_BUFFERED {
		return "Buffered"
	}
	return "Streamed"
}

// admittedOnly is the lock in Envoy Gateway's own words. Its filter comes after
// the gate's. What cannot be read matches nothing, and is denied.
func admittedOnly() securityPolicySpec {
	return securityPolicySpec{TargetRefs: routeNamed(gatewayModels), Authorization: authorization{
		DefaultAction: "Deny",
		Rules: []authorizationRule{{
			Name: "admitted", Action: "Allow",
			CEL: "metadata.filter_metadata['" + metadataNamespace + "']['admit'] == '1'",
		}},
	}}
}

func (g GatewayAdditions) modelPolicy() backendTrafficPolicySpec {
	action := modelRoute(g.Options).GetRoute()
	unused := plainIdle
	if g.Upstream.TLS {
		unused = tlsIdle
	}
	p := backendTrafficPolicySpec{TargetRefs: routeNamed(gatewayModels), clusterSettings: clusterSettings{
		CircuitBreaker: noBreaker(),
		Retry:          &retry{NumRetries: action.GetRetryPolicy().GetNumRetries().GetValue(), RetryOn: retryOn{safeTriggers()}},
		Timeout: &clusterTimeout{
			TCP: &tcpTimeout{duration(5 * time.Second)},
			HTTP: &httpTimeout{
				ConnectionIdleTimeout: duration(unused),
				RequestTimeout:        duration(action.GetTimeout().AsDuration()),
				MaxStreamDuration:     duration(action.GetMaxStreamDuration().GetMaxStreamDuration().AsDuration()),
				StreamIdleTimeout:     duration(action.GetIdleTimeout().AsDuration()),
			},
		},
	}}
	if g.Upstream.Replicas {
		p.HealthCheck = &healthCheck{PanicThreshold: 1, Active: activeCheck{
			Type: "HTTP", HTTP: &httpCheck{Hostname: g.Upstream.Host, Path: g.Upstream.prefix() + "models"},
			Timeout: duration(probeTimeout), Interval: duration(probeInterval),
			UnhealthyThreshold: probeFailures, HealthyThreshold: 1,
		}}
	}
	return p
}

// safeTriggers are those of a request that has certainly reached nobody.
func safeTriggers() []string { return []string{"connect-failure", "refused-stream"} }

func noBreaker() circuitBreaker {
	return circuitBreaker{
		MaxConnections: unlimited, MaxParallelRequests: unlimited, MaxParallelRetries: unlimited, MaxPendingRequests: unlimited,
	}
}

func (g GatewayAdditions) clientPolicy() clientTrafficPolicySpec {
	return clientTrafficPolicySpec{
		TargetRefs: []reference{{Group: gatewayAPI, Kind: "Gateway", Name: g.Gateway, SectionName: g.Section}},
		Path:       pathSettings{EscapedSlashesAction: "RejectRequest"},
		Headers:    headerSettings{WithUnderscoresAction: "RejectRequest", RequestID: "Generate"},
		Connection: connection{strconv.FormatUint(uint64(g.MaxRequestBytes), 10)},
	}
}
