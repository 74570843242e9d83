package main

import (
	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// istioFlags are the options of `envoy-config --for istio` alone.
type istioFlags struct {
	host, namespace, workload, credential, image string
	selector                                     map[string]string
	port                                         uint16
}

func istioFlagNames() []string {
	return []string{"host", "namespace", "workload", "selector", "credential", "gateway-port", "image"}
}

func (f *istioFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.host, "host", "", "istio: `name` by which clients reach the gateway, as in llm.example.com; it serves nothing else")
	flags.StringVar(&f.namespace, "namespace", envoy.DefaultIstioNamespace, "istio: `namespace` of the gateway workload")
	flags.StringVar(&f.workload, "workload", envoy.DefaultIstioWorkload, "istio: `Deployment` of the gateway, for example istio-egressgateway")
	flags.StringToStringVar(&f.selector, "selector", nil, "istio: `labels` of the gateway's pods (default istio=WORKLOAD without \"istio-\")")
	flags.StringVar(&f.credential, "credential", "", "istio: `Secret` with the certificate of --host (without it plain HTTP)")
	flags.Uint16Var(&f.port, "gateway-port", 0, "istio: `port` of the gateway (default 443 with --credential, 80 without)")
	flags.StringVar(&f.image, "image", envoy.DefaultSidecarImage, "istio: `image` of a sidecar in the gateway's pod")
}

func (f *istioFlags) render(a envoy.Additions) ([]byte, error) {
	if f.host == "" {
		return nil, usagef("--for istio: write with --host the name by which clients reach the gateway")
	}
	return envoy.Istio{
		Additions: a, Host: f.host, Namespace: f.namespace, Workload: f.workload, Selector: f.selector,
		Credential: f.credential, Port: uint32(f.port), Image: f.image,
	}.YAML()
}
