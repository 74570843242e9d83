package envoy

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	headersv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// CORS says which web pages' scripts may read answers (Fetch Standard, "HTTP
// CORS protocol"). The zero value is none of another origin.
type CORS struct {
	// Origins are [AnyOrigin] alone, or origins as [ParseOrigins] returns them.
	Origins []string
	// Credentials lets the scripts of those origins send cookies and client
	// certificates too. An API key in a header needs no such thing.
	Credentials bool
	// MaxAge is how long a browser may remember the answer to a preflight.
	MaxAge time.Duration
}

// AnyOrigin stands for every origin.
const AnyOrigin = "*"

// noOrigin is what people write to have no CORS at all.
const noOrigin = "none"

const corsName = "envoy.filters.http.cors"

// ErrAnyOriginWithCredentials says that a configuration trusts every web page
// with its visitors' credentials. Browsers refuse that too.
var ErrAnyOriginWithCredentials = errors.New("credentials need a list of origins, any origin will not do")

// ParseOrigins reads "*", "none", or origins separated by commas. An origin is
// what browsers send (RFC 6454, section 6.1): scheme://host, and a port that is
// not the scheme's own; its case does not matter. Errors wrap [ErrOptions].
func ParseOrigins(text string) ([]string, error) {
	switch text = strings.ToLower(strings.TrimSpace(text)); text {
	case "", noOrigin:
		return []string{}, nil
	case AnyOrigin:
		return []string{AnyOrigin}, nil
	}
	var origins []string
	for item := range strings.SplitSeq(text, ",") {
		origin, err := parseOrigin(strings.TrimSpace(item))
		if err != nil {
			return nil, fmt.Errorf("%w: origin %q: %w", ErrOptions, item, err)
		}
		if !slices.Contains(origins, origin) {
			origins = append(origins, origin)
		}
	}
	return origins, nil
}

func parseOrigin(text string) (string, error) {
	wrong := errors.New("write it as browsers send it, scheme://host[:port], without a path")
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil || strings.HasSuffix(u.Host, ":") {
		return "", wrong
	}
	port := u.Port()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return "", errors.New("the port must be a number from 1 to 65535")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return "", err
	}
	if text != u.Scheme+"://"+u.Host {
		return "", wrong // a path, a query, or an escape that only looks like the host
	}
	if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		return u.Scheme + "://" + strings.TrimSuffix(u.Host, ":"+port), nil
	}
	return text, nil
}

// Check tells what Envoy's configuration cannot hold. Errors wrap [ErrOptions].
func (c CORS) Check() error {
	switch {
	case c.MaxAge < 0:
		return fmt.Errorf("%w: the preflight's age is %v; write a duration such as 600s", ErrOptions, c.MaxAge)
	case c.Credentials && c.any():
		return fmt.Errorf("%w: %w", ErrOptions, ErrAnyOriginWithCredentials)
	case len(c.Origins) == 0 || slices.Equal(c.Origins, []string{AnyOrigin}):
		return nil
	}
	again, err := ParseOrigins(strings.Join(c.Origins, ","))
	if err == nil && !slices.Equal(again, c.Origins) {
		err = fmt.Errorf("%w: origins %q: write each once, as browsers send it", ErrOptions, c.Origins)
	}
	return err
}

func (c CORS) any() bool { return slices.Contains(c.Origins, AnyOrigin) }

// allowedMethods are those that some path takes.
const allowedMethods = "GET, POST, OPTIONS"

// allowedHeaders may be sent by scripts. They are what OpenAI's clients send in
// browsers (openai-node, src/client.ts and src/internal/detect-platform.ts),
// and what traces and web frameworks add.
func (c CORS) allowedHeaders() string {
	names := []string{
		"authorization", "content-type", "accept", "user-agent", "x-requested-with",
		"idempotency-key", "x-request-id", "x-client-request-id",
		"openai-organization", "openai-project", "openai-beta",
		"traceparent", "tracestate", "baggage",
	}
	for _, name := range []string{
		"arch", "async", "custom-poll-interval", "helper-method", "lang", "os", "package-version",
		"poll-helper", "read-timeout", "retry-count", "runtime", "runtime-version", "timeout",
	} {
		names = append(names, "x-stainless-"+name)
	}
	if c.any() {
		// Everything else; authorization is never part of the star, and with
		// credentials the star is a name like any other.
		names = append(names, "*")
	}
	return strings.Join(names, ", ")
}

