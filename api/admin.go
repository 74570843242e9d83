package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/MaksimVF/llm-gateway/billing"
)

// AdminOptions are what the routes of an operator answer from.
type AdminOptions struct {
	// Token is the only credential that is accepted. It must not be empty.
	Token string
	// Books are the operator's side of the books.
	Books *billing.Admin
	// Defaults are the limits that now apply to a key that sets none of its own.
	Defaults func() Defaults
	// Refresh makes the gateway take up a change at once; nil = it does so by
	// itself within a second.
	Refresh func(context.Context) error
	Now     func() time.Time
	Version string // of the program, for the document
	Log     *zap.Logger
}

// Requests without the right token are answered 401 up to this rate, beyond it
// 429, and only the former are logged. The right token is let in all the same:
// whoever can reach the listener must not be able to lock the operator out, and
// 32 bytes are not found by guessing at any rate.
const (
	failuresPerSecond = 5
	failuresAtOnce    = 10
)

// refreshWait is how long an answer waits for the gateway to take up a change.
const refreshWait = 2 * time.Second

const (
	adminKeys     = "/admin/keys"
	adminKey      = "/admin/keys/{id}"
	adminTariffs  = "/admin/tariffs"
	adminTariff   = "/admin/tariffs/{name}"
	adminDocument = "/admin/openapi.json"
)

// admin is the operator's routes.
type admin struct {
	AdminOptions
	token    [sha256.Size]byte
	failures *rate.Limiter
	contract huma.API
	routes   http.Handler
	document []byte
}

// AdminHandler serves /admin/. It belongs on a listener that clients cannot
// reach. Every path but the document needs the token: unknown ones too, so
// that a stranger learns nothing. There are no cookies and no CORS headers, so
// that no page in a browser can use what the operator may do.
func AdminHandler(o AdminOptions) http.Handler {
	return newAdmin(o)
}

func newAdmin(o AdminOptions) *admin {
	a := &admin{
		AdminOptions: o, token: sha256.Sum256([]byte(o.Token)),
		failures: rate.NewLimiter(failuresPerSecond, failuresAtOnce),
	}
	mux := http.NewServeMux()
	a.contract = newContract(mux, about{
		Title: "llm-gateway admin API", Version: o.Version,
		Description: "Keys, limits, usage and audit: what the commands of the program do, by HTTP. " +
			"A change is in force when it is answered, or at most one second later in other gateways on the same books. " +
			"Days and months are UTC.",
		Credential: "The operator's token (LLMGW_ADMIN__TOKEN). A client's key is never accepted.",
	})
	a.keyRoutes()
	a.tariffRoutes()
	a.changeRoutes()
	a.priceRoutes()
	a.reportRoutes()
	document, err := json.Marshal(a.contract.OpenAPI())
	if err != nil {
		panic("api: the admin document cannot be written: " + err.Error()) // made of constants
	}
	a.document = document
	a.routes = strict(mux, methodsOf(a.contract.OpenAPI()), o.Log)
	return a
}

// ServeHTTP lets requests with the token in.
func (a *admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Path == adminDocument {
		a.serveDocument(w, r)
		return
	}
	if refused := a.refuse(r); refused != nil {
		writeReport(w, refused)
		return
	}
	if _, refused := plainQuery(r, func(string) bool { return false }); refused != nil {
		writeReport(w, refused)
		return
	}
	a.routes.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), remoteAddress{}, r.RemoteAddr)))
}

// serveDocument needs no token: no secret is in the document, and what shows or
// tests one reads it before it knows a token.
func (a *admin) serveDocument(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		methodNotAllowed(w, http.MethodGet)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(a.document) // the client may be gone
}

// refuse says how to answer a request without the token, nil for one with it.
func (a *admin) refuse(r *http.Request) *errorReport {
	given := r.Header.Values("Authorization")
	why := "no credential"
	if len(given) == 1 {
		scheme, token, _ := strings.Cut(given[0], " ")
		// Digests have one length, so that the time tells nothing of the token.
		sum := sha256.Sum256([]byte(token))
		same := subtle.ConstantTimeCompare(sum[:], a.token[:]) == 1
		if same && a.Token != "" && strings.EqualFold(scheme, "Bearer") {
			return nil
		}
		why = "wrong credential"
	} else if len(given) > 1 {
		why = "several credentials"
	}
	if !a.failures.Allow() {
		return fail(http.StatusTooManyRequests, codeRateLimited, "Too many requests without the operator's token. Please wait.").with("Retry-After", "1")
	}
	a.Log.Warn("admin request refused", zap.String("reason", why), zap.String("remote", r.RemoteAddr))
	return fail(http.StatusUnauthorized, "invalid_admin_token", "This needs the operator's token: Authorization: Bearer TOKEN.").
		with("WWW-Authenticate", `Bearer realm="llm-gateway admin"`)
}

// remoteAddress is the key of the caller's address in a context.
type remoteAddress struct{}

// changed takes a change of a key up and logs it.
func (a *admin) changed(ctx context.Context, action, keyID string, facts ...zap.Field) {
	a.takeUp(ctx, action, zap.String("key_id", keyID), facts...)
}

// takeUp makes the gateway see a change, and logs it. A gateway that cannot look
// now will see the change by itself.
func (a *admin) takeUp(ctx context.Context, action string, subject zap.Field, facts ...zap.Field) {
	remote, _ := ctx.Value(remoteAddress{}).(string)
	facts = slices.Concat([]zap.Field{zap.String("action", action), subject, zap.String("remote", remote)}, facts)
	a.Log.Info("admin change", facts...)
	if a.Refresh == nil {
		return
	}
	// The change is made, whether or not the caller still listens.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshWait)
	defer cancel()
	if err := a.Refresh(ctx); err != nil {
		a.Log.Warn("change is not in force yet", subject, zap.Error(err))
	}
}

// broken is the answer to an error of the books that no caller can mend.
func (a *admin) broken(what string, err error) error {
	a.Log.Error("admin request failed", zap.String("action", what), zap.Error(err))
	return unavailable()
}
