//go:build e2e

package envoy_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/structpb"
)

// sidecar is an ext_proc server that behaves as a test says.
type sidecar struct {
	extprocv3.UnimplementedExternalProcessorServer
	t      *testing.T
	socket string
	server *grpc.Server

	mu       sync.Mutex
	behave   behaviour
	streams  atomic.Int64
	released chan struct{}
	once     sync.Once
}

// behaviour answers one stream's message: with an answer, an end of the stream
// (both nil: cleanly), or errHang.
type behaviour func(*extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error)

type hang struct{}

func (hang) Error() string { return "hang" }

func startSidecar(t *testing.T, socket string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, socket: socket, behave: admit, released: make(chan struct{})}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *sidecar) start() {
	s.t.Helper()
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	extprocv3.RegisterExternalProcessorServer(server, s)
	h := health.NewServer()
	h.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(server, h)
	s.server = server
	go func() { _ = server.Serve(l) }() // until stop
}

// stop leaves nobody at the socket.
func (s *sidecar) stop() {
	s.server.Stop()
	_ = os.Remove(s.socket)
}

func (s *sidecar) set(b behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = b
	s.streams.Store(0)
}

// release lets hanging streams go.
func (s *sidecar) release() { s.once.Do(func() { close(s.released) }) }

func (s *sidecar) Process(stream extprocv3.ExternalProcessor_ProcessServer) error {
	s.mu.Lock()
	behave := s.behave
	s.mu.Unlock()
	s.streams.Add(1)
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply, err := behave(message)
		if errors.Is(err, hang{}) {
			select {
			case <-s.released:
			case <-stream.Context().Done():
			}
			return stream.Context().Err()
		}
		if reply == nil || err != nil {
			return err
		}
		if err := stream.Send(reply); err != nil {
			return err
		}
	}
}

// admit opens the lock in the last request-side answer and passes everything.
func admit(m *extprocv3.ProcessingRequest) (*extprocv3.ProcessingResponse, error) {
	r := pass(m)
	if m.GetRequestBody() != nil || m.GetRequestHeaders().GetEndOfStream() {
		r.DynamicMetadata = metadata(map[string]any{"admit": "1", "key_id": "key_1", "model": "m"})
	}
	if m.GetResponseHeaders() != nil {
		r.DynamicMetadata = metadata(map[string]any{"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "provenance": "reported"})
	}
	return r, nil
}

// pass answers a message in kind and changes nothing.
func pass(m *extprocv3.ProcessingRequest) *extprocv3.ProcessingResponse {
	switch {
	case m.GetRequestHeaders() != nil:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}}
	case m.GetRequestBody() != nil:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestBody{RequestBody: &extprocv3.BodyResponse{}}}
	case m.GetResponseHeaders() != nil:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: &extprocv3.HeadersResponse{}}}
	case m.GetResponseBody() != nil:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseBody{ResponseBody: &extprocv3.BodyResponse{}}}
	default:
		return &extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}}
	}
}

func metadata(fields map[string]any) *structpb.Struct {
	s, err := structpb.NewStruct(map[string]any{"llmgw": fields})
	if err != nil {
		panic(err) // our own literals
	}
	return s
}

// upstream is a model server that a test scripts; it notes what it receives.
type upstream struct {
	*httptest.Server
	mu       sync.Mutex
	handle   http.HandlerFunc
	seen     []seenRequest
	released chan struct{}
	once     sync.Once
}

type seenRequest struct {
	method, path, host, body string
	header                   http.Header
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := newUpstream(t)
	u.Start()
	return u
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{released: make(chan struct{})}
	u.set(echo)
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		u.mu.Lock()
		u.seen = append(u.seen, seenRequest{r.Method, r.RequestURI, r.Host, string(body), r.Header.Clone()})
		handle := u.handle
		u.mu.Unlock()
		handle(w, r)
	}))
	t.Cleanup(func() {
		u.release()
		u.CloseClientConnections()
		u.Close()
	})
	return u
}

func echo(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true}`) }

// set scripts the answer and forgets the requests so far.
func (u *upstream) set(h http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.handle, u.seen = h, nil
}

func (u *upstream) requests() []seenRequest {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]seenRequest(nil), u.seen...)
}

func (u *upstream) release() { u.once.Do(func() { close(u.released) }) }

// silent answers nothing until the test is over.
func (u *upstream) silent(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-u.released:
	case <-r.Context().Done():
	}
}