// exposedHeaders can be read by scripts, beside the few that always can.
func exposedHeaders() string {
	names := []string{"x-request-id", "retry-after", "retry-after-ms", "x-should-retry", "www-authenticate"}
	for _, kind := range []string{"", "-requests", "-tokens"} {
		for _, name := range []string{"limit", "remaining", "reset"} {
			names = append(names, "x-ratelimit-"+name+kind)
		}
	}
	return strings.Join(names, ", ")
}

// corsHeaders are what the protocol knows in answers.
func corsHeaders() []string {
	names := []string{"allow-credentials", "allow-headers", "allow-methods", "allow-origin", "allow-private-network", "expose-headers", "max-age"}
	for i, name := range names {
		names[i] = "access-control-" + name
	}
	return names
}

// corsFilters come first in the chain: a preflight carries no key, so it is
// answered before anything asks for one. Answers pass them last to first.
func corsFilters(c CORS) []*hcmv3.HttpFilter {
	if len(c.Origins) == 0 {
		return nil
	}
	return []*hcmv3.HttpFilter{filter("llmgw.cors_answers", c.lastWord()), filter(corsName, &corsv3.Cors{})}
}

// lastWord corrects what Envoy's filter makes of an answer. For any origin it
// echoes the one that asked, which caches would have to tell apart; a literal
// star says the same to everybody, so it can stand on every answer, malformed
// requests' among them. For a list it leaves out that the answer depends on who
// asked, and that must also be said to those who were not on the list.
func (c CORS) lastWord() *headersv3.HeaderMutation {
	if c.any() {
		return answersWith(
			setOnAnswers("access-control-allow-origin", AnyOrigin, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
			setOnAnswers("access-control-expose-headers", exposedHeaders(), corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD),
		)
	}
	return answersWith(setOnAnswers("vary", "Origin", corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD))
}

// ofLocalReplies are headers for what Envoy answers itself, and the requests
// for whose answers they are: a condition in CEL, "" for none.
func (c CORS) ofLocalReplies() (condition string, headers []*corev3.HeaderValueOption) {
	if len(c.Origins) == 0 {
		return "", nil
	}
	header := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: name, Value: value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	headers = []*corev3.HeaderValueOption{header("access-control-expose-headers", exposedHeaders())}
	if c.any() {
		return "true", append(headers, header("access-control-allow-origin", AnyOrigin))
	}
	if c.Credentials {
		headers = append(headers, header("access-control-allow-credentials", "true"))
	}
	// An origin has passed checkHost, so a quote cannot end the text.
	condition = "'origin' in request.headers && request.headers['origin'] in ['" + strings.Join(c.Origins, "', '") + "']"
	return condition, append(headers, header("access-control-allow-origin", "%REQ(origin)%"))
}

func answersWith(mutations ...*mutationv3.HeaderMutation) *headersv3.HeaderMutation {
	return &headersv3.HeaderMutation{Mutations: &headersv3.Mutations{ResponseMutations: mutations}}
}

func setOnAnswers(name, value string, how corev3.HeaderValueOption_HeaderAppendAction) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: how,
	}}}
}

// corsPolicy is the same for every route; nil where there is none.
func corsPolicy(c CORS) map[string]*anypb.Any {
	if len(c.Origins) == 0 {
		return nil
	}
	policy := &corsv3.CorsPolicy{
		AllowMethods:     allowedMethods,
		AllowHeaders:     c.allowedHeaders(),
		ExposeHeaders:    exposedHeaders(),
		MaxAge:           strconv.FormatInt(int64(c.MaxAge/time.Second), 10),
		AllowCredentials: wrapperspb.Bool(c.Credentials),
		// The default lets a preflight of an unknown origin through to the gate.
		ForwardNotMatchingPreflights: wrapperspb.Bool(false),
	}
	for _, origin := range c.Origins {
		policy.AllowOriginStringMatch = append(policy.AllowOriginStringMatch, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: origin},
		})
	}
	return map[string]*anypb.Any{corsName: anyOf(policy)}
}
