package envoy

import (
	"encoding/json"
	"fmt"
	"time"
)

// The parts of Gateway API's and Envoy Gateway's kinds that we write. Their Go
// types would bring all of Kubernetes with them.

const (
	gatewayAPI    = "gateway.networking.k8s.io"
	gatewayAPIv1  = gatewayAPI + "/v1"
	envoyGateway  = "gateway.envoyproxy.io"
	envoyGatewayV = envoyGateway + "/v1alpha1"
)

// reference names an object; a target's SectionName is a part of it.
type reference struct {
	Group       string `json:"group,omitempty"`
	Kind        string `json:"kind,omitempty"`
	Name        string `json:"name"`
	Namespace   string `json:"namespace,omitempty"`
	SectionName string `json:"sectionName,omitempty"`
}

type backendSpec struct {
	AppProtocols []string          `json:"appProtocols,omitempty"`
	Endpoints    []backendEndpoint `json:"endpoints"`
}

// backendEndpoint has exactly one of its fields.
type backendEndpoint struct {
	FQDN *hostPort   `json:"fqdn,omitempty"`
	IP   *ipPort     `json:"ip,omitempty"`
	Unix *unixSocket `json:"unix,omitempty"`
}

type hostPort struct {
	Hostname string `json:"hostname"`
	Port     uint32 `json:"port"`
}

type ipPort struct {
	Address string `json:"address"`
	Port    uint32 `json:"port"`
}

type unixSocket struct {
	Path string `json:"path"`
}

type httpRouteSpec struct {
	ParentRefs []reference     `json:"parentRefs"`
	Hostnames  []string        `json:"hostnames,omitempty"`
	Rules      []httpRouteRule `json:"rules"`
}

type httpRouteRule struct {
	Matches     []httpRouteMatch  `json:"matches"`
	Filters     []httpRouteFilter `json:"filters,omitempty"`
	BackendRefs []reference       `json:"backendRefs"`
	Timeouts    routeTimeouts     `json:"timeouts"`
}

type httpRouteMatch struct {
	Path pathMatch `json:"path"`
}

type pathMatch struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// httpRouteFilter has the one field that its type names.
type httpRouteFilter struct {
	Type                   string          `json:"type"`
	RequestHeaderModifier  *headersRemoved `json:"requestHeaderModifier,omitempty"`
	ResponseHeaderModifier *headersRemoved `json:"responseHeaderModifier,omitempty"`
	URLRewrite             *urlRewrite     `json:"urlRewrite,omitempty"`
}

type headersRemoved struct {
	Remove []string `json:"remove"`
}

type urlRewrite struct {
	Hostname string       `json:"hostname,omitempty"`
	Path     *pathRewrite `json:"path,omitempty"`
}

type pathRewrite struct {
	Type               string `json:"type"`
	ReplacePrefixMatch string `json:"replacePrefixMatch"`
}

type routeTimeouts struct {
	Request duration `json:"request"`
}

type backendTLSPolicySpec struct {
	TargetRefs []reference   `json:"targetRefs"`
	Validation tlsValidation `json:"validation"`
}

// tlsValidation has one of the two sources of trusted certificates.
type tlsValidation struct {
	Hostname                string      `json:"hostname"`
	WellKnownCACertificates string      `json:"wellKnownCACertificates,omitempty"`
	CACertificateRefs       []reference `json:"caCertificateRefs,omitempty"`
}

type extensionPolicySpec struct {
	TargetRefs []reference      `json:"targetRefs"`
	ExtProc    []extProcBackend `json:"extProc"`
}

type extProcBackend struct {
	BackendRefs     []reference     `json:"backendRefs"`
	BackendSettings clusterSettings `json:"backendSettings"`
	FailOpen        bool            `json:"failOpen"`
	MessageTimeout  duration        `json:"messageTimeout"`
	StatusOnError   int32           `json:"statusOnError"`
	ProcessingMode  processingModes `json:"processingMode"`
	Metadata        writable        `json:"metadata"`
}

type processingModes struct {
	AllowModeOverride bool          `json:"allowModeOverride"`
	Request           directionMode `json:"request"`
	Response          directionMode `json:"response"`
}

type directionMode struct {
	Body       string   `json:"body"`
	Attributes []string `json:"attributes"`
}

type writable struct {
	WritableNamespaces []string `json:"writableNamespaces"`
}

type securityPolicySpec struct {
	TargetRefs    []reference   `json:"targetRefs"`
	Authorization authorization `json:"authorization"`
}

type authorization struct {
	DefaultAction string              `json:"defaultAction"`
	Rules         []authorizationRule `json:"rules"`
}

type authorizationRule struct {
	Name   string `json:"name"`
	Action string `json:"action"`
	CEL    string `json:"cel"`
}

type backendTrafficPolicySpec struct {
	TargetRefs      []reference `json:"targetRefs"`
	clusterSettings `json:",inline"`
}

