package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/MaksimVF/llm-gateway/envoy"
)

// defaultAdmin is where Envoy's admin interface is by custom. Only a loopback
// address will do: whoever reaches it can stop Envoy.
const defaultAdmin = "127.0.0.1:9901"

// newEnvoyConfigCommand is Envoy's side for those who run Envoy themselves.
func newEnvoyConfigCommand(app *app) *cobra.Command {
	var f envoyConfigFlags
	cmd := &cobra.Command{
		Use:   "envoy-config --for " + strings.Join(envoyConfigKinds(), "|"),
		Short: "Print the configuration for an Envoy that somebody else runs",
		Long: "Print the configuration for an Envoy that somebody else runs, as YAML, or as\n" +
			"JSON with --json; Envoy reads both. --for says what it is for:\n\n" +
			"  bootstrap  the whole configuration of an Envoy of its own (envoy -c FILE)\n" +
			"  static     what to add to an Envoy that has a configuration already, with\n" +
			"             comments that say where each part goes and what it is for; its own\n" +
			"             cluster of the model server is named with --cluster, or one is\n" +
			"             added for --upstream\n" +
			"  istio      manifests for the gateway workload --workload of Istio, by the name\n" +
			"             --hostname. With Unix sockets the sidecar runs in the gateway's pod, with\n" +
			"             host:port elsewhere. --cluster is Istio's name of the model server's\n" +
			"             cluster, as in 'outbound|8000||vllm.models.svc.cluster.local'\n" +
			"  envoy-gateway\n" +
			"             Kubernetes manifests that add models to a Gateway of Envoy Gateway,\n" +
			"             --gateway, with comments; --grpc and --http are the sidecars' Service;\n" +
			"             --grpc may be a Unix socket in Envoy's pod\n\n" +
			"Files that it names (certificate authorities, Unix sockets) are looked for on\n" +
			"the machine that Envoy runs on.",
	}
	f.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := f.fit(cmd.Flags()); err != nil {
			return err
		}
		c, err := app.config(cmd)
		if err != nil {
			return err
		}
		text, err := f.render(c)
		if errors.Is(err, envoy.ErrOptions) {
			return usageError(err)
		}
		if err != nil {
			return err
		}
		return app.printEnvoyConfig(text, f.output)
	}
	return cmd
}

// envoyConfigFlags are the options of `envoy-config`.
type envoyConfigFlags struct {
	sidecarFlags
	meshFlags
	kind, admin, cluster, output string
}

func (f *envoyConfigFlags) register(flags *pflag.FlagSet) {
	f.sidecarFlags.register(flags)
	f.meshFlags.register(flags)
	flags.StringVar(&f.kind, "for", "", "what to write: "+strings.Join(envoyConfigKinds(), ", "))
	flags.StringVar(&f.admin, "admin", defaultAdmin, "bootstrap: where Envoy's admin interface listens: a loopback `host:port` or unix:///PATH")
	flags.StringVar(&f.cluster, "cluster", "", "static, istio: `name` of the cluster of the model server that Envoy has already (without it one is added for --upstream)")
	flags.StringVar(&f.output, "output", "", "`file` to write, replaced as a whole, instead of stdout")
}

// fit wants a kind, and no options that would do nothing for it.
func (f *envoyConfigFlags) fit(flags *pflag.FlagSet) error {
	if !slices.Contains(envoyConfigKinds(), f.kind) {
		return usagef("--for: write one of %s", strings.Join(envoyConfigKinds(), ", "))
	}
	of := kindFlags()
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if flags.Changed(name) && !slices.Contains(of[name], f.kind) {
			return usagef("--%s does nothing for --for %s: leave it out", name, f.kind)
		}
	}
	if f.kind != kindBootstrap && flags.Changed("cluster") && (f.cluster == "" || flags.Changed("demo")) {
		return usagef("--cluster: write the name that the model server's cluster has in Envoy's configuration, and no --demo")
	}
	return nil
}

func (f *envoyConfigFlags) render(c Config) ([]byte, error) {
	switch {
	case f.kind == kindStatic || f.kind == kindIstio:
		a, err := f.additions(c)
		if err != nil {
			return nil, err
		}
		if f.kind == kindIstio {
			return f.istio(a)
		}
		return a.YAML()
	case f.kind == kindEnvoyGateway && (f.grpcAt == "" || f.httpAt == ""):
		return nil, usagef("say where the sidecars are as Envoy's pods see them: --grpc and --http, as in llm-gateway.llm.svc.cluster.local:9000")
	}
	o, err := f.options(c)
	if err != nil {
		return nil, err
	}
	if f.kind == kindEnvoyGateway {
		return f.envoyGateway(o)
	}
	at, err := envoy.ParseEndpoint(f.admin)
	if err != nil {
		return nil, usageError(fmt.Errorf("--admin: %w", err))
	}
	o.AdminSocket, _ = at.Socket()
	o.AdminAddress = at.Address()
	return renderBootstrap(o)
}

// additions need no URL beside a cluster, which knows where its server is.
func (f *envoyConfigFlags) additions(c Config) (a envoy.Additions, err error) {
	a.Cluster = f.cluster
	switch {
	case c.Upstream.URL != "" || a.Cluster == "" && f.demoAt != "":
		a.Options, err = f.options(c)
	case a.Cluster != "":
		a.Options, err = f.around(c, envoy.Upstream{})
	default:
		err = usagef("there is no model server: name the cluster that Envoy has for it with --cluster, or its URL with --upstream or LLM_SERVER_URL")
	}
	return a, err
}

func (a *app) printEnvoyConfig(text []byte, output string) (err error) {
	if a.json {
		if text, err = oneJSON(text); err != nil {
			return fmt.Errorf("write Envoy's configuration: %w", err)
		}
	}
	if output == "" {
		return a.printf("%s", text)
	}
	if err := replaceFile(output, text, 0o644); err != nil { // Envoy may run as somebody else, and there is no secret in it
		return fmt.Errorf("write Envoy's configuration: %w", err)
	}
	return nil
}

// replaceFile writes a file under another name and moves it into place: whoever
// reads it finds the old text or the new one, never half of one.
func replaceFile(path string, text []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+strings.TrimPrefix(filepath.Base(path), ".")+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
