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
	kindEnvoyGateway = "envoy-gateway"
)

func envoyConfigKinds() []string { return []string{kindBootstrap, kindStatic, kindEnvoyGateway} }

// kindFlags are the flags that only some kinds have.
func kindFlags() map[string][]string {
	return map[string][]string{
		"listen":    {kindBootstrap},
		"admin":     {kindBootstrap},
		"cluster":   {kindStatic},
		"gateway":   {kindEnvoyGateway},
		"section":   {kindEnvoyGateway},
		"namespace": {kindEnvoyGateway},
		"hostname":  {kindEnvoyGateway},
	}
}

// envoyGatewayFlags say where the Gateway is and where our own objects go.
type envoyGatewayFlags struct {
	gateway, section, namespace string
	hostnames                   []string
}

func (f *envoyGatewayFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.gateway, "gateway", "", "envoy-gateway: the Gateway to add to, as `namespace/name`")
	flags.StringVar(&f.section, "section", "http", "envoy-gateway: `name` of the Gateway's listener")
	flags.StringVar(&f.namespace, "namespace", "llm-gateway", "envoy-gateway: Kubernetes `namespace` of the routes, their policies and backends")
	flags.StringSliceVar(&f.hostnames, "hostname", nil, "envoy-gateway: DNS `name` that models are served on, several separated by commas (default all of the listener's)")
}

// manifests are the ones to print, without the addresses that are in [Config].
func (f *envoyGatewayFlags) manifests(o envoy.Options) (envoy.GatewayAdditions, error) {
	namespace, name, ok := strings.Cut(f.gateway, "/")
	if !ok {
		return envoy.GatewayAdditions{}, usagef("--gateway: write the Gateway that models are added to as namespace/name, as in envoy-gateway-system/public")
	}
	return envoy.GatewayAdditions{
		Options: o, Namespace: f.namespace, Gateway: name, GatewayNamespace: namespace, Section: f.section, Hostnames: f.hostnames,
	}, nil
}
