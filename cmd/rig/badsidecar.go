package rig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// Phase is a message of Envoy's that a bad sidecar can fail at.
type Phase string

// The phases of one exchange.
const (
	RequestHeaders  Phase = "request_headers"
	RequestBody     Phase = "request_body"
	ResponseHeaders Phase = "response_headers"
	ResponseBody    Phase = "response_body"
	OtherPhase      Phase = "other"
)

// Misdeed is what a bad sidecar does instead of its answer.
type Misdeed string

// What a bad sidecar may do.
const (
	CloseCleanly Misdeed = "close"    // gRPC OK: Envoy goes on without it
	Fail         Misdeed = "fail"     // gRPC error
	Hang         Misdeed = "hang"     // no answer until the stream ends
	Panic        Misdeed = "panic"    // what a recovered panic looks like: codes.Internal
	AnswerTwice  Misdeed = "twice"    // one answer too many
	NeverAdmit   Misdeed = "no_admit" // answers everything, admits nobody
)

// BadSidecar is an ext_proc server that lets every request pass, as a working
// sidecar does after its checks, but for one scripted misdeed.
type BadSidecar struct {
	At    Phase
	Count int // misbehave at the Count-th message of that phase, from 1; 0 = 1
	Do    Misdeed

	server *grpc.Server
	mu     sync.Mutex
	seen   map[Phase]int
}

// Listen serves on a Unix socket until Close.
func (b *BadSidecar) Listen(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("start bad sidecar: %w", err)
	}
	b.seen = map[Phase]int{}
	b.server = grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(b.server, b)
	healthv1.RegisterHealthServer(b.server, health.NewServer()) // "" is SERVING
	go func() { _ = b.server.Serve(l) }()
	return nil
}

// Close ends the server and every stream.
func (b *BadSidecar) Close() { b.server.Stop() }

// Seen is the number of messages of a phase so far: a test that saw none has
// proved nothing.
func (b *BadSidecar) Seen(p Phase) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.seen[p]
}

// Process is one exchange.
func (b *BadSidecar) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	count := map[Phase]int{}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
			return nil
		}
		if err != nil {
			return err
		}
		phase, answer := b.answer(in)
		count[phase]++
		b.mu.Lock()
		b.seen[phase]++
		b.mu.Unlock()
		if phase == b.At && count[phase] == max(b.Count, 1) {
			switch b.Do {
			case CloseCleanly:
				return nil
			case Fail:
				return status.Error(codes.Unavailable, "scripted failure")
			case Panic:
				return status.Error(codes.Internal, "scripted panic")
			case Hang:
				<-stream.Context().Done()
				return stream.Context().Err()
			case AnswerTwice:
				if err := stream.Send(answer); err != nil {
					return err
				}
			case NeverAdmit: // admit leaves it out of the answers
			}
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func (b *BadSidecar) answer(in *extprocv3.ProcessingRequest) (Phase, *extprocv3.ProcessingResponse) {
	switch m := in.GetRequest().(type) {
	case *extprocv3.ProcessingRequest_RequestHeaders:
		out := &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{
			RequestHeaders: &extprocv3.HeadersResponse{},
		}}
		if m.RequestHeaders.GetEndOfStream() {
			out.DynamicMetadata = b.admit()
		}
		return RequestHeaders, out
	case *extprocv3.ProcessingRequest_RequestBody:
		return RequestBody, &extprocv3.ProcessingResponse{
			Response:        &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{}},
			DynamicMetadata: b.admit(),
		}
	case *extprocv3.ProcessingRequest_ResponseHeaders:
		return ResponseHeaders, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseHeaders{
			ResponseHeaders: &extprocv3.HeadersResponse{},
		}}
	case *extprocv3.ProcessingRequest_ResponseBody:
		return ResponseBody, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{
			ResponseBody: &extprocv3.BodyResponse{},
		}}
	case *extprocv3.ProcessingRequest_ResponseTrailers:
		return OtherPhase, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{
			ResponseTrailers: &extprocv3.TrailersResponse{},
		}}
	default:
		return OtherPhase, &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestTrailers{
			RequestTrailers: &extprocv3.TrailersResponse{},
		}}
	}
}

// admit is the metadata that opens the lock behind ext_proc.
func (b *BadSidecar) admit() *structpb.Struct {
	if b.Do == NeverAdmit {
		return nil
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"llmgw": structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"admit": structpb.NewStringValue("1"),
		}}),
	}}
}
