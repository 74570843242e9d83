package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// istiodVersion is what deploy/install-test-tools.sh installs.
const istiodVersion = "v0.0.0-20260827124520-eed52ebb66ad"

// Istiod is Istio's control plane, unchanged, with manifests from files in place
// of those of a cluster.
type Istiod struct {
	// GRPC is where proxies ask for their configuration: host:port.
	GRPC string

	manifests, dir string
	proc           *Process
}

// StartIstiod runs it in a folder until the test ends. Where the machine has
// none the test is skipped, under CI=true it fails.
func StartIstiod(t testing.TB, ports *Ports, dir string) *Istiod {
	t.Helper()
	path := GoTool(t, "pilot-discovery", istiodVersion)
	kube := StartEmptyKubernetes()
	t.Cleanup(func() {
		kube.CloseClientConnections()
		kube.Close()
	})
	at := make([]string, 3)
	for n := range at {
		var err error
		if at[n], err = ports.Next(); err != nil {
			t.Fatal(err)
		}
	}
	i := &Istiod{GRPC: at[0], dir: dir, manifests: filepath.Join(dir, "manifests")}
	config := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: empty, users: [{name: empty, user: {}}],
clusters: [{name: empty, cluster: {server: %q}}], contexts: [{name: empty, context: {cluster: empty, user: empty}}]}`, kube.URL)
	mesh := filepath.Join(dir, "mesh.yaml")
	for _, err := range []error{
		os.MkdirAll(i.manifests, 0o700),
		os.WriteFile(config, []byte(text), 0o600),
		// The filters of Istio's own statistics are not in an Envoy of the Envoy
		// project.
		os.WriteFile(mesh, []byte("enablePrometheusMerge: false\ndefaultProviders: {}\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	i.proc, err = Start(Spec{
		Name: "istiod", Path: path, Dir: dir, Logs: dir,
		Args: []string{
			"discovery", "--kubeconfig", config, "--configDir", i.manifests, "--meshConfig", mesh,
			"--grpcAddr", at[0], "--httpAddr", at[1], "--monitoringAddr", at[2],
			"--httpsAddr", "", "--secureGRPCAddr", "", "--ctrlz_port", "0",
		},
		Env: MinimalEnv("POD_NAMESPACE=istio-system", "ENABLE_CA_SERVER=false", "PILOT_ENABLE_ALPN_FILTER=false", "PILOT_ENABLE_METADATA_EXCHANGE=false"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(i.proc.Tail(25))
		}
		i.proc.Kill()
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := WaitHealthy(ctx, "http://"+at[1]+"/ready", i.proc); err != nil {
		t.Fatal(err)
	}
	return i
}

// Apply replaces all manifests; istiod sees it soon.
func (i *Istiod) Apply(manifests []byte) error {
	file := filepath.Join(i.dir, "next.yaml")
	if err := os.WriteFile(file, manifests, 0o600); err != nil {
		return err
	}
	return os.Rename(file, filepath.Join(i.manifests, "all.yaml"))
}
