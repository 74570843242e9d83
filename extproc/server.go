package extproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync/atomic"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// Books is what the gate needs of the books. Implementations must be safe for
// concurrent use, and every method must return well within Envoy's
// message_timeout: the gate adds no deadline of its own.
type Books interface {
	// Lookup finds a key by its secret, from memory. Any error means: no.
	Lookup(secret string) (billing.Key, error)
	// NewHoldID mints the id under which a request is admitted, held and charged.
	NewHoldID() string
	// Reserve returns only after the hold is durable; a *billing.BudgetError
	// says which budget refuses.
	Reserve(ctx context.Context, r billing.HoldRequest) (billing.Hold, error)
	// Budget tells which budget would refuse need tokens now, nil if none.
	Budget(keyID string, need int64) *billing.BudgetError
	// Standing is the tightest budget now, from memory.
	Standing(keyID string) billing.Standing
	// Checkpoint notes how far an answer has come. It never waits.
	Checkpoint(holdID string, p billing.Progress)
	// Settle turns a hold into a charge, once, and returns when that is
	// durable. On an error the client must not see the end of the answer. Its
	// context does not end with the client.
	Settle(ctx context.Context, holdID string, o billing.Outcome) error
	// Correct raises a settled charge when the upstream's own cumulative
	// figure grew afterwards.
	Correct(ctx context.Context, holdID string, o billing.Outcome) error
	// Void resolves a hold with nothing. It does not wait.
	Void(holdID string)
}

// Limits is what the gate needs of the rate limits. Take and GiveBack may wait
// for a store elsewhere, at most as long as that store's own short deadline.
type Limits interface {
	// Take counts the request under every limit of its key, or under none. The
	// only error is ratelimit.ErrUnavailable: refuse.
	Take(ctx context.Context, a ratelimit.Ask) (ratelimit.Decision, error)
	// GiveBack undoes a Take that allowed, because a later check refused.
	GiveBack(ctx context.Context, a ratelimit.Ask, d ratelimit.Decision)
	// Settle ends a Take that allowed, with the tokens the request really cost.
	// It does not wait.
	Settle(a ratelimit.Ask, d ratelimit.Decision, tokens int64)
}

// Options are the gate's settings. The zero value of a field that has a
// default means that default.
type Options struct {
	Books  Books
	Limits Limits

	// Settings are those that Reconfigure can exchange.
	Settings
	// MaxRequestBytes bounds request bodies, in bytes. Envoy holds the same
	// limit; this one counts where Envoy is somebody else's.
	MaxRequestBytes int64

	Log *zap.Logger
	// Metrics is where the gate's metrics are registered; nil = nowhere.
	Metrics prometheus.Registerer
	// Provider is the upstream's name in the GenAI conventions ("openai", ...).
	Provider string
	// Tracer makes a span of each exchange; nil = none.
	Tracer trace.Tracer
}

// Server implements Envoy's external processing service.
type Server struct {
	extprocv3.UnimplementedExternalProcessorServer

	o         Options // but for its Settings
	settings  atomic.Pointer[Settings]
	endpoints map[string]Endpoint
	shared    sharedReplies
	observer  *observer
}

// New checks the options and returns a server that is ready to be registered.
func New(o Options) (_ *Server, err error) {
	if o.Books == nil || o.Limits == nil || o.Log == nil {
		return nil, errors.New("extproc: Books, Limits and Log must be set")
	}
	if o.MaxRequestBytes <= 0 {
		return nil, errors.New("extproc: MaxRequestBytes must be positive")
	}
	s := &Server{o: o, endpoints: make(map[string]Endpoint), shared: newSharedReplies()}
	if err := s.Reconfigure(o.Settings); err != nil {
		return nil, err
	}
	s.o.Settings = Settings{} // nobody reads those of the start by mistake
	if s.observer, err = newObserver(o); err != nil {
		return nil, err
	}
	for _, e := range Endpoints() {
		s.endpoints[e.Path] = e
	}
	return s, nil
}

// ServiceName is the service's name in gRPC, under which its health is asked too.
const ServiceName = "envoy.service.ext_proc.v3.ExternalProcessor"

// Register adds the service to a gRPC server made with ServerOptions.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	extprocv3.RegisterExternalProcessorServer(r, s)
}

// ServerOptions are the gRPC settings the service needs: messages as large as
// a buffered request body, fixed flow-control windows (fewer system calls than
// measuring the bandwidth), a few stream workers, and patience with Envoy's
// keepalive pings.
func ServerOptions(maxRequestBytes int64) []grpc.ServerOption {
	const window = 1 << 20
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(2*maxRequestBytes + window)),
		grpc.MaxSendMsgSize(int(2*maxRequestBytes + window)),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(16 * window),
		grpc.NumStreamWorkers(8),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// Process serves one HTTP exchange: receive, step, send, until Envoy ends the
// stream. It returns nil only after Envoy did: everything else is an error to
// Envoy, because a clean end would mean "continue without me".
func (s *Server) Process(stream extprocv3.ExternalProcessor_ProcessServer) (err error) {
	x := s.newExchange()
	defer func() {
		if p := recover(); p != nil {
			s.o.Log.Error("panic in an exchange", zap.String("request_id", short(x.requestID)), zap.String("panic", fmt.Sprintf("%T", p)), zap.ByteString("stack", debug.Stack()))
			x.notes.ending = EndingFailed
			err = status.Error(codes.Internal, "internal error")
		}
		x.close(stream.Context())
	}()
	for {
		message, err := stream.Recv()
		if err != nil {
			return ended(err)
		}
		answer, err := x.step(stream.Context(), message)
		if err != nil {
			x.notes.ending = EndingFailed
			s.o.Log.Error("exchange ended by the gateway", zap.String("request_id", short(x.requestID)), zap.String("hold_id", x.hold.ID), zap.Error(err))
			return status.Error(codes.Internal, "exchange failed")
		}
		if err := stream.Send(answer); err != nil {
			x.unsent()
			return ended(err)
		}
	}
}

// ended turns the end of a stream into the handler's result. EOF and Canceled
// are how Envoy ends every stream, good or bad; nothing can be concluded from
// them.
func ended(err error) error {
	if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
		return nil
	}
	return status.Error(codes.Unavailable, "stream broken")
}
