package extproc

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// dial serves r over an in-memory connection and opens one stream, as Envoy
// would.
func (r *rig) dial() extprocv3.ExternalProcessor_ProcessClient {
	r.t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(ServerOptions(1 << 20)...)
	r.server.Register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = conn.Close()
		s.Stop()
		if err := <-served; err != nil {
			r.t.Error(err)
		}
	})
	stream, err := extprocv3.NewExternalProcessorClient(conn).Process(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return stream
}

func exchangeMessage(t *testing.T, s extprocv3.ExternalProcessor_ProcessClient, m *extprocv3.ProcessingRequest) (reply, error) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
	return s.Recv()
}

func TestProcess_endsCleanlyOnlyAfterEnvoyDid(t *testing.T) {
	r := newRig(t, nil)
	s := r.dial()
	if _, err := exchangeMessage(t, s, post("/v1/chat/completions")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after Envoy's end: %v, want EOF", err)
	}
}

// TestProcess_neverEndsCleanlyByItself: a clean end would let a request or
// the rest of an answer pass unchecked.
func TestProcess_neverEndsCleanlyByItself(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   func(*rig)
		order string
		code  codes.Code
	}{
		{"request headers twice", nil, "hh", codes.Internal},
		{"body before headers", nil, "b", codes.Internal},
		{"body in pieces", nil, "hp", codes.Internal},
		{"an unknown message", nil, "h?", codes.Internal},
		{"a charge that cannot be written", func(r *rig) { r.books.settleErr = billing.ErrUnavailable }, "hbJ1", codes.Internal},
		{"a panic", func(r *rig) { r.server.o.Limits = panicking{} }, "hb", codes.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			if c.set != nil {
				c.set(r)
			}
			s := r.dial()
			var err error
			for i := range len(c.order) {
				if _, err = exchangeMessage(t, s, script(c.order[i])); err != nil {
					break
				}
			}
			if status.Code(err) != c.code {
				t.Errorf("ended with %v, want %v", err, c.code)
			}
		})
	}
}

type panicking struct{}

func (panicking) Take(context.Context, ratelimit.Ask) (ratelimit.Decision, error) { panic("a bug") }
func (panicking) GiveBack(context.Context, ratelimit.Ask, ratelimit.Decision)     {}
func (panicking) Settle(ratelimit.Ask, ratelimit.Decision, int64)                 {}

func TestNew_refusesWhatCannotWork(t *testing.T) {
	good := Options{
		Books: newFakeBooks(), Limits: &fakeLimits{}, Log: zap.NewNop(), MaxRequestBytes: 1,
		Settings: Settings{Defaults: ratelimit.Limits{Requests: ratelimit.Limit{Max: 1, Window: 1}}, DefaultOutputTokens: 1},
	}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no books": func(o *Options) { o.Books = nil }, "no limits": func(o *Options) { o.Limits = nil }, "no log": func(o *Options) { o.Log = nil },
		"no window": func(o *Options) { o.Defaults = ratelimit.Limits{} }, "no size": func(o *Options) { o.MaxRequestBytes = 0 }, "no ceiling": func(o *Options) { o.DefaultOutputTokens = 0 },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
