package extproc

import (
	"bytes"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// read is what the gate takes of a message; the rest need not be decoded.
func read(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingRequest {
	out := &extprocv3.ProcessingRequest{ProtocolConfig: m.GetProtocolConfig()}
	headers := func(h *extprocv3.HttpHeaders) *extprocv3.HttpHeaders {
		c := &extprocv3.HttpHeaders{Headers: h.GetHeaders(), EndOfStream: h.GetEndOfStream()}
		if len(c.GetHeaders().GetHeaders()) == 0 {
			c.Headers = nil
		}
		return c
	}
	body := func(b *extprocv3.HttpBody) *extprocv3.HttpBody {
		c := &extprocv3.HttpBody{EndOfStream: b.GetEndOfStream()}
		if len(b.GetBody()) > 0 {
			c.Body = b.GetBody()
		}
		return c
	}
	switch r := m.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		out.Request = &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: headers(r.RequestHeaders)}
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		out.Request = &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: headers(r.ResponseHeaders)}
		if len(m.GetAttributes()) > 0 {
			out.Attributes = m.GetAttributes()
		}
	case *extprocv3.ProcessingRequest_RequestBody:
		out.Request = &extprocv3.ProcessingRequest_RequestBody{RequestBody: body(r.RequestBody)}
	case *extprocv3.ProcessingRequest_ResponseBody:
		out.Request = &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: body(r.ResponseBody)}
	case *extprocv3.ProcessingRequest_RequestTrailers:
		out.Request = &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{}}
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		out.Request = &extprocv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: &extprocv3.HttpTrailers{}}
	}
	return out
}

func checkDecode(t *testing.T, wire []byte, want *extprocv3.ProcessingRequest) {
	t.Helper()
	got := &extprocv3.ProcessingRequest{}
	if err := decodeRequest(bytes.Clone(wire), got); err != nil {
		t.Fatalf("%v: %v", want, err)
	}
	if d := cmp.Diff(read(want), read(got), protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestDecode_agreesWithProtobuf(t *testing.T) {
	for _, letter := range []byte("hgkbsxptJSELT1234?") {
		m := script(letter)
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		checkDecode(t, wire, m)
	}
}

// FuzzDecode: whatever the generic decoder reads is read the same here. What
// it refuses may be read here (keys need not be UTF-8, unread parts need not
// be whole); nothing depends on that.
func FuzzDecode(f *testing.F) {
	for _, letter := range []byte("hgbpJELT1") {
		wire, err := proto.Marshal(script(letter))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		want := &extprocv3.ProcessingRequest{}
		if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(wire, want); err != nil {
			_ = decodeRequest(wire, &extprocv3.ProcessingRequest{}) // must not panic
			return
		}
		// The generic decoder merges a submessage that comes twice; Envoy
		// never sends one twice.
		if again, err := proto.Marshal(want); err == nil {
			checkDecode(t, again, want)
		}
	})
}

func TestDecode_costsFewAllocations(t *testing.T) {
	m := post("/v1/chat/completions")
	for range 20 {
		m.GetRequestHeaders().GetHeaders().Headers = append(m.GetRequestHeaders().GetHeaders().Headers, headerList("x-some-header", "some value").GetHeaders().GetHeaders()...)
	}
	wire, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	generic := testing.AllocsPerRun(100, func() { _ = proto.Unmarshal(wire, &extprocv3.ProcessingRequest{}) })
	own := testing.AllocsPerRun(100, func() { _ = decodeRequest(wire, &extprocv3.ProcessingRequest{}) })
	if own > generic/2 {
		t.Errorf("%v allocations, the generic decoder %v", own, generic)
	}
}
