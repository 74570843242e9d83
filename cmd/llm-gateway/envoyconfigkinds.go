package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// The kinds of configuration that `envoy-config` writes.
const (
	kindBootstrap    = "bootstrap"
	kindStatic       = "static"
	kindIstio        = "istio"
	kindEnvoyGateway = "envoy-gateway"
)

func envoyConfigKinds() []string {
	return []string{kindBootstrap, kindStatic, kindIstio, kindEnvoyGateway}
}

// kindFlags are the flags that only some kinds have.
func kindFlags() map[string][]string {
	return map[string][]string{
		"listen":  {kindBootstrap},
		"admin":   {kindBootstrap},
		"cluster": {kindStatic, kindIstio},

		"hostname":  {kindIstio, kindEnvoyGateway},
		"namespace": {kindIstio, kindEnvoyGateway},

		"workload":     {kindIstio},
		"selector":     {kindIstio},
		"credential":   {kindIstio},
		"gateway-port": {kindIstio},
		"image":        {kindIstio},

		"gateway": {kindEnvoyGateway},
		"section": {kindEnvoyGateway},
	}
}

// meshFlags are the options of the kinds that write manifests.
type meshFlags struct {
	hostnames []string
	namespace string

	// Istio
	workload, credential, image string
	selector                    map[string]string
	port                        uint16

	// Envoy Gateway
	gateway, section string
}

// defaultNamespace is where Envoy Gateway's manifests put what is ours.
const defaultNamespace = "llm-gateway"

func (f *meshFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.hostnames, "hostname", nil, "istio, envoy-gateway: DNS `name` that models are served on; envoy-gateway: also several, separated by commas (default all of the listener's)")
	flags.StringVar(&f.namespace, "namespace", "", "istio: Kubernetes `namespace` of the gateway workload (default "+envoy.DefaultIstioNamespace+"); envoy-gateway: of the routes, their policies and backends (default "+defaultNamespace+")")
	flags.StringVar(&f.workload, "workload", envoy.DefaultIstioWorkload, "istio: `Deployment` of the gateway, for example istio-egressgateway")
	flags.StringToStringVar(&f.selector, "selector", nil, "istio: `labels` of the gateway's pods (default istio=WORKLOAD without \"istio-\")")
	flags.StringVar(&f.credential, "credential", "", "istio: `Secret` with the certificate of --hostname (without it plain HTTP)")
	flags.Uint16Var(&f.port, "gateway-port", 0, "istio: `port` of the gateway (default 443 with --credential, 80 without)")
	flags.StringVar(&f.image, "image", envoy.DefaultSidecarImage, "istio: `image` of a sidecar in the gateway's pod")
	flags.StringVar(&f.gateway, "gateway", "", "envoy-gateway: the Gateway to add to, as `namespace/name`")
	flags.StringVar(&f.section, "section", "http", "envoy-gateway: `name` of the Gateway's listener")
}

// istio are the manifests for a gateway workload of Istio.
func (f *meshFlags) istio(a envoy.Additions) ([]byte, error) {
	if len(f.hostnames) != 1 {
		return nil, usagef("--for istio: write with --hostname the one name by which clients reach the gateway")
	}
	return envoy.Istio{
		Additions: a, Host: f.hostnames[0], Namespace: f.namespace, Workload: f.workload, Selector: f.selector,
		Credential: f.credential, Port: uint32(f.port), Image: f.image,
	}.YAML()
}

// envoyGateway are the manifests for a Gateway of Envoy Gateway.
func (f *meshFlags) envoyGateway(o envoy.Options) ([]byte, error) {
	gatewayNamespace, gateway, ok := strings.Cut(f.gateway, "/")
	if !ok {
		return nil, usagef("--gateway: write the Gateway that models are added to as namespace/name, as in envoy-gateway-system/public")
	}
	namespace := f.namespace
	if namespace == "" {
		namespace = defaultNamespace
	}
	return envoy.GatewayAdditions{
		Options: o, Namespace: namespace, Gateway: gateway, GatewayNamespace: gatewayNamespace, Section: f.section, Hostnames: f.hostnames,
	}.YAML()
}
