package envoy

import "fmt"

// proxyUser runs Istio's proxies. A socket is open to the user of the sidecar
// only.
const proxyUser = 1337

// gracefulAnnotation is the runtime flag where a bootstrap of Istio's takes it.
const gracefulAnnotation = `runtimeValues:
  envoy.reloadable_features.ext_proc_graceful_grpc_close: "true"
`

// pod is what is added to the gateway's Deployment: the runtime flag, and the
// sidecar where it shares the pod.
func (i Istio) pod() manifest {
	template := podTemplate{Metadata: objectMeta{Annotations: map[string]string{"proxy.istio.io/config": gracefulAnnotation}}}
	why := whyIstioPod
	if folders := i.sockets(); len(folders) > 0 {
		template.Spec = i.sidecar(folders)
		why += "\n" + whyIstioSidecar
	}
	return manifest{why: why, object: object{
		APIVersion: "apps/v1", Kind: "Deployment",
		Metadata: objectMeta{Name: i.Workload, Namespace: i.Namespace},
		Spec:     deployment{Template: template},
	}}
}

func (i Istio) sidecar(folders []string) *podSpec {
	const dataVolume, dataPath = "llmgw-data", "/data"
	volumes := []volume{{Name: dataVolume, EmptyDir: &emptyDir{}}}
	var shared []volumeMount
	for n, folder := range folders {
		name := fmt.Sprintf("llmgw-run-%d", n)
		volumes = append(volumes, volume{Name: name, EmptyDir: &emptyDir{}})
		shared = append(shared, volumeMount{Name: name, MountPath: folder})
	}
	secret := func(key string, optional bool) envVar {
		return envVar{Name: key, ValueFrom: &envValue{SecretKeyRef: secretKey{Name: "llm-gateway", Key: key, Optional: optional}}}
	}
	return &podSpec{
		Volumes: volumes,
		Containers: []container{
			{Name: "istio-proxy", VolumeMounts: shared},
			{
				Name:  "llm-gateway",
				Image: i.Image,
				Args:  []string{"serve", "--replica", "--data", dataPath, "--grpc", i.ExtProc[0].String(), "--http", i.API[0].String()},
				Env:   []envVar{secret("DATABASE_URL", false), secret("REDIS_URL", true), secret("LLM_API_KEY", true)},
				SecurityContext: &securityContext{
					RunAsUser: proxyUser, RunAsGroup: proxyUser, RunAsNonRoot: true,
					ReadOnlyRootFilesystem: true, Capabilities: capabilities{Drop: []string{"ALL"}},
				},
				ReadinessProbe: i.probe("ready"),
				LivenessProbe:  i.probe("live"),
				VolumeMounts:   append([]volumeMount{{Name: dataVolume, MountPath: dataPath}}, shared...),
			},
		},
	}
}

// probe asks the sidecar at its socket, in its own container.
func (i Istio) probe(path string) *execProbe {
	socket, _ := i.API[0].Socket()
	return &execProbe{
		Exec: execCommand{Command: []string{
			"/usr/local/bin/llm-gateway", "healthcheck", "--unix-socket", socket, "--url", "http://localhost/healthz/" + path,
		}},
		PeriodSeconds: 5, TimeoutSeconds: 5, FailureThreshold: 3,
	}
}