// clusterSettings are those of a cluster that Envoy Gateway makes.
type clusterSettings struct {
	CircuitBreaker circuitBreaker  `json:"circuitBreaker"`
	Retry          *retry          `json:"retry,omitempty"`
	HealthCheck    *healthCheck    `json:"healthCheck,omitempty"`
	Timeout        *clusterTimeout `json:"timeout,omitempty"`
	Connection     *connection     `json:"connection,omitempty"`
	HTTP2          *http2Settings  `json:"http2,omitempty"`
}

type circuitBreaker struct {
	MaxConnections      int64 `json:"maxConnections"`
	MaxParallelRequests int64 `json:"maxParallelRequests"`
	MaxParallelRetries  int64 `json:"maxParallelRetries"`
	MaxPendingRequests  int64 `json:"maxPendingRequests"`
}

type retry struct {
	NumRetries uint32    `json:"numRetries"`
	RetryOn    retryOn   `json:"retryOn"`
	PerRetry   *perRetry `json:"perRetry,omitempty"`
}

type retryOn struct {
	Triggers []string `json:"triggers"`
}

type perRetry struct {
	BackOff backOff `json:"backOff"`
}

type backOff struct {
	BaseInterval duration `json:"baseInterval"`
	MaxInterval  duration `json:"maxInterval"`
}

type healthCheck struct {
	PanicThreshold uint32      `json:"panicThreshold"` // percent
	Active         activeCheck `json:"active"`
}

type activeCheck struct {
	Type               string     `json:"type"`
	Timeout            duration   `json:"timeout"`
	Interval           duration   `json:"interval"`
	UnhealthyThreshold uint32     `json:"unhealthyThreshold"`
	HealthyThreshold   uint32     `json:"healthyThreshold"`
	HTTP               *httpCheck `json:"http,omitempty"`
	GRPC               *struct{}  `json:"grpc,omitempty"`
}

type httpCheck struct {
	Hostname string `json:"hostname,omitempty"`
	Path     string `json:"path"`
}

type clusterTimeout struct {
	TCP  *tcpTimeout  `json:"tcp,omitempty"`
	HTTP *httpTimeout `json:"http,omitempty"`
}

type tcpTimeout struct {
	ConnectTimeout duration `json:"connectTimeout"`
}

type httpTimeout struct {
	ConnectionIdleTimeout duration `json:"connectionIdleTimeout"`
	RequestTimeout        duration `json:"requestTimeout"`
	MaxStreamDuration     duration `json:"maxStreamDuration"`
	StreamIdleTimeout     duration `json:"streamIdleTimeout"`
}

type connection struct {
	BufferLimit string `json:"bufferLimit"` // bytes, as Kubernetes writes quantities
}

type http2Settings struct {
	ConnectionKeepalive keepalive `json:"connectionKeepalive"`
}

type keepalive struct {
	Interval duration `json:"interval"`
	Timeout  duration `json:"timeout"`
}

type clientTrafficPolicySpec struct {
	TargetRefs []reference    `json:"targetRefs"`
	Path       pathSettings   `json:"path"`
	Headers    headerSettings `json:"headers"`
	Connection connection     `json:"connection"`
}

type pathSettings struct {
	EscapedSlashesAction string `json:"escapedSlashesAction"`
	DisableMergeSlashes  bool   `json:"disableMergeSlashes"`
}

type headerSettings struct {
	WithUnderscoresAction string `json:"withUnderscoresAction"`
	RequestID             string `json:"requestID"`
}

type patchPolicySpec struct {
	TargetRef   reference   `json:"targetRef"`
	Type        string      `json:"type"`
	JSONPatches []xdsChange `json:"jsonPatches"`
}

// xdsChange is one change of one resource of Envoy's; each is applied, or
// refused, on its own.
type xdsChange struct {
	Type      string         `json:"type"`
	Name      string         `json:"name"`
	Operation patchOperation `json:"operation"`
}

type patchOperation struct {
	Op       string          `json:"op"`
	JSONPath string          `json:"jsonPath,omitempty"`
	Path     string          `json:"path,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
}

type envoyProxySpec struct {
	Bootstrap proxyBootstrap `json:"bootstrap"`
}

type proxyBootstrap struct {
	Type        string           `json:"type"`
	JSONPatches []patchOperation `json:"jsonPatches"`
}

// duration is written as Gateway API reads it: whole hours, seconds and
// milliseconds.
type duration time.Duration

// MarshalJSON writes as many units as are needed: "0s", "300s", "1h", "1s500ms".
func (d duration) MarshalJSON() ([]byte, error) {
	const most = 99999 // of one unit
	rest := time.Duration(d)
	text := ""
	if hours := rest / time.Hour; rest%time.Hour == 0 && hours > 0 || rest/time.Second > most {
		if hours > most {
			return nil, fmt.Errorf("%w: %v is too long for Gateway API; write at most %dh", ErrOptions, rest, most)
		}
		text = fmt.Sprintf("%dh", hours)
		rest -= hours * time.Hour
	}
	if s := rest / time.Second; s > 0 || text == "" && rest < time.Millisecond {
		text += fmt.Sprintf("%ds", s)
		rest -= s * time.Second
	}
	if ms := rest / time.Millisecond; ms > 0 {
		text += fmt.Sprintf("%dms", ms)
	}
	return json.Marshal(text)
}
