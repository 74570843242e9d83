package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/MaksimVF/llm-gateway/billing"
	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// server is the info routes.
type server struct {
	o        Options
	health   *health
	guard    *guard
	contract huma.API
}

// Groups of routes in the document.
const (
	tagAccount = "Your key"
	tagGateway = "The gateway"
	tagModels  = "Models"
)

// exactRoot is the mux' pattern of the path "/" alone.
const exactRoot = "/{$}"

// empty is a route without parameters.
type empty struct{}

// answer is a success with a JSON body.
type answer[T any] struct{ Body T }

// routes is the table of everything that is served, but for the documents.
func (s *server) routes() {
	huma.Register(s.contract, s.public("root", exactRoot, "What this is, and where to go"), func(context.Context, *empty) (*answer[rootReport], error) {
		return &answer[rootReport]{rootOf(s.o)}, nil
	})
	// To the mux "/" is everything below it; to everybody else it is one path.
	paths := s.contract.OpenAPI().Paths
	paths["/"] = paths[exactRoot]
	delete(paths, exactRoot)
	huma.Register(s.contract, s.unwell(s.public("health", "/health", "The state of every component"), "The gateway cannot do its job."), s.getHealth)
	huma.Register(s.contract, s.public("live", "/healthz/live", "Whether the process serves at all"), func(context.Context, *empty) (*answer[probeReport], error) {
		return &answer[probeReport]{probeReport{Status: probeOK}}, nil
	})
	huma.Register(s.contract, s.unwell(s.public("ready", "/healthz/ready", "Whether to send requests here"), "Not now: the gateway cannot do its job, or is about to stop."), s.getReady)
	if s.o.Authenticate == nil {
		return
	}
	for _, prefix := range []string{"", "/v1"} {
		huma.Register(s.contract, s.usageOperation(s.owned("usage"+suffix(prefix), prefix+"/usage", "What your key used")), s.getUsage)
		huma.Register(s.contract, s.owned("limits"+suffix(prefix), prefix+"/limits", "Your daily and monthly budget"), s.getLimits)
		huma.Register(s.contract, s.owned("tariff"+suffix(prefix), prefix+"/tariff", "Your tariff and what is left of it"), s.getTariff)
	}
	huma.Register(s.contract, s.owned("rate-limit", "/rate-limit", "Where your key stands in its rate limits"), s.getRateLimit)
	huma.Register(s.contract, s.owned("key", "/api/v1/key", "Your key in OpenRouter's shape, in tokens"), s.getKey)
}

func suffix(prefix string) string {
	if prefix == "" {
		return ""
	}
	return "-v1"
}

// public is a route that anybody may ask. It takes no parameters and is deaf to
// them: load balancers add their own.
func (s *server) public(id, path, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{tagGateway},
		SkipValidateParams: true,
	}
}

// unwell says that a route may answer its body with 503.
func (s *server) unwell(op huma.Operation, text string) huma.Operation {
	op.Metadata = map[string]any{"unwell": text}
	return op
}

// owned is a route for the owner of a key, about that key only.
func (s *server) owned(id, path, summary string) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Tags: []string{tagAccount},
		Security:    []map[string][]string{{bearerScheme: {}}},
		Middlewares: huma.Middlewares{s.authenticate, s.guarded, oneReading},
	}
	refuses(&op, s.contract, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	return op
}

// refusalTexts describe the errors of the info routes.
func refusalTexts() map[int]string {
	return map[int]string{
		http.StatusBadRequest:         "A parameter that cannot be read (`error.param` names it), or more than one credential.",
		http.StatusUnauthorized:       "No API key.",
		http.StatusForbidden:          "Unknown, blocked, revoked or expired API key: one answer for all.",
		http.StatusTooManyRequests:    "Asked too often; these routes have a guard of their own and never count toward your limits.",
		http.StatusServiceUnavailable: "The gateway cannot tell now.",
	}
}

// refuses documents errors of an operation.
func refuses(op *huma.Operation, contract huma.API, statuses ...int) {
	documentErrors(op, contract, refusalTexts(), statuses)
}

