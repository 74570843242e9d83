package main

import (
	"maps"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// manifest is what is read of Kubernetes' objects here; their schemas are held to by
// kubectl-validate.
type manifest struct {
	Kind     string         `yaml:"kind"`
	Metadata objectMetadata `yaml:"metadata"`
	Data     map[string]string
	Spec     struct {
		podSpec     `yaml:",inline"` // of a Pod
		Selector    labelSelector    `yaml:"selector"`
		PodSelector labelSelector    `yaml:"podSelector"`
		ServiceName string           `yaml:"serviceName"`
		ClusterIP   string           `yaml:"clusterIP"`
		Template    struct {
			Metadata objectMetadata `yaml:"metadata"`
			Spec     podSpec        `yaml:"spec"`
		} `yaml:"template"`
		Claims []struct {
			Metadata objectMetadata `yaml:"metadata"`
		} `yaml:"volumeClaimTemplates"`
		Ports []struct {
			Name string `yaml:"name"`
			// By number: what an implementation knows of names is not sure for sidecars.
			Target int `yaml:"targetPort"`
		} `yaml:"ports"`
		Scaled    objectReference `yaml:"scaleTargetRef"`
		Endpoints []struct {
			Port string `yaml:"port"`
		} `yaml:"endpoints"`
		Ingress []struct {
			Ports []struct {
				Port int `yaml:"port"`
			} `yaml:"ports"`
		} `yaml:"ingress"`
	} `yaml:"spec"`
}

type objectReference struct {
	Kind string `yaml:"kind"`
	Name string `yaml:"name"`
}

type objectMetadata struct {
	Name        string            `yaml:"name"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// labelSelector is of either form: a Service has labels, all others matchLabels.
type labelSelector map[string]string

// UnmarshalYAML implements [yamlv3.Unmarshaler].
func (s *labelSelector) UnmarshalYAML(node *yamlv3.Node) error {
	var wrapped struct {
		Labels map[string]string `yaml:"matchLabels"`
	}
	if err := node.Decode(&wrapped); err == nil && wrapped.Labels != nil {
		*s = wrapped.Labels
		return nil
	}
	return node.Decode((*map[string]string)(s))
}

// picks says whether the labels are among those it selects; nothing selects nothing.
func (s labelSelector) picks(labels map[string]string) bool {
	for name, value := range s {
		if labels[name] != value {
			return false
		}
	}
	return len(s) > 0
}

type podSpec struct {
	Automount    *bool           `yaml:"automountServiceAccountToken"`
	ServiceLinks *bool           `yaml:"enableServiceLinks"`
	Grace        int             `yaml:"terminationGracePeriodSeconds"`
	Security     securityContext `yaml:"securityContext"`
	Inits        []container     `yaml:"initContainers"`
	Containers   []container     `yaml:"containers"`
	Volumes      []volume        `yaml:"volumes"`
	HostNetwork  bool            `yaml:"hostNetwork"`
	HostPID      bool            `yaml:"hostPID"`
}

// all are the containers, sidecars first.
func (p podSpec) all() []container { return slices.Concat(p.Inits, p.Containers) }

type securityContext struct {
	NonRoot    bool  `yaml:"runAsNonRoot"`
	User       int   `yaml:"runAsUser"`
	FSGroup    int   `yaml:"fsGroup"`
	Escalation *bool `yaml:"allowPrivilegeEscalation"`
	Privileged bool  `yaml:"privileged"`
	ReadOnly   bool  `yaml:"readOnlyRootFilesystem"`
	Drop       struct {
		Drop []string `yaml:"drop"`
		Add  []string `yaml:"add"`
	} `yaml:"capabilities"`
	Seccomp struct {
		Type string `yaml:"type"`
	} `yaml:"seccompProfile"`
}

type container struct {
	Name    string          `yaml:"name"`
	Image   string          `yaml:"image"`
	Restart string          `yaml:"restartPolicy"`
	Command []string        `yaml:"command"`
	Args    []string        `yaml:"args"`
	Env     []variable      `yaml:"env"`
	Safety  securityContext `yaml:"securityContext"`
	Ports   []struct {
		Name string `yaml:"name"`
		Port int    `yaml:"containerPort"`
	} `yaml:"ports"`
	Startup   *containerProbe `yaml:"startupProbe"`
	Liveness  *containerProbe `yaml:"livenessProbe"`
	Readiness *containerProbe `yaml:"readinessProbe"`
	Lifecycle struct {
		PreStop struct {
			Sleep struct {
				Seconds int `yaml:"seconds"`
			} `yaml:"sleep"`
		} `yaml:"preStop"`
	} `yaml:"lifecycle"`
	Resources struct {
		Limits map[string]string `yaml:"limits"`
	} `yaml:"resources"`
	Mounts []struct {
		Name     string `yaml:"name"`
		Path     string `yaml:"mountPath"`
		ReadOnly bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

// variables are the environment by name.
func (c container) variables() map[string]string {
	all := map[string]string{}
	for _, v := range c.Env {
		all[v.Name] = v.Value
	}
	return all
}

// portNames are what probes may name.
func (c container) portNames() (names []string) {
	for _, p := range c.Ports {
		names = append(names, p.Name)
	}
	return names
}

type variable struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

type containerProbe struct {
	Exec struct {
		Command []string `yaml:"command"`
	} `yaml:"exec"`
	HTTP struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
	TCP struct {
		Port string `yaml:"port"`
	} `yaml:"tcpSocket"`
}

type volume struct {
	Name      string `yaml:"name"`
	ConfigMap struct {
		Name string `yaml:"name"`
	} `yaml:"configMap"`
	HostPath  any `yaml:"hostPath"`
	Projected struct {
		Sources []struct {
			Secret struct {
				Name  string `yaml:"name"`
				Items []struct {
					Key  string `yaml:"key"`
					Path string `yaml:"path"`
				} `yaml:"items"`
			} `yaml:"secret"`
		} `yaml:"sources"`
	} `yaml:"projected"`
}

// installation is what one rendering installs.
type installation struct {
	workload   manifest // of the gateways
	services   []manifest
	others     []manifest // that select pods or services
	configMaps map[string]map[string]string
	kinds      []string
}

func installationOf(manifests []manifest) (in installation) {
	in.configMaps = map[string]map[string]string{}
	for _, m := range manifests {
		in.kinds = append(in.kinds, m.Kind)
		switch m.Kind {
		case "StatefulSet", "Deployment":
			in.workload = m
		case "Service":
			in.services = append(in.services, m)
		case "ConfigMap":
			in.configMaps[m.Metadata.Name] = m.Data
		default:
			in.others = append(in.others, m)
		}
	}
	return in
}

// settingsFile is the configuration that a container is told to read, as it is in the
// ConfigMap that is mounted there.
func (in installation) settingsFile(c container) (text string, found bool) {
	pod := in.workload.Spec.Template.Spec
	for _, mount := range c.Mounts {
		for _, v := range pod.Volumes {
			name, below := strings.CutPrefix(c.variables()["LLMGW_CONFIG"], mount.Path+"/")
			if v.Name == mount.Name && below && v.ConfigMap.Name != "" {
				text, found = in.configMaps[v.ConfigMap.Name][name]
				return text, found
			}
		}
	}
	return "", false
}

// secretFiles are the paths at which a container finds secrets.
func (in installation) secretFiles(c container) []string {
	paths := map[string]bool{}
	for _, mount := range c.Mounts {
		for _, v := range in.workload.Spec.Template.Spec.Volumes {
			for _, source := range v.Projected.Sources {
				for _, item := range source.Secret.Items {
					if v.Name == mount.Name {
						paths[mount.Path+"/"+item.Path] = true
					}
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(paths))
}
