package envoy

import "encoding/json"

// The parts of Istio's and Kubernetes' kinds that we write; a test reads them
// into Istio's own types.

// istioGateway is the spec of a networking.istio.io Gateway.
type istioGateway struct {
	Selector map[string]string `json:"selector"`
	Servers  []istioServer     `json:"servers"`
}

type istioServer struct {
	Port  istioPort `json:"port"`
	Hosts []string  `json:"hosts"`
	TLS   *istioTLS `json:"tls,omitempty"`
}

type istioPort struct {
	Number   uint32 `json:"number"`
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
}

type istioTLS struct {
	Mode           string `json:"mode"`
	CredentialName string `json:"credentialName"`
}

// envoyFilter is the spec of a networking.istio.io EnvoyFilter.
type envoyFilter struct {
	WorkloadSelector workloadSelector `json:"workloadSelector"`
	Priority         int32            `json:"priority"`
	ConfigPatches    []configPatch    `json:"configPatches,omitempty"`
}

type workloadSelector struct {
	Labels map[string]string `json:"labels"`
}

type configPatch struct {
	ApplyTo string     `json:"applyTo"`
	Match   patchMatch `json:"match"`
	Patch   patch      `json:"patch"`
}

type patch struct {
	Operation string          `json:"operation"`
	Value     json.RawMessage `json:"value"` // an Envoy message
}

type patchMatch struct {
	Context            string         `json:"context"`
	Listener           *listenerMatch `json:"listener,omitempty"`
	RouteConfiguration *portMatch     `json:"routeConfiguration,omitempty"`
}

type portMatch struct {
	PortNumber uint32 `json:"portNumber"`
}

type listenerMatch struct {
	PortNumber  uint32           `json:"portNumber,omitempty"`
	FilterChain filterChainMatch `json:"filterChain"`
}

type filterChainMatch struct {
	Filter filterMatch `json:"filter"`
}

type filterMatch struct {
	Name      string     `json:"name"`
	SubFilter *namedOnly `json:"subFilter,omitempty"`
}

type namedOnly struct {
	Name string `json:"name"`
}

// deployment is the part of an apps/v1 Deployment that is added to one that
// exists.
type deployment struct {
	Template podTemplate `json:"template"`
}

type podTemplate struct {
	Metadata objectMeta `json:"metadata"`
	Spec     *podSpec   `json:"spec,omitempty"`
}

type podSpec struct {
	Containers []container `json:"containers"`
	Volumes    []volume    `json:"volumes"`
}

type container struct {
	Name            string           `json:"name"`
	Image           string           `json:"image,omitempty"`
	Args            []string         `json:"args,omitempty"`
	Env             []envVar         `json:"env,omitempty"`
	SecurityContext *securityContext `json:"securityContext,omitempty"`
	ReadinessProbe  *execProbe       `json:"readinessProbe,omitempty"`
	LivenessProbe   *execProbe       `json:"livenessProbe,omitempty"`
	VolumeMounts    []volumeMount    `json:"volumeMounts"`
}

type execProbe struct {
	Exec             execCommand `json:"exec"`
	PeriodSeconds    int         `json:"periodSeconds"`
	TimeoutSeconds   int         `json:"timeoutSeconds"`
	FailureThreshold int         `json:"failureThreshold"`
}

type execCommand struct {
	Command []string `json:"command"`
}

type envVar struct {
	Name      string    `json:"name"`
	Value     string    `json:"value,omitempty"`
	ValueFrom *envValue `json:"valueFrom,omitempty"`
}

type envValue struct {
	SecretKeyRef secretKey `json:"secretKeyRef"`
}

type secretKey struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Optional bool   `json:"optional,omitempty"`
}

type securityContext struct {
	RunAsUser                int64        `json:"runAsUser"`
	RunAsGroup               int64        `json:"runAsGroup"`
	RunAsNonRoot             bool         `json:"runAsNonRoot"`
	AllowPrivilegeEscalation bool         `json:"allowPrivilegeEscalation"`
	ReadOnlyRootFilesystem   bool         `json:"readOnlyRootFilesystem"`
	Capabilities             capabilities `json:"capabilities"`
}

type capabilities struct {
	Drop []string `json:"drop"`
}

type volume struct {
	Name     string    `json:"name"`
	EmptyDir *emptyDir `json:"emptyDir"`
}

type emptyDir struct{}

type volumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
}
