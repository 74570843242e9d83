package envoy

import (
	"bytes"
	"strings"

	"google.golang.org/protobuf/proto"
)

// section is one key of a commented document: a list of messages, or one
// object that several messages fill.
type section struct {
	name  string
	where string // comment: where its content belongs
	list  bool
	parts []part
}

// part is a message and what it is for.
type part struct {
	why     string
	message proto.Message
}

// writeDocument writes YAML with the comments above what they are about.
func writeDocument(about string, sections []section) ([]byte, error) {
	var out bytes.Buffer
	comment(&out, "", about)
	for _, s := range sections {
		out.WriteByte('\n')
		comment(&out, "", s.where)
		out.WriteString(s.name + ":\n")
		for _, p := range s.parts {
			text, err := RenderYAML(p.message)
			if err != nil {
				return nil, err
			}
			head, before := "  ", "  " // of the first line, and of a comment
			if s.list {
				head, before = "- ", ""
			}
			comment(&out, before, p.why)
			for line := range strings.Lines(string(text)) {
				if line != "\n" {
					out.WriteString(head)
				}
				out.WriteString(line)
				head = "  "
			}
		}
	}
	return out.Bytes(), nil
}

func comment(out *bytes.Buffer, indent, text string) {
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		out.WriteString(strings.TrimRight(indent+"# "+line, " ") + "\n")
	}
}
