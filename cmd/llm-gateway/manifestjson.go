package main

import (
	"bytes"
	"encoding/json"
	"strings"

	"sigs.k8s.io/yaml"
)

// oneJSON makes one JSON document of YAML. A stream of several documents, which
// is of Kubernetes' objects, becomes the List that kubectl reads as well.
func oneJSON(text []byte) ([]byte, error) {
	const separator = "---\n"
	if !strings.Contains("\n"+string(text), "\n"+separator) {
		out, err := yaml.YAMLToJSON(text)
		return append(out, '\n'), err
	}
	list := struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Items      []json.RawMessage `json:"items"`
	}{APIVersion: "v1", Kind: "List"}
	for document := range strings.SplitSeq("\n"+string(text), "\n"+separator) {
		item, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(item, []byte("null")) { // comments alone
			list.Items = append(list.Items, item)
		}
	}
	out, err := json.Marshal(list)
	return append(out, '\n'), err
}
