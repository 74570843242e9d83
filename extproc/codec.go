package extproc

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that this one builds on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// codec is gRPC's own, but for the one message that comes thousands of times a
// second: a generic decoder allocates every header on its own and copies every
// body. This one takes what the gate reads and skips the rest: header values
// and bodies are slices of the one buffer a message came in.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Unmarshal decodes a message; an error ends the stream, which to Envoy is
// closed.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*extprocv3.ProcessingRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	return decodeRequest(data.Materialize(), m)
}

// Tags of envoy.service.ext_proc.v3: a field's number, which never changes,
// with its wire type (0 varint, 2 length-delimited), as it stands on the wire.
const (
	tagRequestHeaders   = 2<<3 | 2
	tagResponseHeaders  = 3<<3 | 2
	tagRequestBody      = 4<<3 | 2
	tagResponseBody     = 5<<3 | 2
	tagRequestTrailers  = 6<<3 | 2
	tagResponseTrailers = 7<<3 | 2
	tagAttributes       = 9<<3 | 2
	tagProtocolConfig   = 11<<3 | 2

	tagHeaderMap          = 1<<3 | 2 // of HttpHeaders
	tagHeadersEndOfStream = 3 << 3
	tagBody               = 1<<3 | 2 // of HttpBody
	tagBodyEndOfStream    = 2 << 3
	tagHeader             = 1<<3 | 2 // of HeaderMap
	tagKey                = 1<<3 | 2 // of HeaderValue, and of a map's entry
	tagValue              = 2<<3 | 2
	tagRawValue           = 3<<3 | 2
)

// fields calls each for every field of a message: with the bytes of a
// length-delimited one, or the number of a varint. Others are skipped.
func fields(b []byte, each func(tag uint64, bytes []byte, number uint64) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var bytes []byte
		var number uint64
		switch kind {
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := each(protowire.EncodeTag(num, kind), bytes, number); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func decodeRequest(b []byte, m *extprocv3.ProcessingRequest) error {
	var attributes [][]byte
	err := fields(b, func(tag uint64, bytes []byte, _ uint64) error {
		switch tag {
		case tagRequestHeaders:
			h, err := decodeHeaders(bytes)
			m.Request = &extprocv3.ProcessingRequest_RequestHeaders{RequestHeaders: h}
			return err
		case tagResponseHeaders:
			h, err := decodeHeaders(bytes)
			m.Request = &extprocv3.ProcessingRequest_ResponseHeaders{ResponseHeaders: h}
			return err
		case tagRequestBody:
			body, err := decodeBody(bytes)
			m.Request = &extprocv3.ProcessingRequest_RequestBody{RequestBody: body}
			return err
		case tagResponseBody:
			body, err := decodeBody(bytes)
			m.Request = &extprocv3.ProcessingRequest_ResponseBody{ResponseBody: body}
			return err
		case tagRequestTrailers: // what they say does not matter
			m.Request = &extprocv3.ProcessingRequest_RequestTrailers{RequestTrailers: &extprocv3.HttpTrailers{}}
		case tagResponseTrailers:
			m.Request = &extprocv3.ProcessingRequest_ResponseTrailers{ResponseTrailers: &extprocv3.HttpTrailers{}}
		case tagAttributes:
			attributes = append(attributes, bytes)
		case tagProtocolConfig:
			m.ProtocolConfig = &extprocv3.ProtocolConfiguration{}
			return proto.Unmarshal(bytes, m.ProtocolConfig)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	// Attributes are read on the response side only.
	if _, ok := m.Request.(*extprocv3.ProcessingRequest_ResponseHeaders); !ok {
		return nil
	}
	return decodeAttributes(attributes, m)
}

func decodeHeaders(b []byte) (*extprocv3.HttpHeaders, error) {
	h := &extprocv3.HttpHeaders{Headers: &corev3.HeaderMap{}}
	err := fields(b, func(tag uint64, bytes []byte, number uint64) error {
		switch tag {
		case tagHeaderMap:
			return decodeHeaderMap(bytes, h.Headers)
		case tagHeadersEndOfStream:
			h.EndOfStream = number != 0
		}
		return nil
	})
	return h, err
}

// decodeHeaderMap makes all headers in two allocations.
func decodeHeaderMap(b []byte, m *corev3.HeaderMap) error {
	count := 0
	if err := fields(b, func(uint64, []byte, uint64) error { count++; return nil }); err != nil {
		return err
	}
	values := make([]corev3.HeaderValue, count)
	m.Headers = make([]*corev3.HeaderValue, 0, count)
	return fields(b, func(tag uint64, bytes []byte, _ uint64) error {
		if tag != tagHeader {
			return nil
		}
		h := &values[len(m.Headers)]
		m.Headers = append(m.Headers, h)
		return fields(bytes, func(tag uint64, bytes []byte, _ uint64) error {
			switch tag {
			case tagKey:
				h.Key = string(bytes)
			case tagValue:
				h.Value = string(bytes)
			case tagRawValue:
				h.RawValue = bytes
			}
			return nil
		})
	})
}

func decodeBody(b []byte) (*extprocv3.HttpBody, error) {
	body := &extprocv3.HttpBody{}
	err := fields(b, func(tag uint64, bytes []byte, number uint64) error {
		switch tag {
		case tagBody:
			body.Body = bytes
		case tagBodyEndOfStream:
			body.EndOfStream = number != 0
		}
		return nil
	})
	return body, err
}

func decodeAttributes(entries [][]byte, m *extprocv3.ProcessingRequest) error {
	m.Attributes = make(map[string]*structpb.Struct, len(entries))
	for _, entry := range entries {
		var key string
		value := &structpb.Struct{}
		err := fields(entry, func(tag uint64, bytes []byte, _ uint64) error {
			switch tag {
			case tagKey:
				key = string(bytes)
			case tagValue:
				return proto.Unmarshal(bytes, value)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("decode attributes: %w", err)
		}
		m.Attributes[key] = value
	}
	return nil
}
