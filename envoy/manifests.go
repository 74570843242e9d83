package envoy

import (
	"bytes"
	"encoding/json"
	"fmt"

	"sigs.k8s.io/yaml"
)

// manifest is a Kubernetes object and what it is for.
type manifest struct {
	why    string
	object object
}

// object is the envelope that every kind has. The specs are types of our own:
// they hold what we write and nothing else.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   objectMeta        `json:"metadata"`
	Spec       any               `json:"spec,omitempty"`
	Data       map[string]string `json:"data,omitempty"`
}

type objectMeta struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// manifestsYAML writes one document for each manifest, with the comments above
// what they are about. Keys are sorted.
func manifestsYAML(about string, list []manifest) ([]byte, error) {
	var out bytes.Buffer
	comment(&out, "", about)
	for i, m := range list {
		text, err := yaml.Marshal(m.object)
		if err != nil {
			return nil, fmt.Errorf("render %s %s: %w", m.object.Kind, m.object.Metadata.Name, err)
		}
		if i == 0 {
			out.WriteByte('\n') // some readers refuse a document that is a comment only
		} else {
			out.WriteString("---\n")
		}
		comment(&out, "", m.why)
		out.Write(text)
	}
	return out.Bytes(), nil
}

// manifestsJSON writes them as one List, which kubectl reads as well.
func manifestsJSON(list []manifest) ([]byte, error) {
	items := make([]object, 0, len(list))
	for _, m := range list {
		items = append(items, m.object)
	}
	text, err := json.Marshal(struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Items      []object `json:"items"`
	}{"v1", "List", items})
	if err != nil {
		return nil, fmt.Errorf("render manifests: %w", err)
	}
	return append(text, '\n'), nil
}
