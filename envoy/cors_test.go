package envoy

import (
	"errors"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
)

func TestParseOrigins(t *testing.T) {
	for text, want := range map[string][]string{
		"*":                       {"*"},
		" none ":                  {},
		"NONE":                    {},
		"":                        {},
		"https://app.example.com": {"https://app.example.com"},
		"HTTPS://App.Example.COM": {"https://app.example.com"},
		"https://a:443, http://b:80,http://c:443":   {"https://a", "http://b", "http://c:443"},
		"http://localhost:3000,http://127.0.0.1:81": {"http://localhost:3000", "http://127.0.0.1:81"},
		"http://[::1]:8080":                         {"http://[::1]:8080"},
		"https://a,https://a:443":                   {"https://a"},
		"chrome-extension://abc,tauri://localhost":  {"chrome-extension://abc", "tauri://localhost"},
		"https://xn--bcher-kva.example":             {"https://xn--bcher-kva.example"},
	} {
		if got, err := ParseOrigins(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"https://app.example.com/", "https://app.example.com/x", "app.example.com", "//app.example.com", "https://", "null",
		"*,https://a", "https://a,*", "https://a,none", "https://*.example.com", "https://a b", "https://a,", ",",
		"https://u@a", "https://a?x", "https://a#x", "https://a:0", "https://a:70000", "https://a:", "https://bücher.example",
		"https://a%2eb", "https://a\nb", "https:a",
	} {
		if got, err := ParseOrigins(text); !errors.Is(err, ErrOptions) {
			t.Errorf("%q: %q %v, want a refusal", text, got, err)
		}
	}
}

func TestCORS_check(t *testing.T) {
	for name, c := range map[string]struct {
		cors CORS
		want error
	}{
		"none":                     {CORS{}, nil},
		"any":                      {CORS{Origins: []string{"*"}}, nil},
		"a list":                   {CORS{Origins: []string{"https://a", "http://b:1"}, Credentials: true}, nil},
		"any with credentials":     {CORS{Origins: []string{"*"}, Credentials: true}, ErrAnyOriginWithCredentials},
		"any in a list":            {CORS{Origins: []string{"https://a", "*"}}, ErrOptions},
		"not as browsers send it":  {CORS{Origins: []string{"https://A"}}, ErrOptions},
		"the port of the scheme":   {CORS{Origins: []string{"https://a:443"}}, ErrOptions},
		"an age before the answer": {CORS{MaxAge: -1}, ErrOptions},
	} {
		if err := c.cors.Check(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// What runs first decides: a preflight must meet nothing that asks for a key.
func TestCORSComesFirst(t *testing.T) {
	everyBootstrap(t, func(t *testing.T, m proto.Message) {
		visit(t, m, func(m proto.Message) {
			switch m := m.(type) {
			case *hcmv3.HttpConnectionManager:
				var names []string
				for _, f := range m.GetHttpFilters() {
					names = append(names, f.GetName())
				}
				if want := []string{"llmgw.cors_answers", corsName}; len(names) < 2 || !slices.Equal(names[:2], want) {
					t.Errorf("filters %v, want %v first", names, want)
				}
			case *corsv3.CorsPolicy:
				if f := m.GetForwardNotMatchingPreflights(); f == nil || f.GetValue() {
					t.Error("preflights of strangers pass")
				}
				anybody := slices.ContainsFunc(m.GetAllowOriginStringMatch(), func(o *matcherv3.StringMatcher) bool { return o.GetExact() == AnyOrigin })
				if anybody && m.GetAllowCredentials().GetValue() {
					t.Error("anybody, with credentials")
				}
				if star := strings.Contains(m.GetAllowHeaders(), "*"); star != anybody {
					t.Errorf("allowed headers %q", m.GetAllowHeaders())
				}
			}
		})
	})
}

// Without CORS nothing of it is left, not even what a model server says.
func TestNoCORS(t *testing.T) {
	o := goldenOptions(t, "http://127.0.0.1:8080")
	o.CORS = CORS{}
	b, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	visit(t, b, func(m proto.Message) {
		switch m := m.(type) {
		case *corsv3.CorsPolicy, *corsv3.Cors:
			t.Errorf("%T is there", m)
		case *hcmv3.HttpConnectionManager:
			if name := m.GetHttpFilters()[0].GetName(); name != extProcName {
				t.Errorf("the first filter is %s", name)
			}
		case *routev3.Route:
			if m.GetName() == upstreamRoute && len(m.GetResponseHeadersToRemove()) == 0 {
				t.Error("what the model server says about origins passes")
			}
		}
	})
}