func textHeader(text string) *huma.Param {
	return &huma.Param{Description: text, Schema: &huma.Schema{Type: huma.TypeString}}
}

// keyOf is the context's place of the caller's key.
type keyOf struct{}

// authenticate reads the credential in the gate's way, and refuses in its words.
func (s *server) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, _ := humago.Unwrap(ctx)
	key, denied := s.o.Authenticate(r.Header.Values("Authorization"))
	if denied == nil {
		next(huma.WithValue(ctx, keyOf{}, key))
		return
	}
	for _, h := range denied.Headers {
		ctx.SetHeader(h[0], h[1])
	}
	ctx.SetHeader("Content-Type", "application/json")
	ctx.SetStatus(denied.Status)
	_, _ = ctx.BodyWriter().Write(denied.Body) // the client may be gone
}

// guarded keeps one key's loop from taking the books from the others.
func (s *server) guarded(ctx huma.Context, next func(huma.Context)) {
	wait := s.guard.wait(callerOf(ctx.Context()).ID)
	if wait == 0 {
		next(ctx)
		return
	}
	e := fail(http.StatusTooManyRequests, codeRateLimited, fmt.Sprintf("More than %d questions a second. They cost you nothing, but please ask more slowly.", guardRate))
	e.Object.Type = "requests"
	_, w := humago.Unwrap(ctx)
	writeReport(w, e.with("Retry-After", strconv.Itoa(int(max(1, math.Ceil(wait.Seconds()))))))
}

func callerOf(ctx context.Context) billing.Key {
	key, _ := ctx.Value(keyOf{}).(billing.Key)
	return key
}

// away logs why a question cannot be answered, which is not the client's business.
func (s *server) away(ctx context.Context, what string, err error) error {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return unavailable() // nobody hears it
	}
	s.o.Log.Error("a question could not be answered", zap.String("route", what), zap.String("key_id", callerOf(ctx).ID), zap.Error(err))
	return unavailable()
}

func (s *server) getLimits(ctx context.Context, _ *empty) (*answer[limitsReport], error) {
	key := callerOf(ctx)
	a, err := s.o.Book.Account(ctx, key.ID)
	if err != nil {
		return nil, s.away(ctx, "limits", err)
	}
	return &answer[limitsReport]{limitsOf(key, s.o.Book.Effective(key), a)}, nil
}

func (s *server) getTariff(ctx context.Context, _ *empty) (*answer[tariffReport], error) {
	key := callerOf(ctx)
	a, err := s.o.Book.Account(ctx, key.ID)
	if err != nil {
		return nil, s.away(ctx, "tariff", err)
	}
	return &answer[tariffReport]{tariffOf(key, s.o.Book.Effective(key), a)}, nil
}

func (s *server) getKey(ctx context.Context, _ *empty) (*answer[keyReport], error) {
	key := callerOf(ctx)
	a, err := s.o.Book.Account(ctx, key.ID)
	if err != nil {
		return nil, s.away(ctx, "key", err)
	}
	return &answer[keyReport]{keyReportOf(key, s.o.Book.Effective(key), a, s.o.LimitsOf(key).Requests)}, nil
}

// getRateLimit tells the caller where its key stands. It counts nothing.
func (s *server) getRateLimit(ctx context.Context, _ *empty) (*answer[rateLimitReport], error) {
	d, err := s.peek(ctx)
	if err != nil {
		return nil, s.away(ctx, "rate-limit", err)
	}
	return &answer[rateLimitReport]{reportOf(callerOf(ctx), d)}, nil
}

func (s *server) peek(ctx context.Context) (ratelimit.Decision, error) {
	key := callerOf(ctx)
	return s.o.Limits.Peek(ctx, key.ID, s.o.LimitsOf(key))
}

// intervalOf writes a window the way OpenRouter does.
func intervalOf(d time.Duration) string { return strconv.FormatInt(wholeSeconds(d), 10) + "s" }
