package envoy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// manifest is a Kubernetes object, what it is for, and for an EnvoyFilter its
// patches with what they are for.
type manifest struct {
	why     string
	object  object
	patches []patchPart
}

// object is the envelope that every kind has. The specs are types of our own:
// they hold what we write and nothing else.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   objectMeta        `json:"metadata"`
	Data       map[string]string `json:"data,omitempty"`
	Spec       any               `json:"spec,omitempty"`
}

type objectMeta struct {
	Name        string            `json:"name,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

// patchPart is an Envoy message, where Istio is to put it, and why.
type patchPart struct {
	why                string
	applyTo, operation string
	match              patchMatch
	value              proto.Message
}

// writeManifests writes a stream of YAML documents with the comments above what
// they are about.
func writeManifests(about string, list []manifest) ([]byte, error) {
	var out bytes.Buffer
	comment(&out, "", about)
	for n, m := range list {
		if n == 0 {
			out.WriteByte('\n') // some readers refuse a document that is a comment only
		} else {
			out.WriteString("---\n")
		}
		comment(&out, "", m.why)
		// The keys are sorted and spec is the last of them, so that patches can be
		// written at its end.
		text, err := yaml.Marshal(m.object)
		if err != nil {
			return nil, fmt.Errorf("write the %s %s: %w", m.object.Kind, m.object.Metadata.Name, err)
		}
		out.Write(text)
		if len(m.patches) > 0 {
			out.WriteString("  configPatches:\n")
		}
		for _, p := range m.patches {
			if err := writePatch(&out, p); err != nil {
				return nil, fmt.Errorf("write the %s %s: %w", m.object.Kind, m.object.Metadata.Name, err)
			}
		}
	}
	return out.Bytes(), nil
}

func writePatch(out *bytes.Buffer, p patchPart) error {
	value, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(p.value)
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(configPatch{
		ApplyTo: p.applyTo, Match: p.match, Patch: patch{Operation: p.operation, Value: json.RawMessage(value)},
	})
	if err != nil {
		return err
	}
	comment(out, "  ", p.why)
	head := "  - "
	for line := range strings.Lines(string(text)) {
		if line != "\n" {
			out.WriteString(head)
		}
		out.WriteString(line)
		head = "    "
	}
	return nil
}
