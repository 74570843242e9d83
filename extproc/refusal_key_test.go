package extproc

import (
	"strings"
	"testing"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/MaksimVF/llm-gateway/billing"
)

// askWith is the head of a chat request with a key.
func askWith(secret string) *extprocv3.ProcessingRequest {
	return requestHeadersMsg(false, ":method", "POST", ":path", "/v1/chat/completions", "authorization", "Bearer "+secret)
}

// Whoever may not come in is told the same, and nothing of why.
func TestRefusal_blockedAsUnknown(t *testing.T) {
	bodies := map[string]string{}
	for _, state := range []error{billing.ErrUnknownKey, billing.ErrRevokedKey, billing.ErrExpiredKey, billing.ErrBlockedKey} {
		r := newRig(t, nil)
		r.books.lookupErr = state
		talk := r.begin()
		a := talk.say(askWith(goodSecret))
		talk.end()
		checkRefusal(t, a, 403, "invalid_api_key")
		bodies[a.String()] = state.Error()
	}
	if len(bodies) != 1 {
		t.Errorf("%d answers: %v", len(bodies), bodies)
	}
}

// A key's models are patterns; what matches none never reaches the books.
func TestRefusal_modelPatterns(t *testing.T) {
	for model, admitted := range map[string]bool{
		"gpt-4o": true, "gpt-4o-mini": true, "meta/llama-3": true, "a/b/llama-3": true,
		"gpt-4": false, "GPT-4o": false, "my-gpt-4o": false, "llama-3": false, "meta/llama-3-8b": false, "*": false, "gpt-4o*": true,
	} {
		r := newRig(t, nil)
		talk := r.begin()
		talk.say(askWith("sk-patterns"))
		a := talk.say(requestBodyMsg(strings.Replace(chatBody, `"model":"m"`, `"model":"`+model+`"`, 1)))
		talk.end()
		if !admitted {
			checkRefusal(t, a, 403, "model_not_allowed")
		}
		if (len(r.books.requests) == 1) != admitted {
			t.Errorf("%s: %d requests in the books, admitted %t: %v", model, len(r.books.requests), admitted, a)
		}
	}
}
