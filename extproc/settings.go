package extproc

import (
	"errors"

	"github.com/MaksimVF/llm-gateway/ratelimit"
)

// Settings are the settings of the gate that can be exchanged while it works.
// An exchange keeps those that it began with, from the question who asks to the
// settlement, so that nothing is decided by half of the one and half of the other.
type Settings struct {
	// Defaults apply to keys that have no limits of their own.
	Defaults ratelimit.Limits
	// InvalidKeyStatus answers unknown, revoked and expired keys: 403
	// (default) or 401, as OpenAI does.
	InvalidKeyStatus int
	// DefaultOutputTokens is held per choice when a request names no ceiling.
	DefaultOutputTokens int64
	// BudgetExact writes that ceiling into the request, so that the upstream
	// cannot produce more than was held.
	BudgetExact bool
	// UpstreamKey is the gateway's own credential at the upstream, "" = none.
	UpstreamKey string
	// MetricModels are the models that have series of their own; all others
	// are "other", since their names come from clients.
	MetricModels []string
}

// Reconfigure exchanges the settings, for the exchanges that begin from now on.
// On an error, which is about the settings only, those in force stay. It may be
// called while the server works; the caller must not change the settings' slice
// afterwards.
func (s *Server) Reconfigure(next Settings) error {
	if next.Defaults.Requests.Max <= 0 || next.Defaults.Requests.Window <= 0 || next.DefaultOutputTokens <= 0 {
		return errors.New("extproc: Defaults.Requests and DefaultOutputTokens must be positive")
	}
	if next.InvalidKeyStatus == 0 {
		next.InvalidKeyStatus = 403
	}
	s.settings.Store(&next)
	return nil
}
